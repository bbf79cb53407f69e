"""What a front-end developer writes, in a real page of another origin, against a running processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from support.page import PageUnderTest, page_under_test
from support.web_pages import KEY, ask, browser_keys, eventually, stored_trace, web_site

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)


def client(tab: Page, site: PageUnderTest, **options: Any) -> None:
    """Make the page's client."""
    options = {"endpoint": site.processor.http_endpoint, "apiKey": KEY, **options}
    tab.evaluate("(options) => { client(options); }", options)


def say(tab: Page, call: str) -> dict[str, Any]:
    """Run a call of the client and return what came of it."""
    return tab.evaluate(f"async () => await {call}")


def told(tab: Page) -> list[tuple[str, str, int]]:
    """Return what reached `onError`: reason, message, spans lost."""
    return [tuple(one) for one in tab.evaluate("told")]


def owner(site: PageUnderTest, result: dict[str, Any]) -> tuple[str | None, Any]:
    """Return the end user of a trace and their metadata."""
    assert result["ok"], result
    trace = stored_trace(site, result["trace_id"])["trace"]
    return trace["end_user"], trace["metadata"]


def test_a_call_wins_over_the_clients_default_as_one_unit(open_tab: OpenTab, site: PageUnderTest) -> None:
    """The end user of a call wins over the client's default, and comes without the default's metadata."""
    tab = open_tab()
    client(tab, site, project="my-app", endUser="u_812", endUserMetadata={"plan": "pro"})
    call = "nl.trackAI({ name: 'chat', model: 'gpt-4o', input: 'hi', output: 'hello' %s })"
    assert owner(site, say(tab, call % ", endUser: 'u_999'")) == ("u_999", None)
    default = say(tab, call % "")
    assert owner(site, default) == ("u_812", {"plan": "pro"})
    (span,) = stored_trace(site, default["trace_id"])["spans"]
    assert span["resource"]["neatlogs.project"] == "my-app"
    assert span["kind"] == "llm"
    assert span["attributes"]["neatlogs.end_user.source"] == "init"
    assert told(tab) == []


def test_the_traces_page_shows_it_under_the_end_user(open_tab: OpenTab, site: PageUnderTest) -> None:
    """A person who looks at the traces page finds the browser's trace under its end user."""
    tab = open_tab()
    client(tab, site)
    result = say(tab, "nl.trackAI({ name: 'seen', endUser: 'u_seen', endUserMetadata: { plan: 'team' } })")
    stored_trace(site, result["trace_id"])
    tab.goto(f"{site.url}/traces?filter=end_user+is+u_seen")
    assert "u_seen" in tab.inner_text("body")
    assert "seen" in {row["name"] for row in ask(site, "traces?filter=end_user+is+u_seen")["rows"]}
    assert "u_seen" in {row["end_user"] for row in ask(site, "users")["rows"]}


def test_only_the_root_carries_identity(open_tab: OpenTab, site: PageUnderTest) -> None:
    """A child that names an end user changes nothing, sends nothing of it, and the developer is told once."""
    tab = open_tab()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    client(tab, site, endUser="u_1")
    trace = """nl.trace({ name: 'support', endUser: 'u_root', children: [
        { name: 'retrieve', query: 'q', documents: ['d'], endUser: 'u_child' },
        { name: 'answer', model: 'm', attributes: { 'neatlogs.end_user.id': 'u_other' }, children: [
            { name: 'tool', tool_name: 't', endUserMetadata: { plan: 'x' } } ] } ] })"""
    result = say(tab, trace)
    assert result["spans"] == 4
    assert owner(site, result) == ("u_root", None)
    found = stored_trace(site, result["trace_id"])
    assert found["overrides"] == []
    assert [(span["name"], span["depth"], span["kind"]) for span in found["spans"]] == [
        ("support", 0, "workflow"),
        ("retrieve", 1, "retriever"),
        ("answer", 1, "llm"),
        ("tool", 2, "tool"),
    ]
    named = [key for span in found["spans"][1:] for key in span["attributes"] if "end_user" in key]
    assert named == []
    # Playwright hears the console while it is asked something.
    eventually(lambda: tab.evaluate("1") == 1 and sum("the root owns the end user" in one for one in said) == 3)
    assert not any("u_child" in one or "u_other" in one for one in said)


def test_login_and_logout(open_tab: OpenTab, site: PageUnderTest) -> None:
    """Each trace belongs to whoever was logged in when it began; after logout there is nobody, whoever was before."""
    tab = open_tab()
    client(tab, site, sessionId="s-1", endUser="u_initial")
    track = "nl.trackAI({ name: 'chat' })"
    assert owner(site, say(tab, track)) == ("u_initial", None)
    tab.evaluate("nl.setEndUser('u_in', { plan: 'pro' }); window.open_trace = nl.startTrace({ name: 'long' })")
    assert owner(site, say(tab, track)) == ("u_in", {"plan": "pro"})
    tab.evaluate("nl.reset()")
    nobody = say(tab, track)
    assert owner(site, nobody) == (None, None)
    assert stored_trace(site, nobody["trace_id"])["trace"]["session"] is None
    tab.evaluate("nl.setEndUser('u_next')")
    assert owner(site, say(tab, track)) == ("u_next", None)
    assert owner(site, say(tab, "open_trace.finish({ output: 'done' })")) == ("u_in", {"plan": "pro"})


def test_two_tabs_serve_two_people(open_tab: OpenTab, site: PageUnderTest) -> None:
    """Two tabs of one browser share nothing: each sends its own end user, and logout in one leaves the other."""
    first, second = open_tab(), open_tab()
    client(first, site)
    client(second, site)
    first.evaluate("nl.setEndUser('u_first')")
    second.evaluate("nl.setEndUser('u_second')")
    assert owner(site, say(first, "nl.trackAI({ name: 'chat' })")) == ("u_first", None)
    first.evaluate("nl.reset()")
    assert owner(site, say(second, "nl.trackAI({ name: 'chat' })")) == ("u_second", None)
    assert owner(site, say(first, "nl.trackAI({ name: 'chat' })")) == (None, None)


def test_identity_is_kept_in_memory_only(open_tab: OpenTab, site: PageUnderTest) -> None:
    """Nothing is written to storage or cookies, and a page that is loaded anew has nobody."""
    tab = open_tab()
    client(tab, site)
    tab.evaluate("nl.setEndUser('u_memory', { plan: 'pro' })")
    assert owner(site, say(tab, "nl.trackAI({ name: 'chat', sessionId: 's' })")) == ("u_memory", {"plan": "pro"})
    kept = """async () => [localStorage.length, sessionStorage.length, document.cookie,
        (await indexedDB.databases()).length, (await caches.keys()).length, window.name, history.state]"""
    assert tab.evaluate(kept) == [0, 0, "", 0, 0, "", None]
    tab.reload()
    tab.wait_for_function("document.title === 'ready'")
    client(tab, site)
    assert owner(site, say(tab, "nl.trackAI({ name: 'chat' })")) == (None, None)


def test_getEndUser_is_asked_at_each_trace(open_tab: OpenTab, site: PageUnderTest) -> None:  # noqa: N802  # the name of the option
    """`getEndUser` gives each trace who it is then; where it throws the trace has nobody and is sent all the same."""
    tab = open_tab()
    tab.evaluate(
        """(options) => { window.who = null; client({ ...options, getEndUser: () => {
            if (who === 'broken') throw new Error('u_secret'); return who; } }); }""",
        {"endpoint": site.processor.http_endpoint, "apiKey": KEY, "endUser": None},
    )
    track = "nl.trackAI({ name: 'chat' })"
    assert owner(site, say(tab, track)) == (None, None)
    tab.evaluate("who = { endUserId: 'u_asked', endUserMetadata: { plan: 'pro' } }")
    assert owner(site, say(tab, track)) == ("u_asked", {"plan": "pro"})
    tab.evaluate("who = 42")
    assert owner(site, say(tab, track)) == ("42", None)
    tab.evaluate("who = 'broken'")
    assert owner(site, say(tab, track)) == (None, None)


def test_a_refused_origin_is_told_what_to_do(open_tab: OpenTab, site: PageUnderTest) -> None:
    """A page of an origin that the processor does not know gets a message that names --cors-origins and the origin."""
    with web_site() as other:
        tab = open_tab(other)
        thrown: list[str] = []
        tab.on("pageerror", lambda error: thrown.append(str(error)))
        client(tab, site)
        tab.evaluate("nl.trackAI({ name: 'chat', endUser: 'u_refused' }); undefined")
        tab.wait_for_function("told.length > 0")
        reason, message, _ = told(tab)[0]
        assert reason == "unreachable"
        assert f"--cors-origins {other}" in message
        assert thrown == []
    assert "u_refused" not in {row["end_user"] for row in ask(site, "users")["rows"]}


def test_a_key_that_is_not_for_this_origin(browser: Browser, tmp_path: Path) -> None:
    """A browser key of another origin is refused, and the message names both settings that decide."""
    with web_site() as mine, web_site() as other:
        keys = browser_keys(tmp_path, other)
        with page_under_test("--cors-origins", f"{mine},{other}", "--browser-keys-file", str(keys)) as processor:
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(mine)
            tab.wait_for_function("document.title === 'ready'")
            client(tab, processor)
            result = say(tab, "nl.trackAI({ name: 'chat' })")
            context.close()
    assert not result["ok"]
    assert "403" in result["error"]
    assert f"--browser-keys-file has to name {mine}, and so has --cors-origins" in result["error"]


def test_a_wrong_key_is_told(open_tab: OpenTab, site: PageUnderTest) -> None:
    """A key that the processor does not know is refused for good: one request, one message, no retry."""
    tab = open_tab()
    client(tab, site, apiKey="nlw_somebody_elses")
    result = say(tab, "nl.trackAI({ name: 'chat' })")
    assert not result["ok"]
    assert "401" in result["error"]
    assert [(reason, lost) for reason, _, lost in told(tab)] == [("refused", 1)]
    assert "apiKey has to be a key of --browser-keys-file" in told(tab)[0][1]
    assert "nlw_somebody_elses" not in told(tab)[0][1]


def test_it_works_under_a_strict_content_security_policy(window: Any, site: PageUnderTest, tmp_path: Path) -> None:
    """Scripts of the own origin and the processor in `connect-src` are all that a policy has to allow; no eval."""
    policy = "default-src 'none'; script-src 'self'; connect-src {}; require-trusted-types-for 'script'"
    endpoint = ""
    with web_site(headers=lambda: {"content-security-policy": policy.format(endpoint)}) as strict:
        keys = browser_keys(tmp_path, strict)
        with page_under_test("--cors-origins", strict, "--browser-keys-file", str(keys)) as processor:
            endpoint = processor.processor.http_endpoint
            tab = window.new_page()
            tab.goto(strict)
            tab.wait_for_function("document.title === 'ready'")
            tab.evaluate(
                "window.violated = []; document.addEventListener("
                "'securitypolicyviolation', (event) => violated.push(event.violatedDirective)); undefined"
            )
            client(tab, processor)
            assert owner(processor, say(tab, "nl.trackAI({ name: 'chat', endUser: 'u_csp' })")) == ("u_csp", None)
            assert tab.evaluate("violated") == []


def test_a_policy_that_forbids_sending_is_named(window: Any, site: PageUnderTest) -> None:
    """Where the page's own policy forbids it, the message says which directive has to name the processor."""
    with web_site(headers=lambda: {"content-security-policy": "connect-src 'self'"}) as strict:
        tab = window.new_page()
        tab.goto(strict)
        tab.wait_for_function("document.title === 'ready'")
        client(tab, site)
        tab.evaluate("nl.trackAI({ name: 'chat' }); undefined")
        tab.wait_for_function("told.length > 0")
        assert f"its connect-src has to name {site.processor.http_endpoint}" in told(tab)[0][1]


def test_bad_arguments_never_throw(open_tab: OpenTab, site: PageUnderTest) -> None:
    """Whatever a page passes, no call throws and no promise rejects; a trace that can be sent is."""
    tab = open_tab()
    client(tab, site)
    calls = """async () => {
      const odd = { get name() { throw new Error('no'); } };
      const around = { name: 'around' }; around.input = around;
      const results = [];
      for (const given of [undefined, null, 7, 'text', [], {}, odd, around, { name: 'x', children: 5 },
          { name: 'x', children: [null, 7, { name: 'y', tokens: 'many', logs: [1], documents: {} }] },
          { name: 'x', endUser: true }, { name: 'x', endUser: 'u'.repeat(2000) }, { name: 'x', start: 'never' },
          { name: '\\ud800', input: '\\udfff', endUser: '\\ud800' }, { name: 'x', duration_ms: -1 },
          { name: 'x', attributes: { a: [1, 'b', true], b: { c: 1 }, c: NaN, d: 10n ** 30n } }]) {
        const open = nl.startTrace(given);
        for (const call of [nl.trace(given), nl.trackAI(given), open.finish(given)]) results.push((await call).ok);
      }
      for (const options of [undefined, null, 7, { endpoint: 'nonsense' }, { endUser: {} }, { apiKey: 'ä' }]) {
        const one = new Neatlogs(options);
        one.setEndUser({}, 5); one.setSession([]); one.reset();
        if (options && options.endpoint) results.push((await one.trackAI({ name: 'x' })).ok);
      }
      return results;
    }"""
    results = tab.evaluate(calls)
    assert all(isinstance(result, bool) for result in results)
    assert results.count(True) >= 30
