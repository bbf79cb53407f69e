"""What whole proxies cost: load generator, proxy and sink as separate processes, one proxy at a time, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from tests.bench.contestants import NAMES, Contestant, start
from tests.bench.load import Protocol, client, fresh_copies, on_the_wire, send_all
from tests.bench.payloads import IDENTITIES, KINDS, Identity, Kind, request

_LEAST_REQUESTS: Final = 32


@dataclass(frozen=True)
class Shape:
    """One way to use a proxy.

    Attributes:
        kind: LLM or service spans.
        spans: A batch.
        identity: Which spans carry it.
        protocol: Over which client, proxy and sink speak.
        concurrency: Requests at the same time.
        compressed: Whether the client compresses; the proxy never does.
    """

    kind: Kind
    spans: int
    identity: Identity = "roots"
    protocol: Protocol = "grpc"
    concurrency: int = 8
    compressed: bool = False


@dataclass
class Figures:
    """What one contestant did with one shape, a figure for each round.

    Attributes:
        cpu: CPU-seconds a million spans.
        rate: Spans a second.
        memory: Resident bytes after the last round.
    """

    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    memory: float = 0.0


def first_shapes() -> list[Shape]:
    """Both payloads in both sizes."""
    return [Shape(kind, spans) for kind in KINDS for spans in (16, 512)]


def usual_shapes() -> list[Shape]:
    """The first shapes, and for one small and one large of them every other dimension in turn."""
    shapes = first_shapes()
    for kind, spans in (("llm", 512), ("service", 16)):
        shapes += [Shape(kind, spans, identity=identity) for identity in IDENTITIES if identity != "roots"]
        shapes += [Shape(kind, spans, concurrency=concurrency) for concurrency in (1, 32)]
        shapes += [Shape(kind, spans, compressed=True), Shape(kind, spans, protocol="http")]
    return shapes


def all_shapes() -> list[Shape]:
    """Every combination."""
    return [
        Shape(kind, spans, identity, protocol, concurrency, compressed)
        for protocol in ("grpc", "http")
        for kind in KINDS
        for spans in (16, 512)
        for identity in IDENTITIES
        for concurrency in (1, 8, 32)
        for compressed in (False, True)
    ]


def run(
    shapes: Sequence[Shape], *, rounds: int, spans_a_round: int, names: tuple[str, ...] = NAMES
) -> Iterator[tuple[Shape, dict[str, Figures]]]:
    """Measure every contestant on every shape. Sink and contestants live as long as shapes speak their protocol."""
    for protocol in ("grpc", "http"):
        wanted = [shape for shape in shapes if shape.protocol == protocol]
        if not wanted:
            continue
        with ExitStack() as stack:
            contestants = start(stack, protocol, names)
            for shape in wanted:
                yield shape, _measure(contestants, shape, rounds, spans_a_round)


def middle(figures: Sequence[float]) -> float:
    """The median."""
    return median(figures)


def _measure(contestants: list[Contestant], shape: Shape, rounds: int, spans_a_round: int) -> dict[str, Figures]:
    body = request(shape.kind, shape.spans, shape.identity)
    count = max(_LEAST_REQUESTS, spans_a_round // shape.spans)
    spans = count * shape.spans
    figures = {contestant.name: Figures() for contestant in contestants}
    for turn in range(rounds + 1):
        for contestant in contestants:
            bodies = on_the_wire(fresh_copies(body, count), shape.protocol, compressed=shape.compressed)
            cpu, seconds = asyncio.run(_round(contestant, shape, bodies))
            # The first round warms up.
            if turn:
                figures[contestant.name].cpu.append(cpu / spans * 1e6)
                figures[contestant.name].rate.append(spans / seconds)
    for contestant in contestants:
        figures[contestant.name].memory = contestant.resident_memory()
    return figures


async def _round(contestant: Contestant, shape: Shape, bodies: list[bytes]) -> tuple[float, float]:
    """Send the bodies. Returns the proxy's CPU-seconds, and the seconds until all had been delivered."""
    async with client(
        shape.protocol, contestant.port, compressed=shape.compressed, connections=shape.concurrency
    ) as send:
        await send(bodies[0])
        contestant.settle()
        before = contestant.cpu_seconds()
        began = time.perf_counter()
        await send_all(send, bodies, concurrency=shape.concurrency)
        contestant.settle()
        return contestant.cpu_seconds() - before, time.perf_counter() - began
