"""A page that uses OpenTelemetry-JS already, and adds `EndUserSpanProcessor` alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page
from starlette.routing import Route

from support.page import page_under_test
from support.web_pages import bundled, eventually, script, stored_trace, web_site

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

_SOURCE = """
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { SimpleSpanProcessor, WebTracerProvider } from "@opentelemetry/sdk-trace-web";
import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { EndUserSpanProcessor } from "neatlogs";

window.run = async (endpoint) => {
  const endUser = new EndUserSpanProcessor({ getEndUser: () => "u_otel" });
  const exporter = new OTLPTraceExporter({ url: `${endpoint}/v1/traces` });
  const provider = new WebTracerProvider({ spanProcessors: [endUser, new SimpleSpanProcessor(exporter)] });
  const tracer = provider.getTracer("page");
  const root = tracer.startSpan("click", {}, ROOT_CONTEXT);
  const child = tracer.startSpan("fetch", {}, trace.setSpan(ROOT_CONTEXT, root));
  child.setAttribute("neatlogs.end_user.id", "u_child");
  child.end();
  root.end();
  await provider.shutdown();
  return root.spanContext().traceId;
};
"""


def test_its_root_spans_carry_the_end_user(open_tab: OpenTab) -> None:
    """Root spans of any OpenTelemetry instrumentation in the page arrive under the page's end user; children do not."""
    with (
        web_site([Route("/otel.js", script(bundled(_SOURCE)))]) as origin,
        page_under_test("--cors-origins", origin) as processor,
    ):
        tab = open_tab(origin)
        tab.evaluate("import('/otel.js').then(() => undefined)")
        trace_id = tab.evaluate("(endpoint) => run(endpoint)", processor.processor.http_endpoint)
        eventually(lambda: len(stored_trace(processor, trace_id)["spans"]) == 2)
        trace = stored_trace(processor, trace_id)
        assert trace["trace"]["end_user"] == "u_otel"
        assert [(override["span_name"], override["place"]) for override in trace["overrides"]] == [("fetch", "child")]
