"""What every test folder shares: in CI a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


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
    return report
