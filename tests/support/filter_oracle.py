"""What a filter means, in plain Python over traces as tests write them: what the store's SQL is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from neatlogs_processor.core.text import fold
from neatlogs_processor.query.fields import Field, Kind, Operator
from neatlogs_processor.query.filters import Filter, Scalar
from neatlogs_processor.query.view import Tab
from support.stored import Stored

_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: lambda a, b: a == b,
    Operator.NOT_EQUAL: lambda a, b: a != b,
    Operator.GREATER: lambda a, b: a > b,
    Operator.GREATER_OR_EQUAL: lambda a, b: a >= b,
    Operator.LESS: lambda a, b: a < b,
    Operator.LESS_OR_EQUAL: lambda a, b: a <= b,
}


def traces(stored: Iterable[Stored], filters: Sequence[Filter]) -> set[str]:
    """Return the ids of the traces that the filters select."""
    return {trace.trace_id for trace in stored if all(holds(filter_, trace) for filter_ in filters)}


def rows(tab: Tab, stored: Sequence[Stored], filters: Sequence[Filter]) -> set[str]:
    """Return the sessions or the end users that the filters select."""
    groups: dict[str, list[Stored]] = {}
    for trace in stored:
        name = session_of(trace) if tab is Tab.SESSIONS else end_user_of(trace)
        if name is not None:
            groups.setdefault(name, []).append(trace)
    return {name for name, members in groups.items() if all(holds_for(tab, one, members) for one in filters)}


def holds(filter_: Filter, trace: Stored) -> bool:
    """Tell whether a filter is true of a trace."""
    positive = filter_.operator.positive
    if positive is not None:
        return not _says(filter_, positive, _values(filter_.field, trace))
    return _says(filter_, filter_.operator, _values(filter_.field, trace))


def holds_for(tab: Tab, filter_: Filter, members: Sequence[Stored]) -> bool:
    """Tell whether a filter is true of a session or an end user with these traces."""
    name, operator = filter_.field.name, filter_.operator
    if operator in _COMPARE and filter_.field.spec.kind is not Kind.JSON:
        return _COMPARE[operator](_number(tab, name, members), filter_.values[0])
    if tab is Tab.USERS and name == "metadata":
        with_metadata = [trace for trace in members if metadata_of(trace) is not None]
        members = sorted(with_metadata, key=lambda trace: trace.start)[-1:]
    any_of_them = any(_says(filter_, operator.positive or operator, _values(filter_.field, one)) for one in members)
    return any_of_them == (operator.positive is None)


def end_user_of(trace: Stored) -> str | None:
    """The end user of a trace: nobody's word counts but a root's, and an empty one is none."""
    return (trace.end_user or None) if trace.root_received else None


def session_of(trace: Stored) -> str | None:
    """The session that the root names."""
    return (trace.session or None) if trace.root_received else None


def metadata_of(trace: Stored) -> dict[str, Any] | None:
    """The metadata of the end user, where it is an object."""
    if end_user_of(trace) is None and not isinstance(trace.metadata, dict):
        return None
    return trace.metadata if trace.root_received and isinstance(trace.metadata, dict) else None


def _status(trace: Stored) -> list[Any]:
    """The words that are true of a trace: what is no error went well, also where its sender said nothing."""
    said = trace.status if trace.root_received else "unset"
    return [said] if said != "unset" or not trace.root_received else [said, "ok"]


def _values(field: Field, trace: Stored) -> list[Any]:
    """All values that a trace has for a field; none where it is not set."""
    one: dict[str, Any] = {
        "end_user": end_user_of(trace),
        "session": session_of(trace),
        "workflow": trace.shown_workflow,
        "name": trace.name if trace.root_received else None,
        "trace_id": trace.trace_id,
        "duration": trace.duration,
        "tokens": trace.tokens,
        "spans": trace.span_count,
        "errors": trace.error_count,
        "start": trace.start,
    }
    if field.name == "service":
        return [service for service in trace.services[: trace.span_count] if service]
    if field.name == "status":
        return _status(trace)
    if field.name == "tag":
        return [tag for tag in trace.tags if tag]
    if field.name == "metadata":
        return _at(metadata_of(trace) or {}, field.key)
    value = one[field.name]
    return [] if value is None else [value]


def _at(metadata: dict[str, Any], key: str) -> list[Any]:
    if key in metadata:
        return [metadata[key]]
    value: Any = metadata
    for step in key.split("."):
        if not isinstance(value, dict) or step not in value:
            return []
        value = value[step]
    return [value]


def _says(filter_: Filter, operator: Operator, values: list[Any]) -> bool:
    is_json = filter_.field.spec.kind is Kind.JSON
    if operator is Operator.IS_SET:
        return any(value is not None for value in values)
    if operator in (Operator.IS, Operator.IS_ANY_OF):
        if filter_.field.name == "trace_id":
            return values[0] in [str(wanted).lower() for wanted in filter_.values]
        return any(_is(value, wanted, is_json) for value in values for wanted in filter_.values)
    if operator in _COMPARE:
        wanted = filter_.values[0]
        number = wanted.number if isinstance(wanted, Scalar) else wanted
        numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        return any(_COMPARE[operator](value, number) for value in numbers)
    text = fold(str(filter_.values[0]))
    compare = {
        Operator.CONTAINS: str.__contains__,
        Operator.STARTS_WITH: str.startswith,
        Operator.ENDS_WITH: str.endswith,
    }
    return any(compare[operator](fold(shown), text) for value in values if (shown := _shown(value)) is not None)


def _is(value: Any, wanted: object, is_json: bool) -> bool:
    if not isinstance(wanted, Scalar):
        return isinstance(value, str) and value == wanted
    if isinstance(value, str):
        return value == wanted.text
    meant = json.loads(wanted.text)
    if isinstance(value, bool) or value is None or isinstance(meant, bool) or meant is None:
        return type(value) is type(meant) and value == meant
    return isinstance(value, (int, float)) and value == meant


def _shown(value: Any) -> str | None:
    """The text that a partial comparison sees: texts, whole numbers (5.0 is one), true and false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return str(int(value))
    return str(value) if isinstance(value, (str, int)) else None


def _number(tab: Tab, name: str, members: Sequence[Stored]) -> int:
    if name == "start":
        return min(trace.start for trace in members)
    if name == "duration" and tab is Tab.SESSIONS:
        return max(trace.start + trace.duration for trace in members) - min(trace.start for trace in members)
    field = Field(name)
    return sum(_values(field, trace)[0] for trace in members)
