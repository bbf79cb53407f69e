"""What the JSON API says about itself: an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from neatlogs_processor.page.api_records import columns, schemas
from neatlogs_processor.query.results import Coverage, SessionRow, TraceDetail, TraceRow, UserRow
from neatlogs_processor.query.view import DEFAULT_LIMIT, MAX_LIMIT, SORTS, Tab

LISTED: Final[dict[Tab, type]] = {Tab.TRACES: TraceRow, Tab.SESSIONS: SessionRow, Tab.USERS: UserRow}
"""The records of each list."""

_NAMES: Final = {Tab.TRACES: "traces", Tab.SESSIONS: "sessions", Tab.USERS: "end users"}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what would fit."},
                "parameter": {"type": "string", "description": "The parameter that it stands in."},
                "index": {"type": "integer", "description": "Which of the parameters of that name, from 0."},
                "position": {"type": "integer", "description": "The character at which it goes wrong, from 0."},
                "expected": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "What would fit there: words as they are typed, or descriptions in <>.",
                },
            },
        }
    },
}


def document(root_path: str = "") -> dict[str, Any]:
    """Return the document.

    Args:
        root_path: The path that the page is served under, without a slash at its end.
    """
    paths: dict[str, Any] = {}
    for tab in LISTED:
        paths[f"/api/{tab.value}"] = {"get": _list(tab)}
        paths[f"/api/{tab.value}.csv"] = {"get": _table(tab)}
    paths["/api/traces/{trace_id}"] = {"get": _trace()}
    paths["/api/coverage"] = {"get": _coverage()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Traces by end user",
            "version": version("neatlogs-otel"),
            "description": (
                "What the traces page shows, for programs. The query string is the page's own: copy it from there."
                " Times are RFC 3339 in UTC, durations are nanoseconds."
            ),
        },
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": {
            "schemas": {**schemas(*LISTED.values(), TraceDetail, Coverage), "Error": _ERROR},
            "responses": {
                "BadRequest": _answer("A parameter cannot be understood.", "Error"),
                "NotFound": _answer("There is no such trace.", "Error"),
                "Unavailable": _answer("The store cannot be read at the moment.", "Error"),
                "Unauthorized": {"description": "The page's token is needed: Authorization: Bearer."},
            },
        },
    }


def _list(tab: Tab) -> dict[str, Any]:
    rows = {"type": "array", "items": {"$ref": f"#/components/schemas/{LISTED[tab].__name__}"}}
    schema = {
        "type": "object",
        "required": ["rows", "next_cursor", "next"],
        "additionalProperties": False,
        "properties": {
            "rows": rows,
            "next_cursor": {"type": ["string", "null"], "description": "The cursor of the next page."},
            "next": {"type": ["string", "null"], "description": "The address of the next page."},
        },
    }
    return {
        "operationId": f"list_{tab.value}",
        "summary": f"One page of the {_NAMES[tab]} that the filters select",
        "parameters": _parameters(tab),
        "responses": {"200": _content("The page.", "application/json", schema), **_REFUSALS},
    }


def _table(tab: Tab) -> dict[str, Any]:
    description = (
        "All rows from the cursor on, whatever the limit. Columns: " + ", ".join(columns(LISTED[tab])) + ". Text that"
        " a spreadsheet would take for a formula begins with an apostrophe."
    )
    return {
        "operationId": f"table_of_{tab.value}",
        "summary": f"All {_NAMES[tab]} that the filters select, as CSV",
        "parameters": _parameters(tab),
        "responses": {"200": _content(description, "text/csv", {"type": "string"}), **_REFUSALS},
    }


def _trace() -> dict[str, Any]:
    trace_id = {
        "name": "trace_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^([0-9a-f]{2}){1,64}$"},
    }
    return {
        "operationId": "get_trace",
        "summary": "A trace with its spans, at most 10,000 of them",
        "parameters": [trace_id],
        "responses": {
            "200": _answer("The trace.", "TraceDetail"),
            "404": {"$ref": "#/components/responses/NotFound"},
            **_REFUSALS,
        },
    }


def _coverage() -> dict[str, Any]:
    return {
        "operationId": "get_coverage",
        "summary": "The share of traces with an end user, by service and by day, and the overrides that were ignored",
        "parameters": _parameters(Tab.COVERAGE),
        "responses": {"200": _answer("The coverage.", "Coverage"), **_REFUSALS},
    }


def _parameters(tab: Tab) -> list[dict[str, Any]]:
    filters = {"type": "array", "items": {"type": "string"}}
    said: list[tuple[str, dict[str, Any], str]] = [
        ("filter", filters, "Filters in their text form, such as `end_user contains ali`. All must hold."),
        ("last", {"type": "string", "examples": ["24h", "7d", "all"]}, "How far back from now; 7d by default."),
        ("from", {"type": "string", "examples": ["2026-11-20T10:00:00Z"]}, "Traces that start at this time or later."),
        ("to", {"type": "string", "examples": ["2026-11-21"]}, "Traces that start before this time."),
    ]
    if SORTS[tab]:
        orders = [sign + key for key in SORTS[tab] for sign in ("-", "")]
        number = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        # A form sends its empty inputs too: they say nothing.
        limit = {"anyOf": [number, {"type": "string", "maxLength": 0}]}
        said += [
            (
                "sort",
                {"type": "string", "enum": [*orders, ""], "default": orders[0]},
                "A minus puts the largest first.",
            ),
            ("cursor", {"type": "string"}, "Where the page begins: `next_cursor` of the page before."),
            ("limit", limit, "Rows of a page."),
        ]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        for name, schema, description in said
    ]


def _answer(description: str, name: str) -> dict[str, Any]:
    return _content(description, "application/json", {"$ref": f"#/components/schemas/{name}"})


def _content(description: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


_REFUSALS: Final = {
    "400": {"$ref": "#/components/responses/BadRequest"},
    "401": {"$ref": "#/components/responses/Unauthorized"},
    "503": {"$ref": "#/components/responses/Unavailable"},
}
