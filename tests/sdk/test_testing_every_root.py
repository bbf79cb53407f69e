"""`assert_every_root_has_end_user()`, `watch_roots()` and the pytest plug-in: a team's CI finds who forgot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

import neatlogs_otel as neatlogs
from neatlogs_otel import testing


def test_it_passes_where_each_trace_has_one() -> None:
    """Two traces with end users and a child without one are as they should be."""
    with testing.capture() as captured:
        for user in ("u_1", "u_2"):
            with neatlogs.trace("chat", end_user_id=user), neatlogs.trace("step"):
                pass
    testing.assert_every_root_has_end_user(captured)
    testing.assert_every_root_has_end_user(captured.spans)


def test_it_names_the_handlers_that_forgot() -> None:
    """The message has each root's name with how often it occurred, and no end user's id."""
    with testing.capture() as captured:
        for user in ("u_1", None, ""):
            with neatlogs.trace("chat", end_user_id=user):
                pass
        with neatlogs.trace("job"):
            pass
    with pytest.raises(AssertionError) as failed:
        testing.assert_every_root_has_end_user(captured)
    assert "3 of 4 root spans have no end user: 'chat' (2 times), 'job'." in str(failed.value)
    assert "u_1" not in str(failed.value)


def test_what_needs_none_is_exempt() -> None:
    """Names with wildcards exempt the roots that serve nobody."""
    with testing.capture() as captured:
        for name in ("GET /healthz", "GET /readyz"):
            with neatlogs.trace(name):
                pass
    testing.assert_every_root_has_end_user(captured, except_for=["GET /*z"])
    with pytest.raises(AssertionError, match="GET /readyz"):
        testing.assert_every_root_has_end_user(captured, except_for=["GET /healthz"])


def test_nothing_proves_nothing() -> None:
    """Without any root span the assertion fails: most likely the wrong spans were looked at."""
    with testing.capture() as captured:
        pass
    with pytest.raises(AssertionError, match="no root span has ended"):
        testing.assert_every_root_has_end_user(captured)


def test_entry_spans_count_where_they_are_asked_for() -> None:
    """A span under a remote parent is no root, unless roots="entry"."""
    remote = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    with testing.capture(roots="entry") as captured:
        tracer = captured.tracer_provider.get_tracer("web")
        tracer.start_span("GET /", context=set_span_in_context(NonRecordingSpan(remote))).end()
    with pytest.raises(AssertionError, match="no root span"):
        testing.assert_every_root_has_end_user(captured)
    with pytest.raises(AssertionError, match="GET /"):
        testing.assert_every_root_has_end_user(captured, roots="entry")


def test_roots_of_any_provider_are_watched(recorded) -> None:
    """watch_roots() sees what ends inside the block, once, and nothing before or after."""

    def request(name: str) -> None:
        with recorded.tracer.start_as_current_span(name), recorded.tracer.start_as_current_span("child"):
            pass

    recorded.provider.add_span_processor(neatlogs.EndUserSpanProcessor())
    request("before")
    with testing.watch_roots() as roots:
        request("inside")
    request("after")
    assert [root.name for root in roots] == ["inside"]


# The plug-in --------------------------------------------------------------------------------------------------------

APPLICATION = """
import pytest
import neatlogs_otel as neatlogs
from opentelemetry.sdk.trace import TracerProvider

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(neatlogs.EndUserSpanProcessor())

def handle(user=None, name="GET /chat"):
    with provider.get_tracer("web").start_as_current_span(name):
        neatlogs.set_end_user(user)

def test_that_names():
    handle("u_1")

def test_that_forgets():
    handle()

def test_of_health():
    handle(name="GET /healthz")

@pytest.mark.end_user_optional
def test_that_may_forget():
    handle()

def test_without_traces():
    pass

def test_that_fails_by_itself():
    handle()
    assert 1 == 2
"""


def suite(tmp_path: Path, source: str, *flags: str, ini: str = "") -> str:
    """What pytest says of a test suite of its own, in a process of its own."""
    (tmp_path / "test_shop.py").write_text(source, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = --strict-markers\n{ini}", encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *flags]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout + done.stderr


def failures(said: str) -> set[str]:
    """The names of the tests that failed."""
    lines = (line for line in said.splitlines() if line.startswith(("FAILED", "ERROR test")))
    return {line.split("::")[1].split(" ")[0] for line in lines}


def test_the_plug_in_is_off_unless_asked_for(tmp_path: Path) -> None:
    """Where nobody asks, no test fails for its end users, and the shim is not even imported."""
    assert failures(suite(tmp_path, APPLICATION)) == {"test_that_fails_by_itself"}
    idle = "import sys\ndef test_idle():\n    assert not {'neatlogs_otel', 'opentelemetry.sdk'} & sys.modules.keys()\n"
    assert failures(suite(tmp_path, idle)) == set()


@pytest.mark.parametrize("asked", ["by flag", "by ini"])
def test_the_plug_in_fails_tests_whose_traces_have_no_end_user(tmp_path: Path, asked: str) -> None:
    """A flag or the configuration asks for it; a marker exempts a test, a pattern exempts traces."""
    ini = "end_users_except =\n    GET /health*\n" + ("require_end_users = true\n" if asked == "by ini" else "")
    flags = ["--require-end-users"] if asked == "by flag" else []
    said = suite(tmp_path, APPLICATION, *flags, ini=ini)
    assert failures(said) == {"test_that_forgets", "test_that_fails_by_itself"}
    assert "1 of 1 root spans have no end user: 'GET /chat'" in said
    assert "assert 1 == 2" in said


def test_the_fixture_captures_and_asserts(tmp_path: Path) -> None:
    """A test that takes `end_users` records its traces, and fails at its end where one has no end user."""
    source = """
import neatlogs_otel as neatlogs

def test_that_names(end_users):
    with neatlogs.trace("chat", end_user_id="u_1"):
        pass
    assert end_users.end_user_of("chat").id == "u_1"

def test_that_forgets(end_users):
    with neatlogs.trace("chat"):
        pass
"""
    assert failures(suite(tmp_path, source)) == {"test_that_forgets"}
