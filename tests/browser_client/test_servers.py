"""A page and its own server in one trace: who owns the end user, and who cannot take it over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from fastapi import FastAPI, Request
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from playwright.sync_api import Page
from starlette.routing import Mount

import neatlogs_otel as neatlogs
from support.page import PageUnderTest, page_under_test
from support.web_pages import Receiver, eventually, stored_trace, web_site

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)


@dataclass
class Shop:
    """A site with a page, and a FastAPI server behind the same origin that sends its own spans.

    Attributes:
        origin: Of both.
        processor: Where both send.
        headers: What the server's requests brought along.
    """

    origin: str
    processor: PageUnderTest
    headers: list[dict[str, str]] = field(default_factory=list)

    def visit(self, open_tab: OpenTab, **options: Any) -> Page:
        """Open the page and make its client."""
        tab = open_tab(self.origin)
        tab.evaluate(
            "(options) => { client(options); }", {"endpoint": self.processor.processor.http_endpoint, **options}
        )
        return tab

    def trace(self, trace_id: str, spans: int) -> dict[str, Any]:
        """Return a trace once it has so many spans."""
        eventually(lambda: len(stored_trace(self.processor, trace_id)["spans"]) >= spans)
        return stored_trace(self.processor, trace_id)


@contextmanager
def shop(roots: Literal["trace", "entry"], *flags: str) -> Iterator[Shop]:
    """Run a shop whose server knows its user, `u_server`."""
    app = FastAPI()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(neatlogs.EndUserSpanProcessor(roots=roots))
    headers: list[dict[str, str]] = []

    @app.post("/chat")
    async def chat(request: Request) -> dict[str, str]:
        headers.append(dict(request.headers))
        neatlogs.set_end_user("u_server", {"known": "by the server"})
        with provider.get_tracer("shop").start_as_current_span("model"):
            return {"answer": "yes"}

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    with web_site([Mount("/api", app)]) as origin, page_under_test("--cors-origins", origin, *flags) as processor:
        exporter = OTLPSpanExporter(endpoint=f"{processor.processor.http_endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        try:
            yield Shop(origin, processor, headers)
        finally:
            provider.shutdown()


@pytest.fixture(scope="module")
def strict_shop() -> Iterator[Shop]:
    """A shop with the rule as it is: the trace's root owns the end user."""
    with shop("trace") as running:
        yield running


@pytest.fixture(scope="module")
def entry_shop() -> Iterator[Shop]:
    """A shop that trusts its server: its entry spans own the end user."""
    with shop("entry", "--roots", "entry", "--entry-services", "shop") as running:
        yield running


_CHAT = """async (way) => {
  const trace = nl.startTrace({ name: 'chat', input: 'hi', ...way.trace });
  const answer = await trace.fetch('/api/chat', { method: 'POST', headers: { 'x-mine': '1' } });
  const result = await trace.finish({ output: (await answer.json()).answer });
  return [trace.traceId, trace.traceparent, result.ok];
}"""


def test_the_servers_spans_join_the_browsers_trace(open_tab: OpenTab, strict_shop: Shop) -> None:
    """With the option, the server's spans are children of the browser's root, and the browser's root owns identity."""
    tab = strict_shop.visit(open_tab, traceparent=True, endUser="u_browser", project="web")
    trace_id, traceparent, ok = tab.evaluate(_CHAT, {})
    assert ok
    assert strict_shop.headers[-1]["traceparent"] == traceparent
    assert strict_shop.headers[-1]["x-mine"] == "1"
    trace = strict_shop.trace(trace_id, 3)
    assert trace["trace"]["end_user"] == "u_browser"
    assert trace["trace"]["metadata"] is None
    assert sorted(trace["trace"]["services"]) == ["shop", "web"]
    assert [(span["depth"], span["service"], span["owns_identity"]) for span in trace["spans"]] == [
        (0, "web", True),
        (1, "shop", False),
        (2, "shop", False),
    ]


def test_traceparent_is_off_unless_asked_for(open_tab: OpenTab, strict_shop: Shop) -> None:
    """Without the option `fetch` of a trace is the page's own, and the server starts a trace of its own."""
    tab = strict_shop.visit(open_tab, endUser="u_browser")
    trace_id, _, ok = tab.evaluate(_CHAT, {})
    assert ok
    assert "traceparent" not in strict_shop.headers[-1]
    trace = strict_shop.trace(trace_id, 1)
    assert len(trace["spans"]) == 1


def test_traceparent_goes_to_the_own_origin_alone(open_tab: OpenTab, strict_shop: Shop, sink: Receiver) -> None:
    """A call to another origin goes out as it is: no header, so no preflight that the other server would refuse."""
    tab = strict_shop.visit(open_tab, traceparent=True)
    send = """(url) => nl.startTrace({ name: 'x' }).fetch(url, { method: 'POST', body: '{"resourceSpans":[]}' })
        .then((answer) => answer.status)"""
    assert tab.evaluate(send, f"{sink.url}/v1/traces") == 200
    assert "traceparent" not in sink.received[-1].headers
    same = (
        "(url) => nl.startTrace({ name: 'x' }).fetch(new Request(url, { method: 'POST', headers: { 'x-mine': '2' } }))"
    )
    tab.evaluate(f"async (url) => {{ await ({same})(url); }}", "/api/chat")
    assert strict_shop.headers[-1]["x-mine"] == "2"
    assert "traceparent" in strict_shop.headers[-1]
    own = "nl.startTrace({ name: 'x' }).fetch('/api/chat', { method: 'POST', headers: { traceparent: 'of my own' } })"
    tab.evaluate(f"async () => {{ await {own}; }}")
    assert strict_shop.headers[-1]["traceparent"] == "of my own"


def test_a_forged_traceparent_never_wins_over_a_trusted_server(open_tab: OpenTab, entry_shop: Shop) -> None:
    """With `roots="entry"` the server says who it served, whatever end user a browser claims for the trace."""
    tab = entry_shop.visit(open_tab, traceparent=True)
    forged = {"trace": {"endUser": "u_forged", "endUserMetadata": {"plan": "forged"}}}
    trace_id, _, ok = tab.evaluate(_CHAT, forged)
    assert ok
    trace = entry_shop.trace(trace_id, 3)["trace"]
    assert (trace["end_user"], trace["metadata"]) == ("u_server", {"known": "by the server"})


def test_a_forged_root_that_comes_first_does_not_win_either(open_tab: OpenTab, entry_shop: Shop) -> None:
    """A root that claims somebody, sent before the server's spans and with an earlier start, changes nothing."""
    tab = entry_shop.visit(open_tab, endUser="u_forged")
    early = """async () => {
      const result = await nl.trace({ name: 'early', start: Date.now() - 60000, duration_ms: 1 });
      const traceparent = `00-${result.trace_id}-00f067aa0ba902b7-01`;
      await fetch('/api/chat', { method: 'POST', headers: { traceparent } });
      return result.trace_id;
    }"""
    trace_id = tab.evaluate(early)
    trace = entry_shop.trace(trace_id, 3)["trace"]
    assert (trace["end_user"], trace["metadata"]) == ("u_server", {"known": "by the server"})
