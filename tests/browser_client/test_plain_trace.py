"""What `trackAI` and `trace` make of a trace is what the processor makes of the same one at `POST /v1/trace`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page

from support.page import PageUnderTest, page_under_test
from support.processor_process import WAIT_SECONDS
from support.web_pages import stored_trace

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

_START = 1_767_323_045_000
TRACES: list[dict[str, Any]] = [
    {"name": "smallest"},
    {"name": "chat", "model": "gpt-4o", "input": "hi", "output": {"role": "assistant", "content": "hello"}},
    {"name": "tokens", "tokens": {"prompt": 0, "completion": 4, "total": 4}, "metadata": {"z": 1, "a": [None, True]}},
    {"name": "who", "endUserId": "u_1", "endUserMetadata": {"plan": "pro"}, "sessionId": "s_1", "tags": ["a", "b"]},
    {"name": "older", "endUser": 42, "sessionId": 7, "tags": "a,b"},
    {"name": "by attributes", "endUserId": "u_1", "attributes": {"neatlogs.end_user.id": "u_2", "my": [1, 2.5, "x"]}},
    {
        "name": "rag",
        "start": "2026-01-02T03:04:05Z",
        "children": [
            {
                "name": "retrieve",
                "query": {"text": "q"},
                "documents": ["plain", {"pageContent": "p", "source": "a.md", "id": 3, "score": 0.5}, {"url": "u"}],
                "duration_ms": 12.5,
            },
            {"name": "answer", "model": "m", "status": "failed", "error": {"code": 429}, "duration_ms": 100},
            {"name": "check", "passed": False, "score": 1, "kind": "Guardrail", "status": "maybe"},
        ],
    },
    {
        "name": "logs",
        "start": _START,
        "end": _START + 50,
        "logs": [{"message": "m", "level": "warn", "timestamp": _START + 5}, {"message": {"n": 1}}],
    },
    {"name": "tool", "tool_name": "search", "input": ["a", 1], "output": "", "error": "no", "status": "ok"},
    {"name": "🙂 \\ud83d", "input": 'é\n"\\', "attributes": {"o": {"b": 1, "a": {}}, "t": True, "d": 0.1}},
]


@pytest.fixture(scope="module")
def processor(origin: str) -> Iterator[PageUnderTest]:
    """A processor that asks for no key."""
    with page_under_test("--cors-origins", origin) as running:
        yield running


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace["name"])
def test_both_ways_lead_to_the_same_spans(open_tab: OpenTab, processor: PageUnderTest, trace: dict[str, Any]) -> None:
    """Names, nesting, kinds, attributes, status, events and durations are the same, whoever translates."""
    tab = open_tab()
    tab.evaluate("(endpoint) => { client({ endpoint, project: 'shop' }); }", processor.processor.http_endpoint)
    sent = tab.evaluate("(trace) => nl.trace(trace)", trace)
    assert sent["ok"], tab.evaluate("told")
    request = Request(  # noqa: S310  # our own processor
        f"{processor.processor.http_endpoint}/v1/trace",
        json.dumps({**trace, "project": "shop"}).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(request, timeout=WAIT_SECONDS) as answer:  # noqa: S310  # as above
        posted = json.loads(answer.read())
    assert sent["spans"] == posted["spans"]
    assert told(stored_trace(processor, sent["trace_id"])) == told(stored_trace(processor, posted["trace_id"]))


def told(stored: dict[str, Any]) -> Any:
    """Return what a trace says, without what differs by nature: ids, and the times of those that give none."""
    summary = ("name", "end_user", "metadata", "session", "tags", "tokens", "errors", "status", "service")
    span = ("name", "depth", "kind", "otel_kind", "duration_ns", "status")
    return (
        {key: stored["trace"][key] for key in summary},
        [
            (
                {key: one[key] for key in span},
                values({**one["attributes"], "its message": one["status_message"]}),
                [(event["name"], values(event["attributes"])) for event in one["events"]],
                one["resource"]["neatlogs.project"],
            )
            for one in stored["spans"]
        ],
    )


def values(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with their JSON read: one keeps how it was written, the other sorts members.

    The source is left out: a plain trace comes from elsewhere, and nobody knows which call named its end user.
    """

    def value(said: Any) -> Any:
        try:
            return json.loads(said) if isinstance(said, str) and said[:1] in "{[" else said
        except ValueError:
            return said

    return {key: value(said) for key, said in attributes.items() if key != "neatlogs.end_user.source"}
