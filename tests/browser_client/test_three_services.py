"""One trace through a page, a FastAPI server in Python and a service in Node: who owns the end user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.request import Request, urlopen

import pytest
from fastapi import FastAPI
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from playwright.sync_api import Page
from starlette.routing import Mount

import neatlogs_otel as neatlogs
from support.page import PageUnderTest, page_under_test
from support.typescript_package import NodeMissingError, built_package, node_service
from support.web_pages import eventually, stored_trace, web_site

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _node() -> None:
    """Node and the built package."""
    try:
        built_package()
    except NodeMissingError as error:
        pytest.skip(str(error))


@contextmanager
def chain(roots: Literal["trace", "entry"], *flags: str) -> Iterator[tuple[str, PageUnderTest]]:
    """Run the three: yields the page's origin, and where all of them send."""
    app = FastAPI()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(neatlogs.EndUserSpanProcessor(roots=roots))
    node: list[str] = []

    @app.post("/chat")
    def chat() -> dict[str, str]:
        neatlogs.set_end_user("u_server", {"known": "by the server"})
        headers: dict[str, str] = {}
        propagate.inject(headers)
        request = Request(f"{node[0]}/?user=u_node", headers=headers)  # noqa: S310  # a service of the test
        with urlopen(request, timeout=30) as response:  # noqa: S310  # the same
            return {"answer": response.read().decode()}

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    with web_site([Mount("/api", app)]) as origin, page_under_test("--cors-origins", origin, *flags) as page:
        exporter = OTLPSpanExporter(endpoint=f"{page.processor.http_endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        try:
            with node_service(page.processor.endpoint) as url:
                node.append(url)
                yield origin, page
        finally:
            provider.shutdown()


_CHAT = """async () => {
  const trace = nl.startTrace({ name: 'chat' });
  const answer = await trace.fetch('/api/chat', { method: 'POST' });
  await trace.finish({ output: (await answer.json()).answer });
  return trace.traceId;
}"""


def visited(open_tab: OpenTab, roots: Literal["trace", "entry"], *flags: str) -> dict[str, Any]:
    """The trace of one visit, as the page's API shows it, once all of its spans are there."""
    with chain(roots, *flags) as (origin, page):
        tab = open_tab(origin)
        options = {
            "endpoint": page.processor.http_endpoint,
            "traceparent": True,
            "endUser": "u_browser",
            "project": "web",
        }
        tab.evaluate("(options) => { client(options); }", options)
        trace_id = tab.evaluate(_CHAT)
        # The page's root, FastAPI's span, and two of Node: its instrumentation's and that of trace().
        eventually(lambda: len(stored_trace(page, trace_id)["spans"]) >= 4)
        return stored_trace(page, trace_id)


def test_the_browser_owns_the_trace_that_it_began(open_tab: OpenTab) -> None:
    """One trace through browser, Python and Node has one end user: the browser's, whatever the servers claim."""
    trace = visited(open_tab, "trace")
    assert [(span["depth"], span["service"], span["owns_identity"]) for span in trace["spans"]] == [
        (0, "web", True),
        (1, "shop", False),
        (2, "node-service", False),
        (3, "node-service", False),
    ]
    assert trace["trace"]["end_user"] == "u_browser"


def test_a_trusted_server_owns_it_in_entry_mode(open_tab: OpenTab) -> None:
    """With `roots="entry"` the listed server's own end user stands, not the browser's and not the Node service's."""
    trace = visited(open_tab, "entry", "--roots", "entry", "--entry-services", "shop")["trace"]
    assert (trace["end_user"], trace["metadata"]) == ("u_server", {"known": "by the server"})
