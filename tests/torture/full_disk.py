"""Fill a real, small file system with a queue, a store or spans that wait: refusals are retryable, deletions go on.

Mounts a tmpfs, which takes root's rights; without them it says so and ends with 2. Everything else on the disk may fill
it too, so the file system is also filled from outside while the queue is in use.

    python tests/torture/full_disk.py --size 24
    python tests/torture/full_disk.py --size 60 --of store
    python tests/torture/full_disk.py --size 150 --of held
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.errors import OverloadedError, StoreUnavailableError
from neatlogs_processor.store.retention import DAY, Limits
from support.holding_parts import Parts as HeldParts
from support.holding_parts import holding_in
from support.holding_parts import spans_of as held_spans_of
from support.processor import until
from support.queue_parts import MIB, Destination, queue_in, traces
from support.spans import child, root
from support.store_contents import assert_sound, spans_of
from support.store_parts import START, Clock, store_at, trace
from support.store_parts import traces as traces_of

ROUNDS = 5
REQUEST_BYTES = 200_000
USER = {"neatlogs__end_user__id": "u_1"}
FIRST_SPAN = (1).to_bytes(8, "big")


async def torture_queue(folder: Path) -> bool:
    """Fill and drain the queue, several times; print the figures and say whether all is well."""
    destination = Destination()
    refused = 0
    async with queue_in(folder / "queue", destination, max_bytes=1024 * MIB) as parts:
        for number in range(ROUNDS):
            destination.open.clear()
            before = len(parts.sent)
            await parts.fill(traces(f"{number}", REQUEST_BYTES))
            # Not even room for a deletion, except for what the queue has reserved.
            filled = _fill(folder / "filler")
            await parts.fill(traces(f"{number}", 10))
            refused += 1
            destination.open.set()
            await until(lambda: parts.queue.state.requests == 0)
            (folder / "filler").unlink()
            print(
                f"round {number}: {len(parts.sent) - before} acknowledged until the disk was full, {filled} bytes from"
                " outside, all delivered and deleted",
                flush=True,
            )
    lost = set(parts.sent) - set(destination.accepted)
    print(
        f"{len(parts.sent)} acknowledged, {len(destination.accepted)} delivered, {refused} times refused,"
        f" {len(lost)} lost"
    )
    return not lost and refused > 0


async def torture_held(folder: Path) -> bool:
    """Fill the disk with spans that wait for their root, let them go on through a queue; say whether all is well."""
    destination = Destination()
    children = refused = 0
    directory = folder / "queue"
    async with (
        queue_in(directory, destination, max_bytes=1024 * MIB) as behind,
        holding_in(directory, behind.queue, max_bytes=1024 * MIB) as parts,
    ):
        for number in range(ROUNDS):
            first = children
            with contextlib.suppress(OverloadedError):
                while True:
                    padding = "x" * (REQUEST_BYTES if number % 2 else REQUEST_BYTES // 10)
                    await parts.send(child(padding, trace_id=(children + 1).to_bytes(16, "big")))
                    children += 1
            refused += 1
            filled = _fill(folder / "filler")
            with contextlib.suppress(OverloadedError):
                await parts.send(child("no room", trace_id=b"\xff" * 16))
                return False
            (folder / "filler").unlink()
            for at in range(first, children, 100):
                ids = [(one + 1).to_bytes(16, "big") for one in range(at, min(at + 100, children))]
                await _insist(parts, [root("root", trace_id=trace_id, **USER) for trace_id in ids])
            await until(lambda: parts.holding.spans == 0)
            await until(lambda: behind.queue.state.requests == 0)
            print(
                f"round {number}: {children - first} acknowledged until the disk was full, {filled} bytes from"
                " outside, all sent on with their end user and deleted",
                flush=True,
            )
        stamped = parts.outcome("stamped")
    arrived = [span for body in destination.accepted for span in held_spans_of(body)]
    ids = {span.trace_id for span in arrived if span.parent_span_id and len(span.attributes) == 1}
    print(f"{children} acknowledged, {stamped} stamped, {len(ids)} arrived, {children - len(ids)} lost")
    return len(ids) == children == stamped > 0 and refused == ROUNDS


async def _insist(parts: HeldParts, spans: list[Span]) -> None:
    """Send as a client does that is told to come again."""
    while True:
        with contextlib.suppress(OverloadedError):
            return await parts.send(*spans)
        await asyncio.sleep(0.05)


async def torture_store(folder: Path) -> bool:
    """Fill the store and let its traces become too old, several times; print figures, say whether all is well."""
    path, filler = folder / "traces.db", folder / "filler"
    first, now = 0, START
    for number in range(ROUNDS):
        async with store_at(path) as parts:
            parts.sent, parts.clock.now = first, now
            await parts.fill(padding=300, spans=100)
        kept, first = parts.kept, parts.sent
        filled = _fill(filler)
        # A processor can be started on a full disk.
        async with store_at(path, Limits(max_age=DAY), clock=(clock := Clock(now))) as parts:
            await parts.fill(padding=300)
            here = spans_of(path)
            lost = [one for one in kept if ((one + 1).to_bytes(16, "big"), FIRST_SPAN) not in here]
            now = clock.now = now + 2 * DAY
            # Refused, and yet it wakes the one who deletes.
            while parts.pruned() < here.total():
                with contextlib.suppress(StoreUnavailableError):
                    await parts.store.send(traces_of(trace(0)))
        filler.unlink()
        print(
            f"round {number}: {len(kept)} requests acknowledged until the disk was full, {filled} bytes from outside,"
            f" {len(lost)} lost, {parts.pruned()} spans deleted",
            flush=True,
        )
        if lost or not kept:
            return False
    assert_sound(path)
    return True


def _fill(path: Path) -> int:
    """Write a file until the disk is full; return its size."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path.stat().st_size


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Mount a file system of so many MiB."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def main() -> int:
    """Run as the arguments say; 0 where nothing was lost or stuck."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--of", choices=("queue", "store", "held"), default="queue")
    parser.add_argument("--size", type=int, default=24, help="Of the file system, in MiB.")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("a file system can be mounted only by root: nothing was tested")
        return 2
    logging.disable(logging.CRITICAL)
    torture = {"queue": torture_queue, "store": torture_store, "held": torture_held}[arguments.of]
    with small_disk(arguments.size) as folder:
        return 0 if asyncio.run(torture(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
