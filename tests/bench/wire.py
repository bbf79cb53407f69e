"""What a whole proxy costs: load, proxy and sink as separate processes on loopback, one proxy at a time, in turns."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc.aio

from tests.bench.payloads import Identity, Kind, request

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ROOT = Path(__file__).parents[2]
PROXIES = ("passthrough", "decode", "processor")
ROUNDS = 5
CONCURRENCY = 8
LEAST_REQUESTS = 64

Row = tuple[str, int, str, "dict[str, Proxy]"]


@dataclass
class Proxy:
    """One proxy under test.

    Attributes:
        process: Its process.
        port: Where it listens.
        cpu: CPU-seconds a million spans, of each round.
        rate: Spans a second, of each round.
    """

    process: subprocess.Popen[str]
    port: int
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


def run(shapes: list[tuple[Kind, int, Identity]], *, spans_a_round: int) -> Iterator[Row]:
    """Measure every proxy on every shape; a sink and the proxies are started anew for each shape."""
    for kind, spans, identity in shapes:
        with ExitStack() as stack:
            sink = _start(stack, [sys.executable, "-m", "tests.bench.proxies", "sink"])
            upstream = f"127.0.0.1:{sink.port}"
            proxies = {
                name: _start(stack, [sys.executable, "-m", "tests.bench.proxies", name, "--upstream", upstream])
                for name in ("passthrough", "decode")
            }
            proxies["processor"] = start_processor(stack, ["--upstream-endpoint", upstream])
            body = request(kind, spans, identity)
            requests = max(LEAST_REQUESTS, spans_a_round // spans)
            for turn in range(ROUNDS + 1):
                for proxy in proxies.values():
                    cpu, seconds = asyncio.run(_load(proxy, body, requests))
                    if turn:
                        proxy.cpu.append(cpu / (requests * spans) * 1e6)
                        proxy.rate.append(requests * spans / seconds)
        yield kind, spans, identity, proxies


def middle(figures: list[float]) -> float:
    """The median."""
    return median(figures)


async def _load(proxy: Proxy, body: bytes, requests: int) -> tuple[float, float]:
    """Send `body` so many times, `CONCURRENCY` at once. Returns the proxy's CPU-seconds and the seconds it took."""
    left = requests
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=options) as channel:
        export = channel.unary_unary(METHOD)
        await export(body)

        async def send() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await export(body)

        before = cpu_seconds(proxy.process.pid)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
        return cpu_seconds(proxy.process.pid) - before, loop.time() - began


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond where the kernel tells, else in its clock ticks."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(stack: ExitStack, command: list[str]) -> Proxy:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    stack.callback(_stop, process)
    assert process.stdout is not None
    return Proxy(process, int(process.stdout.readline()))


def start_processor(stack: ExitStack, flags: list[str]) -> Proxy:
    """Start the processor with gRPC alone on a free port, until the stack is left."""
    listeners = ["--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none"]
    command = [sys.executable, "-m", "neatlogs_processor", *listeners, "--log-format", "json", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    stack.callback(_stop, process)
    assert process.stderr is not None
    for line in process.stderr:
        marker = "OTLP/gRPC on 127.0.0.1:"
        if marker in line:
            port = line.partition(marker)[2].partition(",")[0].split()[0]
            return Proxy(process, int("".join(digit for digit in port if digit.isdigit())))
    raise RuntimeError("the processor did not start")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(10)
