"""The pages of one thing: a trace, a session, an end user."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.page import content, editing, identity
from neatlogs_processor.page.rendering import Renderer
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.results import SpanDetail, TraceDetail
from neatlogs_processor.query.view import Tab, View

MAX_SPANS = 1000
"""How many spans of a trace are shown, unless all are asked for."""
MAX_TURNS = 50
"""Of how many turns of a session the content is shown."""


class Details:
    """Answers for one trace, session or end user. Its methods block, as the reader does.

    Args:
        reader: The store.
        renderer: The templates.
    """

    def __init__(self, reader: TraceReader, renderer: Renderer) -> None:
        self._reader = reader
        self._renderer = renderer

    def trace(self, request: Request) -> Response:
        """Answer with a trace; with `span` that span is selected."""
        view, detail = self._trace(request)
        now = self._renderer.clock()
        selected = _selected(detail, request.query_params.get("span", ""))
        everything = request.query_params.get("spans") == "all"
        spans = detail.spans if everything else detail.spans[:MAX_SPANS]
        return self._renderer.page(
            "trace.html",
            view=view,
            now=now,
            chips=editing.chips(view),
            detail=detail,
            trace=detail.trace,
            spans=spans,
            hidden=len(detail.spans) - len(spans),
            findings=identity.findings(detail),
            neighbours=self._reader.neighbours(view, detail.trace.trace_id, now=now),
            selected=selected,
        )

    def span(self, request: Request) -> Response:
        """Answer with the panel of one span, as a piece of the page."""
        view, detail = self._trace(request)
        span_id = request.path_params["span_id"]
        selected = next((span for span in detail.spans if span.span_id == span_id), None)
        if selected is None:
            raise HTTPException(404, "There is no such span in this trace.")
        return HTMLResponse(self._renderer.text("_span.html", view=view, detail=detail, selected=selected))

    def session(self, request: Request) -> Response:
        """Answer with a session and its turns in order."""
        name = request.query_params.get("id", "")
        view = View.from_query(Tab.TRACES, request.url.query, ignore=("id",))
        detail = self._reader.session(name)
        if detail is None:
            raise HTTPException(404, "There is no such session here. It may have passed its retention.")
        turns = []
        for place, trace in enumerate(detail.traces):
            whole = self._content(trace.trace_id) if place < MAX_TURNS else None
            turns.append((trace, *(_said(whole) if whole else ("", ""))))
        return self._renderer.page(
            "session.html", active=Tab.SESSIONS, view=view, detail=detail, session=detail.session, turns=turns
        )

    def _content(self, trace_id: str) -> TraceDetail | None:
        """Return a turn whole, or nothing where it cannot be read: the others can."""
        try:
            return self._reader.trace(trace_id)
        except StoreUnavailableError:
            return None

    def user(self, request: Request) -> Response:
        """Answer with an end user: who they are, and what they did within the period."""
        name = request.query_params.get("id", "")
        view = View.from_query(Tab.USERS, request.url.query, ignore=("id",))
        now = self._renderer.clock()
        detail = self._reader.user(name, view, now=now)
        if detail is None:
            raise HTTPException(404, "There is nothing of such an end user here. It may have passed its retention.")
        return self._renderer.page("user.html", view=view, now=now, detail=detail, user=detail.user)

    def _trace(self, request: Request) -> tuple[View, TraceDetail]:
        trace_id = request.path_params["trace_id"]
        view = View.from_query(Tab.TRACES, request.url.query, trace=trace_id, ignore=("span", "spans"))
        detail = self._reader.trace(view.trace or "")
        if detail is None:
            raise HTTPException(404, "There is no such trace here. It may not have arrived, or passed its retention.")
        return view, detail


def _selected(detail: TraceDetail, span_id: str) -> SpanDetail | None:
    """Return the span that is asked for, else the one that speaks for the trace, else the first."""
    wanted = (span for span in detail.spans if span.span_id == span_id)
    return next(wanted, None) or identity.speaker(detail) or next(iter(detail.spans), None)


def _said(detail: TraceDetail) -> tuple[str, str]:
    """Return what went into a trace and what came out, each in a line: its root's, else its first and last model's."""
    head = identity.speaker(detail)
    pieces = [content.content(head)] if head else []
    pieces += [content.content(span) for span in sorted(detail.spans, key=lambda one: one.start) if span.kind == "llm"]
    said = next((content.preview(piece.input) for piece in pieces if piece.input), "")
    answers = [piece.output for piece in pieces[:1] if piece.output] or [
        piece.output for piece in pieces[::-1] if piece.output
    ]
    return said, content.preview(answers[0]) if answers else ""
