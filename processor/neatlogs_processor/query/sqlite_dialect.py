"""The dialect of SQLite, over the table of traces of the embedded store (`store/schema.sql`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

from neatlogs_processor.core.text import fold
from neatlogs_processor.query.dialect import (
    MAX_PATH,
    PARTIAL,
    Condition,
    Dialect,
    Grouped,
    alternative,
    any_of,
    compare,
    is_comparison,
)
from neatlogs_processor.query.fields import Field, FieldSpec, Operator
from neatlogs_processor.query.filters import Scalar

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

LATEST_METADATA: Final = (
    "SELECT m.metadata, m.metadata_folded FROM traces AS m"
    " WHERE m.end_user = t.end_user AND m.metadata IS NOT NULL ORDER BY m.start DESC, m.id DESC LIMIT 1"
)
"""The latest metadata of the end user of `t`, whatever the period."""

# NFKC takes this ligature apart, so no folded text holds it: behind both texts it makes "contains" mean "ends with".
_END: Final = "\ufb01"
_EXACT: Final = 2**53
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")


class SqliteDialect:
    """How SQLite is asked. Sets are text in which every member stands between line feeds."""

    traces = Condition("traces AS t")
    took = 'iif(t.start > 0, max(t."end" - t.start, 0), 0)'
    lasted = 'coalesce(max(max(t."end") - min(nullif(t.start, 0)), 0), 0)'
    tie = "t.id"

    def added_up(self, expression: str) -> str:
        """See `Dialect`. `sum()` fails above 2^63 - 1; this stops there."""
        return f"CAST(total({expression}) AS INTEGER)"

    def one_of(self, column: str, values: Sequence[str]) -> Condition:
        """See `Dialect`."""
        return any_of(column, values)

    def partial(self, column: str, operator: Operator, text: str) -> Condition:
        """See `Dialect`."""
        return _partial(column, operator, fold(text))

    def trace_id(self, column: str, operator: Operator, values: Sequence[str]) -> Condition:
        """See `Dialect`. The store has ids as bytes."""
        if operator in PARTIAL:
            return _partial(f"lower(hex({column}))", operator, fold(values[0]))
        # No trace has an id that is not hexadecimal.
        ids = [bytes.fromhex(value) for value in values if _HEX.fullmatch(value)]
        return any_of(column, ids) if ids else Condition("0")

    def members(self, spec: FieldSpec, operator: Operator, values: Sequence[str], table: str) -> Condition:
        """See `Dialect`."""
        if operator is Operator.IS_SET:
            return Condition(f"{table}.{spec.column} <> ''")
        if operator in PARTIAL:
            before = "\n" if operator is Operator.STARTS_WITH else ""
            after = "\n" if operator is Operator.ENDS_WITH else ""
            looked_for = f"{before}{fold(values[0])}{after}"
            # An empty value is in every member, and in no set without members.
            return Condition(f"({table}.{spec.folded} <> '' AND instr({table}.{spec.folded}, ?) > 0)", (looked_for,))
        # An empty text is never a member.
        return alternative(
            Condition(f"instr({table}.{spec.column}, ?) > 0", (f"\n{value}\n",)) for value in values if value
        )

    def metadata(self, field: Field, operator: Operator, values: Sequence[str | int | Scalar], table: str) -> Condition:
        """See `Dialect`."""
        column = f"{table}.{field.spec.folded if operator in PARTIAL else field.spec.column}"

        def test(row: str) -> Condition:
            return _json_test(row, operator, values)

        found = _json_at(column, (field.key,), test)
        path = tuple(field.key.split("."))
        if 1 < len(path) <= MAX_PATH:
            key_is_there = _json_at(column, (field.key,), lambda _: Condition("1"))
            at_path = _json_at(column, path, test)
            found = Condition(
                f"({found.sql} OR (NOT {key_is_there.sql} AND {at_path.sql}))",
                (*found.parameters, *key_is_there.parameters, *at_path.parameters),
            )
        written = _json_written(operator, values)
        if written is None:
            return found
        # Taking JSON apart costs ten times as much as seeing that the value is nowhere in it.
        return Condition(f"(instr({column}, ?) > 0 AND {found.sql})", (written, *found.parameters))

    def latest_metadata(self, condition: Callable[[str], Condition], *, negated: bool) -> Grouped:
        """See `Dialect`. Looked up for each end user by an index."""
        inner = condition("latest")
        exists = f"EXISTS (SELECT 1 FROM ({LATEST_METADATA}) AS latest WHERE {inner.sql})"
        return Grouped(having=Condition(f"NOT {exists}" if negated else exists, inner.parameters))


def _partial(expression: str, operator: Operator, text: str) -> Condition:
    """Compare folded text. `instr`, because for LIKE some characters of the value would mean something."""
    if operator is Operator.STARTS_WITH:
        return Condition(f"instr({expression}, ?) = 1", (text,))
    if operator is Operator.ENDS_WITH:
        return Condition(f"instr({expression} || '{_END}', ?) > 0", (text + _END,))
    return Condition(f"instr({expression}, ?) > 0", (text,))


def _json_written(operator: Operator, values: Sequence[str | int | Scalar]) -> str | None:
    """Return text that stands in all metadata that passes the test, as the store writes it; `None` if there is none."""
    if len(values) != 1 or is_comparison(operator):
        return None
    (value,) = values
    if isinstance(value, Scalar):
        # A number may be written in several ways.
        return value.text if value.number is None else None
    if operator in PARTIAL:
        return json.dumps(fold(str(value)), ensure_ascii=False)[1:-1]
    return json.dumps(value, ensure_ascii=False)


def _json_at(column: str, path: tuple[str, ...], test: Callable[[str], Condition]) -> Condition:
    """Say that there is a value at the path and that it passes the test.

    By `json_each` and not by SQLite's path expressions, which cannot quote every key.
    """
    tables = [f"json_each({column}) AS j0"]
    for step in range(1, len(path)):
        above = f"j{step - 1}"
        tables.append(f"json_each(CASE {above}.type WHEN 'object' THEN {above}.value ELSE '{{}}' END) AS j{step}")
    keys = " AND ".join(f"j{step}.key = ?" for step in range(len(path)))
    last = test(f"j{len(path) - 1}")
    return Condition(
        f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {keys} AND {last.sql})",
        (*path, *last.parameters),
    )


def _json_test(row: str, operator: Operator, values: Sequence[str | int | Scalar]) -> Condition:
    if operator is Operator.IS_SET:
        return Condition(f"{row}.type <> 'null'")
    if operator in PARTIAL:
        # JSON does not tell 5.0 from 5. Up to 2^53 a floating point number is the whole number that it was written as.
        whole = f"CAST({row}.atom AS INTEGER)"
        is_whole = f"{row}.type = 'real' AND {row}.atom = {whole} AND abs({row}.atom) <= {_EXACT}"
        shown = (
            f"CASE WHEN {row}.type IN ('text', 'true', 'false') THEN iif({row}.type = 'text', {row}.atom, {row}.type)"
            f" WHEN {row}.type = 'integer' OR ({is_whole}) THEN CAST({whole} AS TEXT) END"
        )
        return _partial(shown, operator, fold(str(values[0])))
    if is_comparison(operator):
        number = values[0].number if isinstance(values[0], Scalar) else None
        compared = compare(f"{row}.atom", operator, number)
        return Condition(f"{row}.type IN ('integer', 'real') AND {compared.sql}", compared.parameters)
    return alternative(_json_is(row, value) for value in values)


def _json_is(row: str, value: str | int | Scalar) -> Condition:
    if not isinstance(value, Scalar):
        return Condition(f"({row}.type = 'text' AND {row}.atom = ?)", (value,))
    if value.number is None:
        return Condition(f"({row}.type = ? OR ({row}.type = 'text' AND {row}.atom = ?))", (value.text, value.text))
    return Condition(
        f"(({row}.type IN ('integer', 'real') AND {row}.atom = ?) OR ({row}.type = 'text' AND {row}.atom = ?))",
        (value.number, value.text),
    )


SQLITE: Final[Dialect] = SqliteDialect()
