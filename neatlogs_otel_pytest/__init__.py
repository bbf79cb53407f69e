"""The pytest plug-in of neatlogs-otel: a test fails when a trace of the application it ran has no end user.

It does nothing unless it is asked, and it is a package of its own because pytest imports each plug-in that is installed
at its start: the shim and OpenTelemetry's SDK are imported only where they are needed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from neatlogs_otel.testing import Captured

MARKER = "end_user_optional"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag and the settings."""
    what = "fail each test in which a root span ends without an end user (neatlogs-otel)"
    parser.getgroup("neatlogs-otel").addoption("--require-end-users", action="store_true", default=None, help=what)
    parser.addini("require_end_users", what, type="bool", default=False)
    parser.addini(
        "end_users_except",
        "names of root spans that need no end user, with * and ?, one a line (neatlogs-otel)",
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line("markers", f"{MARKER}: the traces of this test need no end user (neatlogs-otel)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passed although a root span without an end user ended while it ran."""
    flag = item.config.getoption("--require-end-users")
    if not (flag or item.config.getini("require_end_users")) or item.get_closest_marker(MARKER) is not None:
        return (yield)
    from neatlogs_otel import testing

    with testing.watch_roots() as roots:
        result = yield
    # A test that opens no traces says nothing about end users.
    if roots:
        testing.assert_every_root_has_end_user(roots, roots="entry", except_for=item.config.getini("end_users_except"))
    return result


@pytest.fixture
def end_users(request: pytest.FixtureRequest) -> Iterator[Captured]:
    """What the test records, as by `neatlogs_otel.testing.capture()`; each of its traces has to have an end user."""
    from neatlogs_otel import testing

    with testing.capture() as captured:
        yield captured
    testing.assert_every_root_has_end_user(captured, except_for=request.config.getini("end_users_except"))
