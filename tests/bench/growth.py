"""How cost grows with what a request holds, in one process; and with the number of clients, as whole proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from tests.bench import wire
from tests.bench.contestants import COLLECTOR_NAME, DECODE, OURS, PASSTHROUGH
from tests.bench.payloads import shaped
from tests.bench.rivals import decode_edit_encode

_ROUNDS: Final = 7
_ROUND_SECONDS: Final = 0.02
_POLICY: Final = EndUserPolicy()
_CORE: Final = "core"


@dataclass
class Growth:
    """One picture.

    Attributes:
        name: Of the file.
        title: A sentence without its full stop.
        x: What grows.
        y: What is measured.
        lines: By contestant, the points.
    """

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def run() -> Iterator[Growth]:
    """Measure every growth."""
    yield _in_process(
        Growth("spans", "Spans a batch (2.4 KB each, identity on every eighth)", "spans a batch", "ms a batch"),
        (1, 16, 64, 256, 512, 1024, 2048, 4096),
        lambda spans: shaped(spans, attributes=20, value_bytes=95, hits=spans // 8),
    )
    yield _in_process(
        Growth("bytes", "Bytes a span (512 spans, identity on every eighth)", "KB a span", "ms a batch"),
        (1, 2, 4, 8, 16, 32),
        lambda kilobytes: shaped(512, attributes=20, value_bytes=kilobytes * 1024 // 20 - 22, hits=64),
    )
    yield _in_process(
        Growth("hits", "Children that carry identity (of 512 spans of 2.4 KB)", "children with identity", "ms a batch"),
        (0, 64, 128, 192, 256, 320, 384, 448),
        lambda hits: shaped(512, attributes=20, value_bytes=95, hits=hits),
    )
    yield _in_process(
        Growth(
            "attributes", "Attributes a span (512 spans, identity on every eighth)", "attributes a span", "ms a batch"
        ),
        (1, 8, 16, 32, 64, 128),
        lambda attributes: shaped(512, attributes=attributes, value_bytes=20, hits=64),
    )
    yield _clients()


def _in_process(growth: Growth, sizes: tuple[int, ...], make: Callable[[int], bytes]) -> Growth:
    growth.lines = {_CORE: [], DECODE: []}
    for size in sizes:
        ours, rival = _milliseconds(make(size), lambda body: enforce_traces(body, _POLICY), decode_edit_encode)
        growth.lines[_CORE].append((size, ours))
        growth.lines[DECODE].append((size, rival))
    return growth


def _clients() -> Growth:
    growth = Growth(
        "clients", "Clients at the same time (512 LLM spans a batch)", "clients", "CPU-seconds a million spans"
    )
    names = (PASSTHROUGH, DECODE, OURS, COLLECTOR_NAME)
    shapes = [wire.Shape("llm", 512, concurrency=clients) for clients in (1, 2, 4, 8, 16, 32, 64)]
    for shape, figures in wire.run(shapes, rounds=3, spans_a_round=32_768, names=names):
        for name, figure in figures.items():
            growth.lines.setdefault(name, []).append((shape.concurrency, median(figure.cpu)))
    return growth


def _milliseconds(body: bytes, *jobs: Callable[[bytes], object]) -> list[float]:
    """The median CPU-milliseconds that each job takes for a body, measured in turns."""
    taken: list[list[float]] = [[] for _ in jobs]
    for turn in range(_ROUNDS + 1):
        for at, job in enumerate(jobs):
            times = 0
            began = time.process_time()
            while time.process_time() - began < _ROUND_SECONDS:
                job(body)
                times += 1
            if turn:
                taken[at].append((time.process_time() - began) / times * 1e3)
    return [median(one) for one in taken]
