"""Numbers, times and names as people read them, and the root that speaks for a trace."""

from __future__ import annotations

import dataclasses

import pytest

from neatlogs_processor.page import identity, shown
from neatlogs_processor.query.results import SpanDetail, TraceDetail, TraceRow
from neatlogs_processor.query.view import ALL_TIME, Period

SECOND = 1_000_000_000
NOON = 1_795_262_400 * SECOND
"""21 November 2026, 12:00 UTC."""


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (26_700, "26.7 µs"),
        (320_000_000, "320 ms"),
        (1_240_000_000, "1.24 s"),
        (59 * SECOND, "59 s"),
        (123 * SECOND, "2 min 3 s"),
        (3_900 * SECOND, "1 h 5 min"),
        (90_000 * SECOND, "1 d 1 h"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    """A duration has the unit that fits it, and about three digits."""
    assert shown.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 %"),
        (0.001, "< 1 %"),
        (0.95, "95 %"),
        (0.9999, "> 99 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_never_say_all_or_nothing_of_less(share: float | None, text: str) -> None:
    """Only all is 100 %, only nothing is 0 %."""
    assert shown.share(share) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (950, "950"), (12_345, "12.3k"), (4_100_000, "4.1M")])
def test_short_numbers(value: int, text: str) -> None:
    """Large numbers take few characters."""
    assert shown.short_number(value) == text


@pytest.mark.parametrize(
    ("at", "short", "ago"),
    [
        (NOON, "12:00:00", "just now"),
        (NOON - 90 * SECOND, "11:58:30", "1 min ago"),
        (NOON - 86_400 * SECOND, "20 Nov 12:00", "24 h ago"),
        (NOON - 400 * 86_400 * SECOND, "17 Oct 2025", "400 d ago"),
        (NOON + 3_600 * SECOND, "13:00:00", "in the future"),
        ((1 << 63) - 1, "11 Apr 2262", "in the future"),
    ],
)
def test_times(at: int, short: str, ago: str) -> None:
    """A time of today needs no date; whatever a sender's clock says can be shown."""
    assert shown.short_time(at, NOON) == short
    assert shown.ago(at, NOON) == ago
    assert shown.full_time(at).endswith(" UTC")


@pytest.mark.parametrize(
    ("period", "text"),
    [
        (ALL_TIME, "of all time"),
        (Period(last=3 * 3_600 * SECOND), "last 3 hours"),
        (Period(start=NOON), "since 12:00:00"),
        (Period(end=NOON), "before 12:00:00"),
        (Period(start=NOON - 86_400 * SECOND, end=NOON), "20 Nov 12:00 \N{EN DASH} 12:00:00"),
    ],
)
def test_periods(period: Period, text: str) -> None:
    """A period of one's own is named in a few characters."""
    assert shown.period(period, NOON) == text


def test_long_names_keep_both_ends() -> None:
    """A name that is too long loses its middle; one that fits loses nothing."""
    assert shown.cut("u_812", 12) == "u_812"
    assert shown.cut("0123456789abcdef", 12) == "0123456\N{HORIZONTAL ELLIPSIS}cdef"
    assert len(shown.cut("x" * 1000)) == 48


ROOT = SpanDetail(
    span_id="05" * 8,
    parent_id="",
    depth=0,
    name="root",
    kind="",
    otel_kind="server",
    owns_identity=True,
    start=50,
    end=60,
    duration=10,
    status="unset",
    status_message="",
    tokens=0,
    service="chat-api",
    scope="",
    attributes={},
    resource={},
    events=(),
    links=(),
    dropped=0,
)
CHILD = dataclasses.replace(ROOT, span_id="01" * 8, parent_id="05" * 8, start=10, owns_identity=False)
ENTRY = dataclasses.replace(CHILD, span_id="06" * 8, start=70, owns_identity=True)
TWIN = dataclasses.replace(ROOT, span_id="04" * 8)
LATER = dataclasses.replace(ROOT, span_id="03" * 8, start=51)
TIMELESS = dataclasses.replace(ROOT, span_id="02" * 8, start=0)


@pytest.mark.parametrize(
    ("spans", "speaker"),
    [
        ((CHILD,), None),
        ((CHILD, ROOT), ROOT),
        ((LATER, ROOT), ROOT),
        ((ROOT, TWIN), TWIN),
        ((TIMELESS, LATER), LATER),
        ((ROOT, ENTRY), ENTRY),
    ],
    ids=["no root", "the root", "the earliest", "the smaller id", "no start comes last", "entry before root"],
)
def test_who_speaks_for_a_trace(spans: tuple[SpanDetail, ...], speaker: SpanDetail | None) -> None:
    """The page points at the span that the store takes the identity from."""
    trace = TraceRow(
        "ab" * 16, 1, 2, 1, 2, 0, 0, 0, 0, True, 1, "unset", "chat-api", "root", None, None, None, None, None, (), (), 0
    )
    assert identity.speaker(TraceDetail(trace, spans, ())) is speaker


@pytest.mark.parametrize("source", [*identity.SOURCES, None, "somebody"])
def test_every_source_has_words(source: str | None) -> None:
    """Where an identity came from reads as a sentence, also where the application says something of its own."""
    said = identity.source_sentence(source)
    assert len(said.split()) > 3
