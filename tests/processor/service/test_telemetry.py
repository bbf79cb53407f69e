"""Counters and log lines for the operator."""

from __future__ import annotations

import logging

import pytest

from neatlogs_processor.core.policy import Counts, Enforced, Override, Place
from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import MalformedOtlpError, UpstreamUnavailableError
from neatlogs_processor.telemetry import Seldom, Telemetry


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def telemetry(clock: Clock) -> Telemetry:
    return Telemetry(clock)


def overriding(*overrides: Override) -> Enforced:
    counts = Counts(spans=3, roots=2, roots_with_identity=1, defaults_moved=4, invalid=5)
    for override in overrides:
        counts.overrides[override.place] += 1
    return Enforced(b"", counts, list(overrides))


def override(name: str = "tool", place: Place = Place.CHILD, service: str = "shop") -> Override:
    return Override(b"\1" * 16, b"\2" * 8, service, name, place, "neatlogs.end_user.id")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_counters_add_up_what_the_rule_found(telemetry: Telemetry) -> None:
    """Every count of a request lands in its counter."""
    telemetry.enforced(overriding(override(), override(place=Place.EVENT)))
    telemetry.forwarded(Signal.TRACES, spans=3)
    telemetry.refused(Signal.TRACES, MalformedOtlpError("bad"), spans=2)
    telemetry.abandoned(Signal.LOGS, spans=0)
    counters = telemetry.counters
    found = {(counter.name, *labels): value for counter in counters for labels, value in counter}
    assert {key: value for key, value in found.items() if value} == {
        ("requests", "traces", "ok"): 1,
        ("requests", "traces", "malformed"): 1,
        ("requests", "logs", "client_gone"): 1,
        ("spans_received",): 3,
        ("spans_forwarded",): 3,
        ("spans_refused", "malformed"): 2,
        ("overrides_ignored", "child"): 1,
        ("overrides_ignored", "event"): 1,
        ("defaults_moved",): 4,
        ("invalid_values",): 5,
        ("roots", "yes"): 1,
        ("roots", "no"): 1,
    }
    assert "3 received, 3 acknowledged, 2 refused" in telemetry.summary()
    assert "overrides ignored: 2" in telemetry.summary()


def test_every_counter_is_described() -> None:
    """A description is there for whoever reads the counters later."""
    assert all(counter.description.endswith(".") for counter in Telemetry().counters)


@pytest.mark.parametrize("place", list(Place))
def test_an_override_is_explained(telemetry: Telemetry, caplog: pytest.LogCaptureFixture, place: Place) -> None:
    """The warning names span and service and says what to do instead."""
    telemetry.enforced(overriding(override(place=place)))
    [line] = lines(caplog)
    assert '"tool" of service "shop" sets neatlogs.end_user.id: ignored' in line
    assert "root span" in line


def test_an_override_is_logged_once_per_place(
    telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The same service, span name and place warn again only after an hour, with how many were not shown."""
    for _ in range(10):
        telemetry.enforced(overriding(override()))
    telemetry.enforced(overriding(override(name="other"), override(place=Place.LINK), override(service="billing")))
    assert len(lines(caplog)) == 4
    clock.now += 3601
    telemetry.enforced(overriding(override()))
    assert len(lines(caplog)) == 5
    assert "(9 similar lines not shown)" in "".join(lines(caplog))


def test_names_in_a_warning_are_escaped_and_cut(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever names a span cannot write log lines or terminal commands."""
    telemetry.enforced(overriding(override(name="a\nERROR forged\x1b[2J" + "x" * 500, service="s\r")))
    [line] = lines(caplog)
    assert line.isprintable()
    assert len(line) < 400


def test_refusals_of_one_kind_are_logged_once_a_minute(
    telemetry: Telemetry, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An upstream that is down does not fill the disk with log lines."""
    error = UpstreamUnavailableError("connection refused", grpc_code=14)
    for _ in range(1000):
        telemetry.refused(Signal.TRACES, error, spans=1)
    clock.now += 61
    telemetry.refused(Signal.TRACES, error, spans=1)
    first, second = lines(caplog)
    assert "connection refused" in first
    assert "(999 similar lines not shown)" in second


def test_a_bug_is_logged_with_its_place_and_without_its_message(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback shows code; the message, which may quote a payload, is left out."""
    with pytest.raises(KeyError) as raised:
        {}["u_812"]
    for _ in range(2):
        telemetry.failed(raised.value)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "KeyError" in record.getMessage()
    assert "'u_812'" not in record.getMessage().replace('{}["u_812"]', "")
    assert "test_telemetry.py" in record.getMessage()
    assert telemetry.counters.failures.total() == 2


def test_new_keys_without_end_are_bounded(clock: Clock) -> None:
    """A flood of different keys writes a few lines a minute and remembers a bounded number of keys."""
    seldom = Seldom(clock, again=3600, burst=5, keys=3)
    assert sum(seldom.allows(number) for number in range(1000)) == 5
    clock.now += 61
    assert seldom.allows(0), "forgotten, because newer keys took its place"
    assert not seldom.allows(4)
    assert seldom.skipped() == " (996 similar lines not shown)"
    assert seldom.skipped() == ""
