"""The dialect of ClickHouse, over rows of traces with the columns that the embedded store has too.

What differs from the embedded store, because ClickHouse's JSON does: text that JSON does not allow (`NaN`, half of a
surrogate pair) is no metadata, and of numbers beyond 2^53 `contains` may see other digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.query.dialect import (
    MAX_PATH,
    PARTIAL,
    Condition,
    Grouped,
    alternative,
    compare,
    is_comparison,
)
from neatlogs_processor.query.fields import Field, FieldSpec, Operator
from neatlogs_processor.query.filters import Scalar

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

LARGEST: Final = 2**63 - 1

_LIST_BYTES: Final = 100_000
"""Of a list, as it is sent; a server takes at most 128 KiB for a parameter (`http_max_field_value_size`)."""

_FULL_FOLD: Final = "normalizeUTF8NFKC(caseFoldUTF8(normalizeUTF8NFKC({0})))"
_OLD_FOLD: Final = "lowerUTF8(normalizeUTF8NFKC({0}))"
_FULL_FOLD_SINCE: Final = (26, 3)

# A whole number of more than 64 bits is handed over as text. What stands in quotes in the document is text indeed.
_AS_WRITTEN: Final = (
    "arrayMap(v -> if(match(v, '^\"-{{0,1}}[0-9]{{19,}}\"$') AND position({0}, v) = 0,"
    " substring(v, 2, length(v) - 2), v), [{1}])"
)
_IS_TEXT: Final = "startsWith(v, '\"')"
_IS_NUMBER: Final = "match(v, '^-{0,1}[0-9]')"


def fold(expression: str, version: tuple[int, ...]) -> str:
    """Return text as comparisons that ignore case see it; the same as `core.text.fold` since ClickHouse 26.3.

    Tested for every character that Python's and ClickHouse's Unicode know. An older server has no case folding: there
    a few letters are told apart that elsewhere are not, such as `ß` from `ss`.

    Args:
        expression: Text. It stands in the result once.
        version: Of the server.
    """
    return (_FULL_FOLD if version[:2] >= _FULL_FOLD_SINCE else _OLD_FOLD).format(expression)


@dataclass(frozen=True)
class ClickHouseDialect:
    """How ClickHouse is asked. Sets are text in which every member stands between line feeds.

    Attributes:
        traces: The rows that are asked about, under the name `t`.
        version: Of the server.
    """

    traces: Condition
    version: tuple[int, ...]

    took = "t.duration"
    lasted = 'coalesce(greatest(max(t."end") - min(nullIf(t.start, 0)), 0), 0)'
    tie = "t.trace_id"

    def added_up(self, expression: str) -> str:
        """See `Dialect`. `sum()` would begin again from 0 above its type's largest number."""
        return f"toInt64(least(sum(toUInt128({expression})), toUInt128({LARGEST})))"

    def fold(self, expression: str) -> str:
        """Return text as comparisons that ignore case see it."""
        return fold(expression, self.version)

    def one_of(self, column: str, values: Sequence[str]) -> Condition:
        """See `Dialect`."""
        return _among(column, values)

    def partial(self, column: str, operator: Operator, text: str) -> Condition:
        """See `Dialect`. The value is folded where the column is, so that both are by the same version of Unicode."""
        return self._partial(column, operator, text)

    def trace_id(self, column: str, operator: Operator, values: Sequence[str]) -> Condition:
        """See `Dialect`. Ids are text here."""
        if operator in PARTIAL:
            return self._partial(column, operator, values[0])
        return _among(column, values)

    def members(self, spec: FieldSpec, operator: Operator, values: Sequence[str], table: str) -> Condition:
        """See `Dialect`."""
        if operator is Operator.IS_SET:
            return Condition(f"{table}.{spec.column} <> ''")
        if operator in PARTIAL:
            before = "'\\n'" if operator is Operator.STARTS_WITH else "''"
            after = "'\\n'" if operator is Operator.ENDS_WITH else "''"
            looked_for = f"concat({before}, {self.fold('?')}, {after})"
            column = f"{table}.{spec.folded}"
            # An empty value is in every member, and in no set without members.
            found = f"({column} <> '' AND position({column}, {looked_for}) > 0)"
            return Condition(found, (values[0],))
        # An empty text is never a member.
        column = f"splitByChar('\\n', {table}.{spec.column})"
        return alternative(
            Condition(f"hasAny({column}, ?)", (one,)) for one in _lists([value for value in values if value])
        )

    def metadata(self, field: Field, operator: Operator, values: Sequence[str | int | Scalar], table: str) -> Condition:
        """See `Dialect`."""
        document = f"ifNull({table}.{field.spec.column}, '')"
        value = _value_at(document, (field.key,))
        path = tuple(field.key.split("."))
        if 1 < len(path) <= MAX_PATH:
            below = _value_at(document, path)
            value = Condition(
                f"if({value.sql} <> '', {value.sql}, {below.sql})",
                (*value.parameters, *value.parameters, *below.parameters),
            )
        test = self._json_test(operator, values)
        return Condition(
            f"arrayExists(v -> v <> '' AND {test.sql}, {_AS_WRITTEN.format(document, value.sql)})",
            (*test.parameters, *value.parameters),
        )

    def latest_metadata(self, condition: Callable[[str], Condition], *, negated: bool) -> Grouped:
        """See `Dialect`. From the rollup of end users, which knows it for all time."""
        inner = condition("latest")
        word = "NOT IN" if negated else "IN"
        named = (
            f"t.end_user {word} (SELECT latest.end_user FROM (SELECT u.end_user AS end_user,"
            f" argMaxIfMerge(u.metadata) AS metadata FROM neatlogs_users AS u GROUP BY u.end_user) AS latest"
            f" WHERE {inner.sql})"
        )
        return Grouped(where=Condition(named, inner.parameters))

    def _partial(self, expression: str, operator: Operator, text: str) -> Condition:
        looked_for, parameters = self.fold("?"), (text,)
        if operator is Operator.STARTS_WITH:
            return Condition(f"startsWith({expression}, {looked_for})", parameters)
        if operator is Operator.ENDS_WITH:
            return Condition(f"endsWith({expression}, {looked_for})", parameters)
        return Condition(f"position({expression}, {looked_for}) > 0", parameters)

    def _json_test(self, operator: Operator, values: Sequence[str | int | Scalar]) -> Condition:
        if operator is Operator.IS_SET:
            return Condition("v <> 'null'")
        if operator in PARTIAL:
            shown = f"if({_IS_TEXT}, {self.fold('JSONExtractString(v)')}, v)"
            compared = self._partial(shown, operator, str(values[0]))
            is_shown = f"({_IS_TEXT} OR match(v, '^(-{{0,1}}[0-9]+|true|false)$'))"
            return Condition(f"({is_shown} AND {compared.sql})", compared.parameters)
        if is_comparison(operator):
            return _number(operator, values[0])
        return _json_is_any_of(values)


def _value_at(document: str, path: Sequence[str]) -> Condition:
    """Return the value at a path as JSON text, '' where there is none. Of a key that stands twice the last counts."""
    value = document
    for _ in path:
        value = f"arrayLast(m -> m.1 = ?, JSONExtractKeysAndValuesRaw({value})).2"
    # The call around all others is the last step, and its question mark stands first.
    return Condition(value, tuple(reversed(path)))


def _number(operator: Operator, value: str | int | Scalar) -> Condition:
    number = value.number if isinstance(value, Scalar) else value
    return _as_number(compare("toInt64OrNull(v)", operator, number), compare("toFloat64OrNull(v)", operator, number))


def _as_number(whole: Condition, other: Condition) -> Condition:
    return Condition(
        f"({_IS_NUMBER} AND ifNull(if(toInt64OrNull(v) IS NULL, {other.sql}, {whole.sql}), 0))",
        (*other.parameters, *whole.parameters),
    )


def _json_is_any_of(values: Sequence[str | int | Scalar]) -> Condition:
    bare = [value for value in values if isinstance(value, Scalar)]
    texts = [value.text if isinstance(value, Scalar) else str(value) for value in values]
    is_text = _among("JSONExtractString(v)", texts)
    numbers = [value.number for value in bare if value.number is not None]
    return alternative(
        [
            Condition(f"({_IS_TEXT} AND {is_text.sql})", is_text.parameters),
            _among("v", [value.text for value in bare if value.number is None]),
            *([_is_any_number(numbers)] if numbers else []),
        ]
    )


def _is_any_number(numbers: Sequence[int | float]) -> Condition:
    # Lists are of one type, and what one type cannot say exactly is equal to nothing of the other.
    whole = [int(number) for number in numbers if int(number) == number and -LARGEST - 1 <= number <= LARGEST]
    other = [float(number) for number in numbers if int(float(number)) == number or isinstance(number, float)]
    return _as_number(_among("toInt64OrNull(v)", whole), _among("toFloat64OrNull(v)", other))


def _among(expression: str, values: Sequence[str | int | float]) -> Condition:
    """Say that an expression is one of these values, bound as lists: to plan for each by itself would take seconds."""
    if len(values) == 1:
        return Condition(f"{expression} = ?", tuple(values))
    return alternative(Condition(f"{expression} IN ?", (one,)) for one in _lists(values))


def _lists(values: Sequence[str | int | float]) -> list[list[str | int | float]]:
    lists: list[list[str | int | float]] = []
    room = 0
    for value in values:
        size = 2 * len(str(value).encode()) + 3
        if size > room:
            lists.append([])
            room = _LIST_BYTES
        lists[-1].append(value)
        room -= size
    return lists
