"""A filter as bound SQL, in the dialect of SQLite, over the table of traces under the name `t`.

On Traces a filter is about the trace. On Sessions and Users a row stands for many traces:

- numbers are those of the row: sums; `duration` and `start` as `GROUPED` says;
- metadata on Users is the latest that the end user has;
- everything else, metadata on Sessions included, is true of the row if it is true of any of its traces, and what says
  no (`is not`, `does not contain`, `is none of`, `is not set`) is true if its opposite is true of none of them.

So a filter and its opposite divide every list in two, and nothing is in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from neatlogs_processor.core.text import fold
from neatlogs_processor.query.fields import ERROR, METADATA, OK, STATUSES, Field, FieldSpec, Kind, Operator
from neatlogs_processor.query.filters import Filter, Scalar
from neatlogs_processor.query.view import Tab

TOOK: Final = 'iif(t.start > 0, max(t."end" - t.start, 0), 0)'
"""How long a trace took, from what the indexes cover; the same as its duration."""
LASTED: Final = 'coalesce(max(max(t."end") - min(nullif(t.start, 0)), 0), 0)'
"""How long a session lasted: 0 where no start is known, or its times are the wrong way round."""


def added_up(expression: str) -> str:
    """Return the sum of a number that a sender chose. `sum()` fails above 2^63 - 1; this stops there.

    It is exact up to 2^53, which are nine million billion tokens, or 104 days.
    """
    return f"CAST(total({expression}) AS INTEGER)"


GROUPED: Final[dict[Tab, dict[str, str]]] = {
    Tab.SESSIONS: {
        "duration": LASTED,
        "start": "min(t.start)",
        "tokens": added_up("t.tokens"),
        "spans": "sum(t.spans)",
        "errors": "sum(t.errors)",
    },
    Tab.USERS: {
        "duration": added_up(TOOK),
        "start": "min(t.start)",
        "tokens": added_up("t.tokens"),
        "spans": "sum(t.spans)",
        "errors": "sum(t.errors)",
    },
}
"""What a number means where a row stands for many traces: of a session the time from first start to last end; of an
end user the time that their traces took together; `start` is the first."""

_GROUP_COLUMN: Final = {Tab.SESSIONS: "session", Tab.USERS: "end_user"}
MAX_PATH: Final = 16
"""A key of metadata with more dots than this is only looked up as it stands, not as a path."""

# NFKC takes this ligature apart, so no folded text holds it: behind both texts it makes "contains" mean "ends with".
_END: Final = "\ufb01"
_COMPARISONS: Final = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
}
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+")
_PARTIAL: Final = (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)


class Condition(NamedTuple):
    """SQL with question marks, and what is bound to them."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Grouped:
    """What a filter asks of a row that stands for many traces.

    Attributes:
        where: Of each trace; it is the same for all traces of a row.
        any: Of at least one trace.
        having: Of all together.
    """

    where: Condition | None = None
    any: Condition | None = None
    having: Condition | None = None


def of_trace(filter_: Filter) -> Condition:
    """Return the condition on one trace."""
    positive = filter_.operator.positive
    if positive is None:
        return _positive(filter_, filter_.operator)
    condition = _positive(filter_, positive)
    return Condition(f"NOT coalesce({condition.sql}, 0)", condition.parameters)


def of_group(filter_: Filter, tab: Tab) -> Grouped:
    """Return the condition on a session or an end user: traces grouped by the column of the tab."""
    spec = filter_.field.spec
    if spec.column == _GROUP_COLUMN[tab]:
        # The same for all traces of a row, so that it can be asked before they are added up.
        return Grouped(where=of_trace(filter_))
    if spec.name in GROUPED[tab]:
        return Grouped(having=_compare(GROUPED[tab][spec.name], filter_.operator, filter_.values[0]))
    positive = filter_.operator.positive
    if tab is Tab.USERS and spec.name == METADATA:
        inner = _positive(filter_, positive or filter_.operator, table="latest")
        exists = f"EXISTS (SELECT 1 FROM ({LATEST_METADATA}) AS latest WHERE {inner.sql})"  # noqa: S608  # names are ours
        return Grouped(having=Condition(exists if positive is None else f"NOT {exists}", inner.parameters))
    condition = _positive(filter_, positive or filter_.operator)
    if positive is None:
        return Grouped(any=condition)
    return Grouped(having=Condition(f"max(coalesce({condition.sql}, 0)) = 0", condition.parameters))


LATEST_METADATA: Final = (
    "SELECT m.metadata, m.metadata_folded FROM traces AS m"
    " WHERE m.end_user = t.end_user AND m.metadata IS NOT NULL ORDER BY m.start DESC, m.id DESC LIMIT 1"
)
"""The latest metadata of the end user of `t`, whatever the period."""


def _positive(filter_: Filter, operator: Operator, *, table: str = "t") -> Condition:
    spec, values = filter_.field.spec, filter_.values
    if spec.kind is Kind.JSON:
        return _json(filter_.field, operator, values, table)
    column = f"{table}.{spec.column}"
    if spec.kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
        return _compare(column, operator, values[0])
    if spec.kind is Kind.SET:
        return _set(spec, operator, [str(value).replace("\n", " ") for value in values], table)
    if operator is Operator.IS_SET:
        return Condition(f"{column} IS NOT NULL")
    if spec.kind is Kind.HEX:
        return _hex(column, operator, [str(value).lower() for value in values])
    if spec.kind is Kind.CHOICE:
        return _status(table, [str(value) for value in values])
    if operator in _PARTIAL:
        return _partial(f"{table}.{spec.folded}", operator, fold(str(values[0])))
    return _any_of(column, list(values))


def _compare(expression: str, operator: Operator, value: object) -> Condition:
    return Condition(f"{expression} {_COMPARISONS[operator]} ?", (value,))


def _any_of(expression: str, values: list[Any]) -> Condition:
    if len(values) == 1:
        return Condition(f"{expression} = ?", tuple(values))
    return Condition(f"{expression} IN ({', '.join('?' * len(values))})", tuple(values))


def _status(table: str, words: list[str]) -> Condition:
    """Compare the root's status. Most senders say `error` or nothing, so what is no error went well."""
    others = [STATUSES[word] for word in words if word != OK]
    found = [_any_of(f"{table}.status", others)] if others else []
    if OK in words:
        # Only a root that has arrived has a name, be it empty.
        found.append(Condition(f"({table}.status <> ? AND {table}.name IS NOT NULL)", (STATUSES[ERROR],)))
    return Condition(
        f"({' OR '.join(condition.sql for condition in found)})",
        tuple(parameter for condition in found for parameter in condition.parameters),
    )


def _partial(expression: str, operator: Operator, text: str) -> Condition:
    """Compare folded text. `instr`, because for LIKE some characters of the value would mean something."""
    if operator is Operator.STARTS_WITH:
        return Condition(f"instr({expression}, ?) = 1", (text,))
    if operator is Operator.ENDS_WITH:
        return Condition(f"instr({expression} || '{_END}', ?) > 0", (text + _END,))
    return Condition(f"instr({expression}, ?) > 0", (text,))


def _hex(column: str, operator: Operator, values: list[str]) -> Condition:
    if operator in _PARTIAL:
        return _partial(f"lower(hex({column}))", operator, fold(values[0]))
    # No trace has an id that is not hexadecimal.
    ids = [bytes.fromhex(value) for value in values if _HEX.fullmatch(value)]
    return _any_of(column, ids) if ids else Condition("0")


def _set(spec: FieldSpec, operator: Operator, values: list[str], table: str) -> Condition:
    """Compare a set: text in which every member stands between line feeds."""
    if operator is Operator.IS_SET:
        return Condition(f"{table}.{spec.column} <> ''")
    if operator in _PARTIAL:
        before = "\n" if operator is Operator.STARTS_WITH else ""
        after = "\n" if operator is Operator.ENDS_WITH else ""
        looked_for = f"{before}{fold(values[0])}{after}"
        # An empty value is in every member, and in no set without members.
        return Condition(f"({table}.{spec.folded} <> '' AND instr({table}.{spec.folded}, ?) > 0)", (looked_for,))
    # An empty text is never a member.
    members = [f"\n{value}\n" for value in values if value]
    found = " OR ".join([f"instr({table}.{spec.column}, ?) > 0"] * len(members)) or "0"
    return Condition(f"({found})", tuple(members))


def _json(field: Field, operator: Operator, values: tuple[str | int | Scalar, ...], table: str) -> Condition:
    """Compare the value at a key of metadata: at the key as it stands, else at the path that its dots describe."""
    column = f"{table}.{field.spec.folded if operator in _PARTIAL else field.spec.column}"

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


def _json_written(operator: Operator, values: tuple[str | int | Scalar, ...]) -> str | None:
    """Return text that stands in all metadata that passes the test, as the store writes it; `None` if there is none."""
    if len(values) != 1 or operator in _COMPARISONS:
        return None
    (value,) = values
    if isinstance(value, Scalar):
        # A number may be written in several ways.
        return value.text if value.number is None else None
    if operator in _PARTIAL:
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
        f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {keys} AND {last.sql})",  # noqa: S608  # names are ours
        (*path, *last.parameters),
    )


def _json_test(row: str, operator: Operator, values: tuple[str | int | Scalar, ...]) -> Condition:
    if operator is Operator.IS_SET:
        return Condition(f"{row}.type <> 'null'")
    if operator in _PARTIAL:
        shown = (
            f"CASE {row}.type WHEN 'text' THEN {row}.atom WHEN 'integer' THEN CAST({row}.atom AS TEXT)"
            f" WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' END"
        )
        return _partial(shown, operator, fold(str(values[0])))
    if operator in _COMPARISONS:
        number = values[0].number if isinstance(values[0], Scalar) else None
        compared = _compare(f"{row}.atom", operator, number)
        return Condition(f"{row}.type IN ('integer', 'real') AND {compared.sql}", compared.parameters)
    tests = [_json_is(row, value) for value in values]
    return Condition(
        f"({' OR '.join(test.sql for test in tests)})",
        tuple(parameter for test in tests for parameter in test.parameters),
    )


def _json_is(row: str, value: str | int | Scalar) -> Condition:
    if not isinstance(value, Scalar):
        return Condition(f"({row}.type = 'text' AND {row}.atom = ?)", (value,))
    if value.number is None:
        return Condition(f"({row}.type = ? OR ({row}.type = 'text' AND {row}.atom = ?))", (value.text, value.text))
    return Condition(
        f"(({row}.type IN ('integer', 'real') AND {row}.atom = ?) OR ({row}.type = 'text' AND {row}.atom = ?))",
        (value.number, value.text),
    )
