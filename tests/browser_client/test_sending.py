"""How a page sends: together, again, and when it ends. Against a receiver that answers what a test wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from support.page import PageUnderTest
from support.processor_process import processor_process
from support.web_pages import KEY, Receiver, stored_trace

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

# What a page is told after its end can be seen by its successor only if it writes it down.
_REMEMBER = """(endpoint) => {
  const onError = (error) => {
    const told = JSON.parse(localStorage.told ?? '[]');
    localStorage.told = JSON.stringify([...told, [error.reason, error.message, error.spansLost]]);
  };
  window.nl = new Neatlogs({ endpoint, apiKey: 'nlw_key_of_it', endUser: 'u_1', onError });
}"""
_KEEPALIVE_BUDGET = 64 * 1024


def remembering_client(tab: Page, sink: Receiver) -> None:
    """Make a client whose errors outlive the page."""
    tab.evaluate(_REMEMBER, sink.url)


def leave(tab: Page) -> list[Any]:
    """Go to another page, and return what was remembered."""
    tab.goto(re.sub(r"(://[^/]+).*", r"\1/elsewhere", tab.url))
    return tab.evaluate("JSON.parse(localStorage.told ?? '[]')")


def names(sink: Receiver) -> list[str]:
    """Return the names of the spans that came."""
    return [span["name"] for span in sink.spans()]


def test_ids_and_headers_are_what_the_standards_ask_for(open_tab: OpenTab, sink: Receiver) -> None:
    """Ids are those of W3C Trace Context, the key is a bearer token, and neither cookies nor addresses go along."""
    tab = open_tab()
    tab.evaluate("document.cookie = 'secret=1'")
    remembering_client(tab, sink)
    result = tab.evaluate("nl.trace({ name: 'a', children: [{ name: 'b' }] })")
    (request,) = sink.received
    root, child = request.spans
    assert result == {"ok": True, "trace_id": root["traceId"], "spans": 2}
    assert all(re.fullmatch(r"[0-9a-f]{32}", span["traceId"]) for span in request.spans)
    assert all(re.fullmatch(r"[0-9a-f]{16}", span["spanId"]) for span in request.spans)
    assert "parentSpanId" not in root
    assert child["parentSpanId"] == root["spanId"]
    assert root["endTimeUnixNano"].isdigit()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer nlw_key_of_it"
    assert "cookie" not in request.headers
    assert "referer" not in request.headers


def test_calls_of_one_moment_share_a_request(open_tab: OpenTab, sink: Receiver) -> None:
    """Traces that end while a request is under way go together in the next one, and each promise gets its answer."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.gate.clear()
    tab.evaluate("window.all = [nl.trackAI({ name: 'first' })]; undefined")
    sink.wait_for(lambda sink: len(sink.received) == 1)
    tab.evaluate("for (let i = 0; i < 40; i++) all.push(nl.trackAI({ name: 'later' })); undefined")
    sink.gate.set()
    results = tab.evaluate("Promise.all(all)")
    assert [result["ok"] for result in results] == [True] * 41
    assert [len(request.spans) for request in sink.received] == [1, 40]
    assert len({span["traceId"] for span in sink.spans()}) == 41


def test_it_tries_again_when_the_processor_is_busy(open_tab: OpenTab, sink: Receiver) -> None:
    """429, 502, 503 and 504 are tried again, after Retry-After where there is one, as the same spans."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.answers = [(503, {"retry-after": "1"}), (429, {}), (504, {"retry-after": "nonsense"})]
    result = tab.evaluate("nl.trackAI({ name: 'again' })")
    assert result["ok"]
    assert len(sink.received) == 4
    assert len({span["spanId"] for span in sink.spans()}) == 1
    assert tab.evaluate("localStorage.told") is None


def test_it_gives_up_in_the_end_and_counts_what_is_lost(open_tab: OpenTab, sink: Receiver) -> None:
    """After five tries a trace is given up: the promise says so, and `onError` says how many spans are lost."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.answers = [(503, {})] * 5
    result = tab.evaluate("nl.trace({ name: 'a', children: [{ name: 'b' }] })")
    assert (result["ok"], result["spans"]) == (False, 0)
    assert len(sink.received) == 5
    assert [(reason, lost) for reason, _, lost in leave(tab)] == [("lost", 2)]


def test_one_refused_trace_does_not_cost_the_others(open_tab: OpenTab, sink: Receiver) -> None:
    """A request that is refused for its content is taken apart, and only the trace that is to blame is lost."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.answers = [(400, {}), (200, {}), (400, {}), (200, {})]
    results = tab.evaluate("Promise.all(['a', 'b', 'c'].map((name) => nl.trackAI({ name })))")
    assert [result["ok"] for result in results] == [True, False, True]
    assert [len(request.spans) for request in sink.received] == [3, 1, 1, 1]
    assert [(reason, lost) for reason, _, lost in leave(tab)] == [("refused", 1)]


def test_a_processor_that_is_down_is_told_and_tried_again(open_tab: OpenTab, origin: str) -> None:
    """While nothing answers, the page goes on and hears of it once; when the processor starts, the trace arrives."""
    tab = open_tab()
    thrown: list[str] = []
    tab.on("pageerror", lambda error: thrown.append(str(error)))
    with processor_process("--cors-origins", origin, "--console") as before:
        address = before.http_endpoint.removeprefix("http://")
    tab.evaluate("(endpoint) => { client({ endpoint }); }", f"http://{address}")
    tab.evaluate("window.result = nl.trackAI({ name: 'patient' }); undefined")
    tab.wait_for_function("told.length > 0")
    with processor_process("--cors-origins", origin, "--console", "--http-listen", address) as processor:
        assert tab.evaluate("result.then((result) => result.ok)")
        assert "patient" in processor.out
    assert [reason for reason, *_ in tab.evaluate("told")] == ["unreachable"]
    assert thrown == []


def test_a_page_that_ends_while_it_sends_loses_nothing_that_fits(open_tab: OpenTab, sink: Receiver) -> None:
    """What is under way and what waits when the page ends arrives, as long as it fits into what a browser allows."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.gate.clear()
    tab.evaluate("nl.trackAI({ name: 'under way' }); undefined")
    sink.wait_for(lambda sink: len(sink.received) == 1)
    tab.evaluate("for (let i = 0; i < 20; i++) nl.trackAI({ name: 'waits', input: 'x'.repeat(1000) }); undefined")
    told = leave(tab)
    sink.gate.set()
    sink.wait_for(lambda sink: len(sink.spans()) >= 21)
    assert sorted(names(sink)) == ["under way"] + ["waits"] * 20
    assert told == []


def test_the_last_calls_of_a_page_arrive(open_tab: OpenTab, sink: Receiver) -> None:
    """A trace that is sent in the handler of the page's own end arrives too."""
    tab = open_tab()
    remembering_client(tab, sink)
    tab.evaluate("addEventListener('pagehide', () => { nl.trackAI({ name: 'goodbye' }); }); undefined")
    assert leave(tab) == []
    sink.wait_for(lambda sink: names(sink) == ["goodbye"])


def test_what_does_not_fit_at_the_end_is_counted_and_told(open_tab: OpenTab, sink: Receiver) -> None:
    """At the end of a page small traces go whole, large ones as far as they fit, root first; the rest is reported."""
    tab = open_tab()
    remembering_client(tab, sink)
    sink.gate.clear()
    tab.evaluate("nl.trackAI({ name: 'large', input: 'x'.repeat(200000) }); undefined")
    sink.wait_for(lambda sink: len(sink.received) == 1)
    tab.evaluate(
        """() => {
          const children = Array.from({ length: 10 }, () => ({ name: 'child', input: 'x'.repeat(10000) }));
          nl.trace({ name: 'wide', children });
          nl.trackAI({ name: 'small' });
          nl.trackAI({ name: 'small' });
        }"""
    )
    told = leave(tab)
    sink.gate.set()
    sink.wait_for(lambda sink: names(sink).count("small") == 2 and "wide" in names(sink))
    later = [request for request in sink.received if request.spans[0]["name"] != "large"]
    assert sum(request.size for request in later) <= _KEEPALIVE_BUDGET
    sent = names(sink).count("child")
    assert 1 <= sent < 10
    # The large one was under way, and the page cannot know whether it arrived.
    ((reason, message, lost),) = told
    assert (reason, lost) == ("lost", 10 - sent + 1)
    assert f"{lost} spans of 2 traces did not fit" in message


def test_a_trace_that_is_open_when_the_page_ends_is_sent(open_tab: OpenTab, sink: Receiver) -> None:
    """A started trace that nobody finished is sent with what it has, and says that the page ended."""
    tab = open_tab()
    remembering_client(tab, sink)
    tab.evaluate("nl.startTrace({ name: 'streaming', input: 'question' }); undefined")
    assert leave(tab) == []
    sink.wait_for(lambda sink: names(sink) == ["streaming"])
    (span,) = sink.spans()
    (event,) = span["events"]
    assert {"key": "message", "value": {"stringValue": "the page ended before finish()"}} in event["attributes"]
    assert {"key": "neatlogs.end_user.id", "value": {"stringValue": "u_1"}} in span["attributes"]


def test_a_request_that_the_page_took_back_counts_once(open_tab: OpenTab, site: PageUnderTest) -> None:
    """A trace that is sent again because the page ended has the same ids, so that the store has it once."""
    tab = open_tab()
    tab.evaluate("(options) => client(options)", {"endpoint": site.processor.http_endpoint, "apiKey": KEY})
    # Too large to outlive the page by itself, and without its question small enough.
    tab.evaluate(
        """() => { const started = nl.startTrace({ name: 'twice', endUser: 'u_twice' });
          document.cookie = 'trace=' + started.traceId;
          started.finish({ children: [{ name: 'big', input: 'x'.repeat(100000) }] }); }"""
    )
    trace_id = tab.evaluate("document.cookie.match(/trace=([0-9a-f]+)/)[1]")
    tab.goto(tab.url + "elsewhere")
    trace = stored_trace(site, trace_id)["trace"]
    assert (trace["end_user"], trace["roots"]) == ("u_twice", 1)
    assert trace["spans"] in (1, 2)
