"""A page with the usual traces, shared by the tests of a module, and tabs in which it is open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.page import PageUnderTest, page_under_test, usual_traces

# Long enough for a busy machine.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def site() -> Iterator[PageUnderTest]:
    """A page over the usual traces."""
    with page_under_test() as running:
        running.send(*usual_traces())
        yield running


@pytest.fixture(scope="module")
def profile(browser: Browser, site: PageUnderTest) -> Iterator[BrowserContext]:
    """A fresh profile of the browser; making one takes longer than most tests."""
    with browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(20_000)
        yield context


@pytest.fixture
def tab(profile: BrowserContext, site: PageUnderTest) -> Iterator[Page]:
    """A fresh tab, in which nothing may go wrong and from which nothing may leave the machine."""
    page = profile.new_page()
    troubles: list[str] = []
    # Chromium says "Failed to load resource" for each answer that is an error, which a test may have asked for.
    page.on(
        "console",
        lambda said: (
            troubles.append(said.text)
            if said.type in ("error", "warning") and "Failed to load resource" not in said.text
            else None
        ),
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(site.url) else troubles.append(asked.url))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    yield page
    if page.url.startswith(site.url):
        page.evaluate("localStorage.clear()")
    page.close()
    assert troubles == []
