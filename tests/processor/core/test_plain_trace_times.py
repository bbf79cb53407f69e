"""Plain traces: what nests in what, and when spans began."""

from __future__ import annotations

from typing import Any

import pytest

from neatlogs_processor.core.plain_trace import plain_trace_to_otlp
from support.plain_traces import MS, NOON, convert, spans


def test_nesting_is_the_hierarchy() -> None:
    """Each child's parent is the span around it, all in one trace, each with an id of its own."""
    tree = {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}, {"name": "d"}]}
    found = {span.name: span for span in spans(tree)}
    assert list(found) == ["a", "b", "c", "d"]
    parents = {"a": b"", "b": found["a"].span_id, "c": found["b"].span_id, "d": found["a"].span_id}
    assert {name: span.parent_span_id for name, span in found.items()} == parents
    assert {(len(span.trace_id), span.trace_id.hex()) for span in found.values()} == {(16, convert(tree).trace_id)}
    assert len({span.span_id for span in found.values()}) == 4
    assert {len(span.span_id) for span in found.values()} == {8}


def test_the_same_body_is_the_same_trace() -> None:
    """Ids are made from the body: sent again it is the same trace, and any other body is another."""
    one, again = (
        convert({"name": "a", "children": [{"name": "b"}]}),
        convert({"name": "a", "children": [{"name": "b"}]}),
    )
    assert one == again
    assert one.spans == 2
    assert convert({"name": "a", "children": [{"name": "c"}]}).trace_id != one.trace_id
    later = plain_trace_to_otlp(b'{"name":"a"}', received=NOON + 1, max_size=1000)
    assert later.trace_id == convert(b'{"name":"a"}').trace_id


def milliseconds(document: Any) -> list[tuple[float, float]]:
    """Start and end of each span in milliseconds before the trace arrived."""
    return [((s.start_time_unix_nano - NOON) / MS, (s.end_time_unix_nano - NOON) / MS) for s in spans(document)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0, 0)),
        ({"duration_ms": 12.5}, (-12.5, 0)),
        ({"start": NOON // MS - 100}, (-100, -100)),
        ({"start": NOON // MS - 100, "duration_ms": 30}, (-100, -70)),
        ({"start": NOON // MS - 100, "end": NOON // MS - 50, "duration_ms": 1}, (-100, -50)),
        ({"end": NOON // MS - 50, "duration_ms": 10}, (-60, -50)),
        ({"end": NOON // MS - 50}, (-50, -50)),
        # Clocks are set back: what was said stays.
        ({"start": NOON // MS, "end": NOON // MS - 50}, (0, -50)),
    ],
    ids=str,
)
def test_the_times_of_a_root(fields: dict[str, Any], expected: tuple[float, float]) -> None:
    """What a root says of its times holds; what it does not say follows, and without anything it ends on arrival."""
    assert milliseconds({"name": "a", **fields}) == [expected]


def test_children_follow_one_another() -> None:
    """Steps that say only how long they took lie one after the other, and the root lasts as long as all of them."""
    tree = {
        "name": "a",
        "children": [
            {"name": "b", "duration_ms": 10},
            {"name": "c", "children": [{"name": "d", "duration_ms": 20}, {"name": "e", "duration_ms": 5}]},
        ],
    }
    assert milliseconds(tree) == [(-35, 0), (-35, -25), (-25, 0), (-25, -5), (-5, 0)]


def test_children_that_say_when_they_were_are_inside_their_parent() -> None:
    """A parent that says nothing lasts from the first start to the last end of its children."""
    tree = {
        "name": "a",
        "children": [
            {"name": "b", "start": NOON // MS - 100, "end": NOON // MS - 90},
            {"name": "c", "start": NOON // MS - 80, "duration_ms": 30},
            {"name": "d", "duration_ms": 7},
        ],
    }
    assert milliseconds(tree) == [(-100, -50), (-100, -90), (-80, -50), (-50, -43)]
    assert milliseconds({**tree, "start": NOON // MS - 120})[0] == (-120, -50)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-20T10:00:00.123Z", 1_795_168_800_123_000_000),
        ("2026-11-20T10:00:00.123456789123Z", 1_795_168_800_123_456_789),
        ("2026-11-20 10:00", 1_795_168_800_000_000_000),
        ("2026-11-20T12:30:00+02:30", 1_795_168_800_000_000_000),
        ("2026-11-20T05:00:00-0500", 1_795_168_800_000_000_000),
        (1_795_168_800_123.5, 1_795_168_800_123_500_000),
        (0, 0),
    ],
)
def test_a_time_is_iso_8601_or_milliseconds(text: Any, nanoseconds: int) -> None:
    """Times are read to the nanosecond; without an offset they are UTC."""
    assert spans({"name": "a", "start": text})[0].start_time_unix_nano == nanoseconds


def test_a_time_never_leaves_its_range() -> None:
    """Durations that reach beyond what can be written end there, at both ends."""
    century = 100 * 365 * 86_400_000
    (early,) = spans({"name": "a", "end": 5, "duration_ms": century})
    assert (early.start_time_unix_nano, early.end_time_unix_nano) == (0, 5 * MS)
    late = spans({"name": "a", "start": "2262-01-01T00:00:00Z", "duration_ms": century})[0]
    assert late.end_time_unix_nano == 2**63 - 1
