"""The law of held spans: in whatever order they come, and however often the processor restarts, nothing gets lost."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.holding_parts import Queue, holding_in
from support.otlp_sink import attributes
from support.processor import until
from support.spans import child, root

TRACES: Final = 4
RESTART: Final = None


def span_of(trace: int, name: int) -> Span:
    """The root of a trace, or one of its children; the last trace has no end user."""
    trace_id = bytes([trace + 1]) * 16
    if name:
        return child(f"{trace} {name}", trace_id=trace_id)
    user = {} if trace == TRACES - 1 else {"neatlogs__end_user__id": f"u_{trace}"}
    return root(f"{trace} 0", trace_id=trace_id, **user)


_SPANS: Final = [(trace, name) for trace in range(TRACES) for name in range(4)]


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[tuple[int, int]] | None]:
    """All spans in any order, in requests of any size, with restarts in between."""
    left = draw(st.permutations(_SPANS))
    steps: list[list[tuple[int, int]] | None] = []
    while left:
        size = draw(st.integers(1, 6))
        steps.append(left[:size])
        left = left[size:]
        if draw(st.integers(0, 3)) == 0:
            steps.append(RESTART)
    return steps


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrivals())
def test_every_span_arrives_once_with_the_end_user_of_its_root(steps: list[list[tuple[int, int]] | None]) -> None:
    """Children first or last, together or apart, before or after a restart: each arrives once, stamped by its root."""
    spans = asyncio.run(_arrived(steps))
    assert Counter(span.name for span in spans) == Counter(f"{trace} {name}" for trace, name in _SPANS)
    for span in spans:
        trace = int(span.name.split()[0])
        expected = None if trace == TRACES - 1 else f"u_{trace}"
        assert attributes(span).get("neatlogs.end_user.id") == expected


async def _arrived(steps: list[list[tuple[int, int]] | None]) -> list[Span]:
    queue = Queue()
    runs: list[list[list[tuple[int, int]]]] = [[]]
    for step in steps:
        if step is None:
            runs.append([])
        else:
            runs[-1].append(step)
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            async with holding_in(Path(folder), queue) as parts:
                for spans in run:
                    await parts.send(*(span_of(trace, name) for trace, name in spans))
                if run is runs[-1]:
                    await until(lambda: len(queue.spans) >= len(_SPANS))
    return queue.spans
