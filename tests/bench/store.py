"""`make bench-store`: what it costs to keep traces, how much room they take, and how fast questions are answered.

Nothing is asserted. CPU is user plus system time, of the process under test where that is one of its own. The time to
make the traffic is not counted. The questions are asked of the first store that is filled, with 400-byte spans.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.store.files import open_writer, size_on_disk
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from tests.bench import store_questions
from tests.bench.contestants import Contestant, cpu_seconds, start_processor
from tests.bench.load import METHOD
from tests.bench.payloads import Kind
from tests.bench.store_traffic import BATCH, NOW, batches

SEGMENTS = 20
"""A run is divided into so many pieces; the speed of the last one is compared with the fastest."""

_CONCURRENCY = 4
_POLICY = EndUserPolicy()


@dataclass
class Filled:
    """How filling a store went.

    Attributes:
        spans: How many.
        seconds: What writing took.
        cpu: CPU-seconds of the writer.
        rates: Spans a second in each piece of the run.
        cpu_rates: Spans a CPU-second in each piece; other work on the machine disturbs these less.
        size: Bytes on disk, the log included.
    """

    spans: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    rates: list[float] = field(default_factory=list)
    cpu_rates: list[float] = field(default_factory=list)
    size: int = 0

    def line(self) -> str:
        """As a line of the table."""
        half = sorted(self.rates)[len(self.rates) // 2]
        return (
            f"{self.spans:>9,} {self.spans / self.seconds:>9,.0f} {half:>9,.0f} {self.rates[-1]:>9,.0f}"
            f" {self.rates[-1] / max(self.rates):>7.2f} {self.cpu / self.spans * 1e6:>8.1f}"
            f" {self.cpu_rates[-1] / max(self.cpu_rates):>7.2f}"
            f" {self.size / self.spans:>9.0f}"
        )


HEAD = (
    f"{'spans':>9} {'spans/s':>9} {'median':>9} {'last':>9} {'of best':>7} {'CPU-s/M':>8} {'of best':>7} {'bytes':>9}"
)


def fill(path: Path, kind: Kind, spans: int) -> Filled:
    """Write into a new store in this process, one request a transaction as when requests come one after the other."""
    filled = Filled()
    with closing(open_writer(path)) as connection:
        writing = Writing(connection)
        piece = _Piece(max(BATCH, spans // SEGMENTS))
        for body in batches(kind, spans):
            enforced = enforce_traces(body, _POLICY)
            began, cpu = time.perf_counter(), time.process_time()
            written = writing.write([(read_request(enforced.body, _POLICY), enforced.overrides)], NOW)
            piece.add(filled, written.spans, time.perf_counter() - began, time.process_time() - cpu)
        filled.size = size_on_disk(path)
    return filled


def fill_processor(path: Path, kind: Kind, spans: int) -> Filled:
    """Send to a processor with a store, over gRPC, `_CONCURRENCY` requests at once."""
    filled = Filled()
    with ExitStack() as stack:
        flags = ["--store", str(path), "--store-max-age", "none", "--store-max-size", "none"]
        processor = start_processor(stack, flags)
        piece = _Piece(max(BATCH, spans // SEGMENTS))
        for some in _chunks(batches(kind, spans), 32):
            cpu, seconds = asyncio.run(_send(processor, some))
            piece.add(filled, len(some) * BATCH, seconds, cpu)
        filled.size = size_on_disk(path)
    return filled


class _Piece:
    def __init__(self, size: int) -> None:
        self._size = size
        self._spans, self._seconds, self._cpu = 0, 0.0, 0.0

    def add(self, filled: Filled, spans: int, seconds: float, cpu: float) -> None:
        """Count; note the speed of the piece that this completes."""
        filled.spans += spans
        filled.seconds += seconds
        filled.cpu += cpu
        self._spans += spans
        self._seconds += seconds
        self._cpu += cpu
        if self._spans >= self._size:
            filled.rates.append(self._spans / self._seconds)
            filled.cpu_rates.append(self._spans / self._cpu)
            self._spans, self._seconds, self._cpu = 0, 0.0, 0.0


def _chunks(bodies: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    some: list[bytes] = []
    for body in bodies:
        some.append(body)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


async def _send(processor: Contestant, bodies: list[bytes]) -> tuple[float, float]:
    """Return the processor's CPU-seconds and the seconds it took."""
    waiting = list(reversed(bodies))
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{processor.port}", options=options) as channel:
        export = channel.unary_unary(METHOD)
        await export(b"")

        async def send() -> None:
            while waiting:
                await export(waiting.pop())

        before, began = cpu_seconds(processor.process.pid), time.perf_counter()
        await asyncio.gather(*(send() for _ in range(_CONCURRENCY)))
        return cpu_seconds(processor.process.pid) - before, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-store", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000, help="400-byte spans to write (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where the stores go; they are deleted in the end")
    parser.add_argument("--no-processor", action="store_true", help="leave out what goes through the whole processor")
    parser.add_argument("--no-llm", action="store_true", help="leave out the spans of 2.6 KB")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="only ask, of a store that was kept")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the first store there")
    parser.add_argument("--engine", choices=["sqlite", "clickhouse"], default="sqlite", help="(default: %(default)s)")
    parser.add_argument("--copies", type=int, default=0, help="with clickhouse: every span so many times more")
    arguments = parser.parse_args()
    print(
        f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" {platform.machine()}, {os.cpu_count()} cores\n"
    )
    if arguments.questions is not None:
        store_questions.ask(arguments.questions)
        return
    llm = arguments.spans // 4
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="bench-store-") as directory:
        first = arguments.keep or Path(directory) / "service.db"
        if arguments.engine == "clickhouse":
            # Neither the engine nor its client is needed for the other one.
            from tests.bench import store_clickhouse

            print(f"SQLite: {fill(first, 'service', arguments.spans).line()}", flush=True)
            store_clickhouse.measure(first, "service", arguments.spans, arguments.copies)
            return
        print("Writing, batches of 512 spans; bytes a span on disk, the log included\n")
        print(f"{'':22} {HEAD}")
        print(f"{'service, in process':22} {fill(first, 'service', arguments.spans).line()}", flush=True)
        if not arguments.no_llm:
            print(f"{'LLM, in process':22} {fill(Path(directory) / 'llm.db', 'llm', llm).line()}", flush=True)
        if not arguments.no_processor:
            through = fill_processor(Path(directory) / "service-grpc.db", "service", arguments.spans // 2)
            print(f"{'service, processor':22} {through.line()}", flush=True)
            if not arguments.no_llm:
                through = fill_processor(Path(directory) / "llm-grpc.db", "llm", llm // 2)
                print(f"{'LLM, processor':22} {through.line()}", flush=True)
        print()
        store_questions.ask(first)


if __name__ == "__main__":
    sys.exit(main())
