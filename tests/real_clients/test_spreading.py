"""Several processors with `--inherit` behind a Collector that sends all spans of a trace to the same one.

It is run where `make spreading-collector` has built that Collector; elsewhere this test is skipped.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.collector_process import SPREADING, collector_process, export
from support.otlp_sink import OtlpSink, attributes
from support.processor import running, until
from support.spans import child, request, root

pytestmark = [
    pytest.mark.needs_go,
    pytest.mark.skipif(not SPREADING.exists(), reason="that Collector was not built (make spreading-collector)"),
]

TRACES = 60


def configuration(*processors: str) -> dict[str, Any]:
    """A Collector that spreads traces over these processors, by trace id."""
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {}}}},
        "exporters": {
            "loadbalancing": {
                "routing_key": "traceID",
                "protocol": {"otlp": {"tls": {"insecure": True}}},
                "resolver": {"static": {"hostnames": list(processors)}},
            }
        },
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["loadbalancing"]}}},
    }


def spans_of(number: int) -> list[Span]:
    """Three children and their root, in the order in which they end."""
    trace_id = number.to_bytes(16, "big")
    spans = [child(f"{number} {name}", trace_id=trace_id) for name in ("llm", "tool", "agent")]
    return [*spans, root(f"{number} chat", trace_id=trace_id, neatlogs__end_user__id=f"u_{number}")]


async def test_every_span_of_every_trace_has_its_end_user_with_several_processors(tmp_path: Path) -> None:
    """Spans of many traces in mixed requests, roots last, all meet their root at one of two processors."""
    chance = random.Random(7)  # noqa: S311  # an order, not a secret
    children = [span for number in range(1, TRACES + 1) for span in spans_of(number)[:-1]]
    chance.shuffle(children)
    with OtlpSink() as sink:
        upstream = {"upstream_endpoint": f"127.0.0.1:{sink.grpc_port}", "inherit": True, "inherit_wait": "60s"}
        async with (
            running(**upstream, queue_dir=str(tmp_path / "one")) as one,
            running(**upstream, queue_dir=str(tmp_path / "two")) as two,
        ):
            with collector_process(configuration(one.target, two.target), tmp_path, SPREADING) as (address, _):
                for at in range(0, len(children), 10):
                    await asyncio.to_thread(export, address, request(*children[at : at + 10]))
                roots = [spans_of(number)[-1] for number in range(1, TRACES + 1)]
                await asyncio.to_thread(export, address, request(*roots))
                await until(lambda: len(sink.spans) == 4 * TRACES)
            worked = [each.service.telemetry.counters.inherit_spans for each in (one, two)]
            # Both had a share of the traces, and neither had a span of the other's.
            assert all(counter.get("stamped") == 3 * counter.get("root") > 0 for counter in worked)
    for span in sink.spans:
        assert attributes(span)["neatlogs.end_user.id"] == f"u_{span.name.split()[0]}"
