"""The JSON API: what the page lists, for programs, under the page's own query string.

Everything answers GET. `/api/openapi.json` describes it; errors are JSON and name the character that they begin at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.page.api_document import LISTED, document
from neatlogs_processor.page.api_records import as_json, csv_header, csv_lines
from neatlogs_processor.query import text
from neatlogs_processor.query.errors import FilterRefusedError, QueryError
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.results import Page
from neatlogs_processor.query.view import TABLE_LIMIT, Tab, View

_Answer = Callable[[Request], Response]
_RETRY_SECONDS: Final = "1"


def api_routes(reader: TraceReader, *, root_path: str = "", clock: Callable[[], int] = time.time_ns) -> list[BaseRoute]:
    """Return the routes of the API.

    Args:
        reader: The store.
        root_path: The path that the page is served under, without a slash at its end.
        clock: Returns nanoseconds since the epoch.
    """
    api = _Api(reader, root_path, clock)
    routes: list[BaseRoute] = [
        Route("/api/openapi.json", api.openapi),
        Route("/api/coverage", _answering(api.coverage)),
        Route("/api/traces/{trace_id}", _answering(api.trace)),
    ]
    for tab in LISTED:
        routes.append(Route(f"/api/{tab.value}", _answering(api.listing(tab))))
        routes.append(Route(f"/api/{tab.value}.csv", _answering(api.table(tab))))
    return routes


def _answering(answer: _Answer) -> _Answer:
    """Turn what goes wrong into JSON."""

    def endpoint(request: Request) -> Response:
        try:
            return answer(request)
        except FilterRefusedError as error:
            where = text.located(error, request.query_params.getlist("filter"))
            return JSONResponse({"error": _described(where)}, status_code=400)
        except QueryError as error:
            return JSONResponse({"error": _described(error)}, status_code=400)
        except ProcessorError as error:
            return _failure(503, str(error), {"retry-after": _RETRY_SECONDS})

    return endpoint


def _described(error: QueryError) -> dict[str, Any]:
    return {
        "message": error.message,
        "parameter": error.parameter,
        "index": error.index,
        "position": error.position,
        "expected": list(error.expected),
    }


def _failure(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


class _Api:
    """The endpoints. They are functions, not coroutines: Starlette runs them in threads, where the store may block."""

    def __init__(self, reader: TraceReader, root_path: str, clock: Callable[[], int]) -> None:
        self._reader = reader
        self._root = root_path
        self._clock = clock

    def openapi(self, _: Request) -> Response:
        """Answer with the description of the API."""
        return JSONResponse(document(self._root))

    def trace(self, request: Request) -> Response:
        """Answer with a whole trace. The query string of the page may stay: it says where the trace was found."""
        view = _view(Tab.TRACES, request, trace=request.path_params["trace_id"])
        found = self._reader.trace(view.trace or "")
        return JSONResponse(as_json(found)) if found is not None else _failure(404, "there is no such trace")

    def coverage(self, request: Request) -> Response:
        """Answer with the coverage."""
        view = _view(Tab.COVERAGE, request)
        return JSONResponse(as_json(self._reader.coverage(view, now=self._clock())))

    def listing(self, tab: Tab) -> _Answer:
        """Return what answers with one page of a tab's list."""

        def answer(request: Request) -> Response:
            view = _view(tab, request)
            page = self._page(view, self._clock())
            following = view.from_cursor(page.next_cursor).url if page.next_cursor else None
            return JSONResponse(
                {
                    "rows": as_json(page.rows),
                    "next_cursor": page.next_cursor,
                    "next": f"{self._root}/api{following}" if following else None,
                }
            )

        return answer

    def table(self, tab: Tab) -> _Answer:
        """Return what answers with all rows of a tab's list from the cursor on, as CSV."""

        def answer(request: Request) -> Response:
            view = replace(_view(tab, request), limit=TABLE_LIMIT)
            now = self._clock()
            # Asked before the answer begins, so that what is wrong with the question gets a status of its own.
            first = self._page(view, now)
            return StreamingResponse(
                self._lines(view, now, first),
                media_type="text/csv; charset=utf-8; header=present",
                headers={"content-disposition": f'attachment; filename="{tab.value}.csv"'},
            )

        return answer

    def _lines(self, view: View, now: int, page: Page[Any]) -> Iterator[str]:
        record = LISTED[view.tab]
        yield csv_header(record)
        while True:
            yield csv_lines(record, page.rows)
            if page.next_cursor is None:
                return
            page = self._page(view.from_cursor(page.next_cursor), now)

    def _page(self, view: View, now: int) -> Page[Any]:
        if view.tab is Tab.SESSIONS:
            return self._reader.sessions(view, now=now)
        if view.tab is Tab.USERS:
            return self._reader.users(view, now=now)
        return self._reader.traces(view, now=now)


def _view(tab: Tab, request: Request, *, trace: str | None = None) -> View:
    try:
        query = request.scope["query_string"].decode()
    except UnicodeDecodeError:
        raise QueryError("the query string is not UTF-8", parameter="") from None
    return View.from_query(tab, query, trace=trace)
