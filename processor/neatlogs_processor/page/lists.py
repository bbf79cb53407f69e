"""The lists (traces, sessions, end users), coverage, and what the filter bar asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.page import completion, editing
from neatlogs_processor.page.rendering import Renderer
from neatlogs_processor.query import text
from neatlogs_processor.query.errors import FilterRefusedError, QueryError
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.view import ALL_TIME, Tab, View

BUCKETS = 60
SPARK_BUCKETS = 24
MAX_LINKED_CHARS = 4_000_000
"""How many characters the query strings of one link of each row may have; the page has some eight times as many."""


_Where = Callable[[], Sequence[tuple[str, str]]]


def _listing(tab: Tab) -> Callable[[Callable[[Lists, View], Response]], Callable[[Lists, Request], Response]]:
    """Make of what answers with the list of a view what answers a request for it."""

    def decorate(answer: Callable[[Lists, View], Response]) -> Callable[[Lists, Request], Response]:
        @functools.wraps(answer)
        def answered(self: Lists, request: Request) -> Response:
            try:
                view = _of_bearable_size(View.from_query(tab, request.url.query))
            except QueryError as error:
                return self._question(request, tab, error)
            try:
                return answer(self, view)
            except FilterRefusedError as error:
                return self._question(request, tab, text.located(error, request.query_params.getlist("filter")))

        return answered

    return decorate


class Lists:
    """Answers for the lists. Its methods block, as the reader does; Starlette runs them in threads.

    Args:
        reader: The store.
        renderer: The templates.
        where: Returns where the processor receives, for a store that is still empty.
    """

    def __init__(self, reader: TraceReader, renderer: Renderer, where: _Where) -> None:
        self._reader = reader
        self._renderer = renderer
        self._where = where

    @_listing(Tab.TRACES)
    def traces(self, view: View) -> Response:
        """Answer with the list of traces."""
        now = self._renderer.clock()
        page = self._reader.traces(view, now=now)
        buckets = self._reader.histogram(view, now=now, buckets=BUCKETS) if view.cursor is None else ()
        return self._list("traces.html", view, now, page=page, buckets=buckets, summary=self._summary(view, now))

    @_listing(Tab.SESSIONS)
    def sessions(self, view: View) -> Response:
        """Answer with the list of sessions."""
        now = self._renderer.clock()
        return self._list("sessions.html", view, now, page=self._reader.sessions(view, now=now))

    @_listing(Tab.USERS)
    def users(self, view: View) -> Response:
        """Answer with the list of end users."""
        now = self._renderer.clock()
        page = self._reader.users(view, now=now)
        ids = [row.end_user for row in page.rows]
        sparks = self._reader.sparklines(ids, view, now=now, buckets=SPARK_BUCKETS) if ids else {}
        return self._list("users.html", view, now, page=page, sparks=sparks)

    @_listing(Tab.COVERAGE)
    def coverage(self, view: View) -> Response:
        """Answer with who sets the end user, and who does not."""
        now = self._renderer.clock()
        coverage = self._reader.coverage(view, now=now)
        values: dict[str, Any] = {"coverage": coverage, "exclusions": (), "unused": False, "where": self._where()}
        if not coverage.total.traces:
            values.update(self._why_empty(view, now))
        return self._renderer.page("coverage.html", view=view, now=now, chips=editing.chips(view), **values)

    def live(self, request: Request) -> Response:
        """Answer with a line that says how many newer traces there are, or with an empty one."""
        than = request.query_params.get("than", "")
        view = View.from_query(Tab.TRACES, request.url.query, ignore=("than",))
        now = self._renderer.clock()
        if than:
            count = self._reader.newer(view.from_cursor(None), now=now, than=than)
        else:
            count = len(self._reader.traces(dataclasses.replace(view, limit=1), now=now).rows)
        return HTMLResponse(self._renderer.text("_live.html", view=view, than=than, count=count))

    def edit(self, request: Request) -> Response:
        """Put a filter into a view, and go there. It changes nothing but the address."""
        form = dict(request.query_params)
        tab = _tab(form.get("tab", ""))
        view = View.from_query(tab, form.get("state", ""))
        typed = editing.typed_filter(form)
        place = form.get("replace", "")
        index = int(place) if place.isascii() and place.isdigit() and len(place) < 4 else None
        try:
            (filter_,) = text.parse(typed)
            target = self._renderer.links.view(editing.replacing(view, index, filter_))
        except (QueryError, ValueError):
            # The list says what is wrong with it, beside the text to correct.
            kept = view.filters if index is None else view.filters[:index] + view.filters[index + 1 :]
            target = self._renderer.links.with_text(view.with_filters(kept), typed)
        return RedirectResponse(target, status_code=303)

    def complete(self, request: Request) -> Response:
        """Answer with what could be typed next, as JSON: `start` and `items` of `text`, `detail`, `traces`."""
        typed = request.query_params.get("text", "")[:10_000]
        try:
            view = View.from_query(Tab.TRACES, request.query_params.get("state", ""))
        except QueryError:
            view = View()
        # What is looked for may be hidden by the filter that is being typed.
        found = completion.complete(self._reader, view.with_filters(()), typed, now=self._renderer.clock())
        return JSONResponse(dataclasses.asdict(found))

    def _summary(self, view: View, now: int) -> object:
        return self._reader.summary(view, now=now) if view.cursor is None else None

    def _list(self, template: str, view: View, now: int, *, page: object, **values: Any) -> Response:
        empty: dict[str, Any] = {"exclusions": (), "unused": False}
        if not getattr(page, "rows", ()) and view.cursor is None:
            empty = self._why_empty(view, now)
        values = {**values, **empty, "where": self._where(), "page": page, "chips": editing.chips(view)}
        return self._renderer.page(template, view=view, now=now, **values)

    def _why_empty(self, view: View, now: int) -> dict[str, Any]:
        if not view.filters and not self._anything(now):
            return {"exclusions": (), "unused": True}
        shown = view if view.tab is not Tab.COVERAGE else view.on(Tab.TRACES)
        try:
            exclusions = self._reader.exclusions(shown, now=now)
        except StoreUnavailableError:
            # It asks once for each filter. That nothing fits is known without it.
            exclusions = ()
        return {"exclusions": exclusions, "unused": False}

    def _anything(self, now: int) -> bool:
        return bool(self._reader.traces(View(period=ALL_TIME, limit=1), now=now).rows)

    def _question(self, request: Request, tab: Tab, error: QueryError) -> Response:
        """Answer with what is wrong with the address of a list, beside the text to correct."""
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "filter"]
        try:
            view = View.from_query(tab, urlencode(kept))
        except QueryError:
            view = View(tab)
        texts = request.query_params.getlist("filter")
        return self._renderer.page(
            "question.html",
            status=400,
            view=view,
            chips=(),
            question=editing.question(error, texts),
            typed=" and ".join(one for one in texts if one.strip()),
        )


def _of_bearable_size(view: View) -> View:
    """Return the view unless its page would be too large: every link on it says the whole question again."""
    length = len(view.query)
    if view.limit * length > MAX_LINKED_CHARS:
        most = MAX_LINKED_CHARS // length
        raise QueryError(f"with filters as long as these a page lists at most {most} rows", parameter="limit")
    return view


def _tab(name: str) -> Tab:
    try:
        return Tab(name)
    except ValueError:
        return Tab.TRACES
