"""How long an answer takes at a fixed, moderate rate, in turns: what a proxy adds to the way without it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

from tests.bench.contestants import DIRECT, Contestant, start
from tests.bench.load import client, fresh_copies, send_paced
from tests.bench.payloads import Kind, request

RATES: Final[dict[int, float]] = {16: 100.0, 512: 20.0}
"""Requests a second, by spans a batch."""

_BLOCK_SECONDS: Final = 1.25


@dataclass
class Latency:
    """The times of one contestant, in seconds."""

    times: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """The median."""
        return median(self.times)

    @property
    def p99(self) -> float:
        """The time that one answer in a hundred takes longer than."""
        return quantiles(self.times, n=100, method="inclusive")[98]


def run(shapes: list[tuple[Kind, int]], *, samples: int) -> Iterator[tuple[Kind, int, dict[str, Latency]]]:
    """Measure every contestant over gRPC, with identity on roots; `direct` is among the results, to be subtracted."""
    with ExitStack() as stack:
        contestants = start(stack, "grpc")
        for kind, spans in shapes:
            body = request(kind, spans, "roots")
            rate = RATES[spans]
            block = round(rate * _BLOCK_SECONDS)
            latencies = {contestant.name: Latency() for contestant in contestants}
            for turn in range(-(-samples // block) + 1):
                for contestant in contestants:
                    times = asyncio.run(_block(contestant, fresh_copies(body, block), rate))
                    if turn:
                        latencies[contestant.name].times += times
            yield kind, spans, latencies


def added(latencies: dict[str, Latency], name: str) -> tuple[float, float]:
    """The p50 and the p99 that a contestant adds to the direct way, in seconds."""
    direct, through = latencies[DIRECT], latencies[name]
    return through.p50 - direct.p50, through.p99 - direct.p99


async def _block(contestant: Contestant, bodies: list[bytes], rate: float) -> list[float]:
    async with client("grpc", contestant.port, compressed=False, connections=1) as send:
        await send(bodies[0])
        times = await send_paced(send, bodies, rate=rate)
    contestant.settle()
    return times
