"""Pages that are hidden, put aside and brought back, and a network that goes and comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from support.page import CHROMIUM_FLAGS, chromium
from support.web_pages import Receiver

OpenTab = Callable[..., Page]

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)


def client(tab: Page, sink: Receiver) -> None:
    """Make the page's client."""
    tab.evaluate("(endpoint) => { client({ endpoint }); }", sink.url)


def names(sink: Receiver) -> list[str]:
    """Return the names of the spans that came."""
    return [span["name"] for span in sink.spans()]


def test_offline_it_waits_for_the_network(open_tab: OpenTab, window: BrowserContext, sink: Receiver) -> None:
    """Without a network a trace waits as long as it takes, and goes out when the browser says that it is back."""
    tab = open_tab()
    client(tab, sink)
    window.set_offline(True)
    tab.evaluate("window.result = nl.trackAI({ name: 'on the train' }); undefined")
    tab.wait_for_function("told.length > 0")
    assert sink.received == []
    window.set_offline(False)
    assert tab.evaluate("result.then((result) => result.ok)")
    assert names(sink) == ["on the train"]
    assert [reason for reason, *_ in tab.evaluate("told")] == ["unreachable"]


# A chromium without a window never hides a page by itself.
_HIDE = """Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));"""


def test_a_hidden_page_sends_what_waits(open_tab: OpenTab, sink: Receiver) -> None:
    """When the page is hidden, what waits behind a request goes out at once: it may be the last chance."""
    tab = open_tab()
    client(tab, sink)
    sink.gate.clear()
    tab.evaluate("nl.trackAI({ name: 'under way' }); undefined")
    sink.wait_for(lambda sink: len(sink.received) == 1)
    tab.evaluate("nl.trackAI({ name: 'waits' }); undefined")
    tab.evaluate(_HIDE)
    sink.wait_for(lambda sink: names(sink) == ["under way", "waits"])


@contextmanager
def keeping_pages(browser: Browser) -> Iterator[Browser]:
    """Run a browser with the cache of whole pages that people's browsers have, and Playwright's has not."""
    launched = browser.browser_type.launch(
        executable_path=chromium(), args=list(CHROMIUM_FLAGS), ignore_default_args=["--disable-back-forward-cache"]
    )
    try:
        yield launched
    finally:
        launched.close()


def test_a_page_that_comes_back_goes_on(browser: Browser, origin: str, sink: Receiver) -> None:
    """A page that was put aside and brought back with the back button still sends, and lost nothing meanwhile."""
    with keeping_pages(browser) as patient:
        tab = patient.new_page()
        tab.goto(origin)
        tab.wait_for_function("document.title === 'ready'")
        client(tab, sink)
        tab.evaluate("addEventListener('pageshow', (event) => { window.back = event.persisted; }); undefined")
        tab.evaluate("nl.setEndUser('u_1'); nl.trackAI({ name: 'large', input: 'x'.repeat(300000) }); undefined")
        tab.goto(f"{origin}/elsewhere")
        tab.go_back(wait_until="commit")
        tab.wait_for_function("window.back === true")
        assert tab.evaluate("nl.trackAI({ name: 'after' }).then((result) => result.ok)")
        sink.wait_for(lambda sink: {"large", "after"} <= set(names(sink)))
        assert all("lost" not in reason for reason, *_ in tab.evaluate("told"))
