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
    any_of,
    compare,
    is_comparison,
)
from neatlogs_processor.query.fields import Field, FieldSpec, Operator
from neatlogs_processor.query.filters import Scalar

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

LARGEST: Final = 2**63 - 1

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

    def partial(self, column: str, operator: Operator, text: str) -> Condition:
        """See `Dialect`. The value is folded where the column is, so that both are by the same version of Unicode."""
        return self._partial(column, operator, text)

    def trace_id(self, column: str, operator: Operator, values: Sequence[str]) -> Condition:
        """See `Dialect`. Ids are text here."""
        if operator in PARTIAL:
            return self._partial(column, operator, values[0])
        return any_of(column, values)

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
        return alternative(
            Condition(f"position({table}.{spec.column}, ?) > 0", (f"\n{value}\n",)) for value in values if value
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
        return alternative(_json_is(value) for value in values)


def _value_at(document: str, path: Sequence[str]) -> Condition:
    """Return the value at a path as JSON text, '' where there is none. Of a key that stands twice the last counts."""
    value = document
    for _ in path:
        value = f"arrayLast(m -> m.1 = ?, JSONExtractKeysAndValuesRaw({value})).2"
    # The call around all others is the last step, and its question mark stands first.
    return Condition(value, tuple(reversed(path)))


def _number(operator: Operator, value: str | int | Scalar) -> Condition:
    number = value.number if isinstance(value, Scalar) else value
    whole = compare("toInt64OrNull(v)", operator, number)
    other = compare("toFloat64OrNull(v)", operator, number)
    return Condition(
        f"({_IS_NUMBER} AND ifNull(if(toInt64OrNull(v) IS NULL, {other.sql}, {whole.sql}), 0))",
        (*other.parameters, *whole.parameters),
    )


def _json_is(value: str | int | Scalar) -> Condition:
    is_text = f"({_IS_TEXT} AND JSONExtractString(v) = ?)"
    if not isinstance(value, Scalar):
        return Condition(is_text, (value,))
    same = Condition("v = ?", (value.text,)) if value.number is None else _number(Operator.EQUAL, value)
    return Condition(f"({same.sql} OR {is_text})", (*same.parameters, value.text))
