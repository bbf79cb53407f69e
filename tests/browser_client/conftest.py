"""A site whose page holds the client, and a processor that this site's origin may send to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from support.page import PageUnderTest, page_under_test
from support.typescript_package import NodeMissingError
from support.web_pages import Receiver, browser_keys, bundle, receiver, web_site


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """The client, built."""
    try:
        bundle()
    except NodeMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The origin of a site whose page has loaded the client."""
    with web_site() as running:
        yield running


@pytest.fixture(scope="module")
def site(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageUnderTest]:
    """A processor with a store, open to pages of `origin` with the browser key."""
    keys = browser_keys(tmp_path_factory.mktemp("keys"), origin)
    with page_under_test("--cors-origins", origin, "--browser-keys-file", str(keys)) as running:
        yield running


@pytest.fixture
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A browser window with storage of its own."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def open_tab(window: BrowserContext, origin: str) -> Callable[..., Page]:
    """Opens a tab on the site, or on another."""

    def open_page(at: str = origin) -> Page:
        tab = window.new_page()
        tab.goto(at)
        tab.wait_for_function("document.title === 'ready'")
        return tab

    return open_page


@pytest.fixture
def sink() -> Iterator[Receiver]:
    """A receiver that answers what a test wants."""
    with receiver() as running:
        yield running
