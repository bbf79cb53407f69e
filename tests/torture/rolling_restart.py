"""Replace one processor of several after the other, behind a proxy and under load, and count what arrives.

Applications with OpenTelemetry SDKs send numbered spans through nginx or HAProxy, with the files of
deploy/load-balancing. In every round each processor gets SIGTERM, drains, ends, and another one starts in its place. In
the end every span must have arrived, and no SDK may have given up a batch.

    python tests/torture/rolling_restart.py --proxy nginx --rounds 5
    python tests/torture/rolling_restart.py --proxy haproxy --rounds 5 --drain-delay 1500ms
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fleet import applications, arrived, fleet
from support.proxies import FILES, program_of, proxy
from support.upstream import Upstream

PATIENT = 60


class Repeats(logging.Handler):
    """Counts the tries that the SDKs' exporters make again; they log each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        self.count += record.getMessage().startswith("Transient error")


async def restart(name: str, processors: int, rounds: int, clients: int, drain_delay: str, folder: Path) -> bool:
    """Run it, print the figures and say whether nothing was lost or given up."""
    begun = time.monotonic()
    repeats = Repeats()
    logging.getLogger("opentelemetry").addHandler(repeats)
    async with (
        Upstream() as upstream,
        fleet(upstream.endpoint, processors, drain_delay=drain_delay) as members,
        proxy(name, members.ports, folder) as through,
    ):
        endpoint = f"http://127.0.0.1:{through.grpc}"
        async with applications(clients, lambda: OTLPSpanExporter(endpoint=endpoint, timeout=PATIENT)) as running:
            for _ in range(rounds):
                for index in range(processors):
                    await members.restart(index)
                    await members.has_traffic(index)
    received = arrived(upstream)
    sent = set[str]().union(*(one.names for one in running))
    lost = sent - received.keys()
    given_up = sum(one.exporter.given_up for one in running)
    print(
        f"{name}, {processors} processors, {processors * rounds} restarts with --drain-delay {drain_delay} in"
        f" {time.monotonic() - begun:.0f} s; spans: {len(sent)} sent in"
        f" {sum(one.exporter.batches for one in running)} batches, {repeats.count} tries repeated,"
        f" {given_up} batches given up, {len(lost)} spans lost,"
        f" {received.total() - len(received)} duplicated"
    )
    return not lost and not given_up


def main() -> int:
    """Run as the arguments say; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--proxy", choices=sorted(FILES), default="nginx")
    parser.add_argument("--processors", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--drain-delay", default="0s")
    arguments = parser.parse_args()
    if program_of(arguments.proxy) is None:
        print(f"{arguments.proxy} is not installed (apt-get install nginx-light haproxy)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        well = asyncio.run(
            restart(
                arguments.proxy,
                arguments.processors,
                arguments.rounds,
                arguments.clients,
                arguments.drain_delay,
                Path(folder),
            )
        )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
