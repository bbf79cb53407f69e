"""Records of the store as JSON, as lines of CSV, and the schema that says what they look like."""

from __future__ import annotations

import csv
import io
import json
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

from neatlogs_processor.query import units
from neatlogs_processor.query.results import CoverageRow, SessionRow

_TIMES: Final = frozenset({"start", "end", "first_seen", "last_seen", "time"})
_DURATION: Final = "duration"
_PROPERTIES: Final[dict[type, dict[str, dict[str, Any]]]] = {
    SessionRow: {"mixed": {"type": "boolean"}},
    CoverageRow: {"share": {"type": ["number", "null"]}},
}
"""What a record works out from its fields and says too."""

# A spreadsheet takes a cell that begins so for a formula: https://owasp.org/www-community/attacks/CSV_Injection
# The last four are their wide forms, which some spreadsheets take for the same.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def as_json(value: Any) -> Any:
    """Return a record as JSON has it: times in RFC 3339, durations in nanoseconds under `duration_ns`."""
    if is_dataclass(value) and not isinstance(value, type):
        said = {}
        for field in fields(value):
            inner = getattr(value, field.name)
            said[_name(field.name)] = units.timestamp(inner) if field.name in _TIMES else as_json(inner)
        for name in _PROPERTIES.get(type(value), {}):
            said[name] = getattr(value, name)
        return said
    return [as_json(item) for item in value] if isinstance(value, tuple) else value


def schemas(*records: type) -> dict[str, Any]:
    """Return the JSON Schemas of these records, and of those inside them, by name."""
    found: dict[str, Any] = {}
    for record in records:
        _describe(record, found)
    return found


def columns(record: type) -> tuple[str, ...]:
    """Return the names that stand in the first line of a table of these records."""
    return tuple(_name(field.name) for field in fields(record))


def csv_lines(record: type, rows: Iterable[Any]) -> str:
    """Return rows as lines of CSV (RFC 4180), without the line of names.

    Sets are joined with commas, metadata is JSON. Text that a spreadsheet would take for a formula begins with an
    apostrophe.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    for row in rows:
        writer.writerow([_cell(field.name, getattr(row, field.name)) for field in fields(record)])
    return written.getvalue()


def csv_header(record: type) -> str:
    """Return the line of names."""
    return ",".join(columns(record)) + "\r\n"


def _cell(name: str, value: Any) -> str | int:
    if name in _TIMES:
        return units.timestamp(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        text = ", ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _name(field: str) -> str:
    return "duration_ns" if field == _DURATION else field


def _describe(record: type, found: dict[str, Any]) -> None:
    if record.__name__ in found:
        return
    hints = typing.get_type_hints(record)
    properties: dict[str, Any] = {}
    found[record.__name__] = {"type": "object", "properties": properties}
    for field in fields(record):
        time = field.name in _TIMES
        schema = {"type": "string", "format": "date-time"} if time else _schema(hints[field.name], found)
        properties[_name(field.name)] = schema
    properties.update(_PROPERTIES.get(record, {}))
    found[record.__name__] |= {"required": list(properties), "additionalProperties": False}


def _schema(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        inner = _schema(_without_none(arguments), found)
        return {**inner, "type": [inner["type"], "null"]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], found)}
    if is_dataclass(hint) and isinstance(hint, type):
        _describe(hint, found)
        return {"$ref": f"#/components/schemas/{hint.__name__}"}
    if origin is dict:
        return {"type": "object"}
    return {"type": {int: "integer", str: "string", bool: "boolean"}[hint]}


def _without_none(arguments: Sequence[Any]) -> Any:
    (inner,) = (argument for argument in arguments if argument is not type(None))
    return inner
