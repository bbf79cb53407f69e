"""Fill a real, small file system with a queue: requests are refused retryably, deliveries and deletions go on.

Mounts a tmpfs, which takes root's rights; without them it says so and ends with 2. Everything else on the disk may fill
it too, so the file system is also filled from outside while the queue is in use.

    python tests/torture/full_disk.py --size 24
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

from support.processor import until
from support.queue_parts import MIB, Destination, queue_in, traces

ROUNDS = 5
REQUEST_BYTES = 200_000


async def torture(folder: Path) -> bool:
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
    parser.add_argument("--size", type=int, default=24, help="Of the file system, in MiB.")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("a file system can be mounted only by root: nothing was tested")
        return 2
    logging.disable(logging.CRITICAL)
    with small_disk(arguments.size) as folder:
        return 0 if asyncio.run(torture(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
