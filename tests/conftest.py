"""What every test folder shares: a browser, and that in CI a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from playwright.sync_api import Browser

from support.page import NO_BROWSER, chromium, running_browser


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where the environment says that nothing may be missing; see the marker `needs_go`."""
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("needs_go") is not None
    if os.environ.get("NEATLOGS_TESTS_NO_SKIP") and report.skipped and not expected:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"Skipped where nothing may be skipped: {reason}"
    elif report.skipped and isinstance(report.longrepr, tuple) and NO_BROWSER in report.longrepr[2]:
        # The summary then says it once, with a count, instead of once for each test.
        report.longrepr = (__file__, 0, report.longrepr[2])
    return report


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's chromium."""
    path = chromium()
    if path is None:
        pytest.skip(NO_BROWSER)
    with running_browser(path) as running:
        yield running
