"""Take the upstream away under load, bring it back, and count what arrives.

Every span has a number, and clients send a request again until it is acknowledged, as in `kill9.py`. With
`--mode queue` the processor goes on acknowledging while the upstream is away; with `--mode sync` clients are asked to
come back. In the end every acknowledged number must have arrived at least once.

    python tests/torture/outage.py --mode queue --seconds 30
    python tests/torture/outage.py --mode sync --seconds 30
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from kill9 import CLIENTS, DRAIN_SECONDS, CountingUpstream, Load, free_port, listening, request

from support.processor import peak_resident, program

_BEFORE_SECONDS = 2.0
_AFTER_SECONDS = 2.0


async def outage(mode: str, seconds: float, seed: int, folder: Path) -> bool:
    """Run it, print the figures and say whether nothing was lost and each mode did what it promises."""
    chance = random.Random(seed)  # noqa: S311  # sizes and fates, not secrets
    upstream = CountingUpstream(chance)
    await upstream.start()
    port = free_port()
    flags = [*listening(port), "--upstream-endpoint", f"127.0.0.1:{upstream.port}", "--upstream-timeout", "2s"]
    if mode == "queue":
        flags += ["--queue-dir", str(folder / "queue")]
    load = Load(port, chance, request)
    async with program(*flags) as running:
        await running.ready()
        clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
        await asyncio.sleep(_BEFORE_SECONDS)
        await upstream.stop()
        before = len(load.acknowledged)
        arrived_before = len(upstream.arrived)
        await asyncio.sleep(seconds)
        during = len(load.acknowledged) - before
        # Without a queue nothing may be acknowledged that has not arrived; with one, nobody has to wait.
        kept_promise = during > 0 if mode == "queue" else load.acknowledged <= upstream.arrived.keys()
        upstream = CountingUpstream(chance, upstream.port, upstream.arrived)
        await upstream.start()
        back = time.monotonic()
        while len(upstream.arrived) == arrived_before and time.monotonic() < back + DRAIN_SECONDS:
            await asyncio.sleep(0.01)
        found = time.monotonic() - back
        await asyncio.sleep(_AFTER_SECONDS)
        load.stop()
        await asyncio.gather(*clients)
        while load.acknowledged - upstream.arrived.keys() and time.monotonic() < back + 2 * DRAIN_SECONDS:
            await asyncio.sleep(0.05)
        memory = peak_resident(running.process.pid)
        running.kill(signal.SIGTERM)
        finished = await running.end()
    await upstream.stop()
    lost = load.acknowledged - upstream.arrived.keys()
    print(
        f"mode {mode}, upstream away for {seconds:g} s (seed {seed}), found again after {found:.1f} s; spans:"
        f" {load.sent} sent, {len(load.acknowledged)} acknowledged ({during} of them meanwhile),"
        f" {len(upstream.arrived)} received, {len(lost)} lost,"
        f" {upstream.arrived.total() - len(upstream.arrived)} duplicated; peak resident memory {memory / 2**20:.0f} MiB"
    )
    if lost or finished.code or not kept_promise:
        print(f"NOT HELD; exit code {finished.code}; stderr:\n{finished.stderr[-5000:]}")
    return not lost and finished.code == 0 and kept_promise


def main() -> int:
    """Run as the arguments say; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=("queue", "sync"), default="queue")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="how long the upstream is away (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        well = asyncio.run(outage(arguments.mode, arguments.seconds, arguments.seed, Path(folder)))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
