"""What is compared: processes between one load generator and one sink, all on the loopback interface."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.load import Protocol

ROOT: Final = Path(__file__).parents[2]
COLLECTOR: Final = ROOT / ".peers" / "collector" / "otelcol"
COLLECTOR_CONFIG: Final = Path(__file__).with_name("collector") / "rule.yaml"

DIRECT: Final = "direct"
PASSTHROUGH: Final = "passthrough"
DECODE: Final = "decode, edit, encode"
OURS: Final = "the processor"
QUEUE: Final = "with durable queue"
STORE: Final = "store alone"
COLLECTOR_NAME: Final = "Collector"
NAMES: Final = (DIRECT, PASSTHROUGH, DECODE, OURS, QUEUE, STORE, COLLECTOR_NAME)

_STARTED: Final = 20.0
_WAITING = re.compile(r"^neatlogs_processor_queue_waiting_requests(?:\{.*\})? ([0-9.]+)", re.MULTILINE)


@dataclass
class Contestant:
    """One process under test.

    Attributes:
        name: One of `NAMES`.
        process: It; for `direct`, the sink.
        port: Where it takes requests.
        admin_port: Where the processor tells how much its queue holds.
    """

    name: str
    process: subprocess.Popen[str]
    port: int
    admin_port: int | None = None

    def cpu_seconds(self) -> float:
        """CPU time so far; none where there is nothing between load generator and sink."""
        return 0.0 if self.name == DIRECT else cpu_seconds(self.process.pid)

    def resident_memory(self) -> float:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return float(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def settle(self) -> None:
        """Wait until everything acknowledged has been delivered, which a durable queue does afterwards."""
        if self.name != QUEUE:
            return
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
                waiting = _WAITING.search(answer.read().decode())
            if waiting is not None and float(waiting[1]) == 0:
                return
            time.sleep(0.005)
        raise RuntimeError("the queue did not empty")


def start(stack: ExitStack, protocol: Protocol, names: tuple[str, ...] = NAMES) -> list[Contestant]:
    """Start a sink and the contestants, until the stack is left. A Collector that was not built is left out."""
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
    sink = _start_proxy(stack, DIRECT, "sink", protocol)
    upstream = f"127.0.0.1:{sink.port}"
    contestants = []
    for name in names:
        if name == DIRECT:
            contestants.append(sink)
        elif name in (PASSTHROUGH, DECODE):
            contestants.append(_start_proxy(stack, name, name.partition(",")[0], protocol, upstream))
        elif name == COLLECTOR_NAME:
            if COLLECTOR.exists():
                contestants.append(_start_collector(stack, protocol, upstream))
        else:
            flags = ["--upstream-endpoint", upstream]
            if protocol == "http":
                flags = ["--upstream-endpoint", f"http://{upstream}", "--upstream-protocol", "http/protobuf"]
            if name == QUEUE:
                flags += ["--queue-dir", str(directory / "queue")]
            elif name == STORE:
                flags = ["--store", str(directory / "traces.db")]
            contestants.append(start_processor(stack, flags, name=name, protocol=protocol))
    return contestants


def start_processor(stack: ExitStack, flags: list[str], *, name: str = OURS, protocol: Protocol = "grpc") -> Contestant:
    """Start the processor on free ports, until the stack is left."""
    http = "127.0.0.1:0" if protocol == "http" else "none"
    listeners = ["--grpc-listen", "127.0.0.1:0", "--http-listen", http, "--admin-listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "neatlogs_processor", *listeners, "--log-format", "json", *flags]
    # By its own switch alone: a variable of the caller's shell is not to decide what is measured.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEATLOGS_PROCESSOR_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    stack.callback(_stop, process)
    assert process.stderr is not None
    for line in process.stderr:
        ports = re.search(
            r"OTLP/gRPC on 127\.0\.0\.1:(\d+)(?:, OTLP/HTTP on 127\.0\.0\.1:(\d+))?, admin on .*?:(\d+)", line
        )
        if ports is not None:
            grpc_port, http_port, admin_port = ports.groups()
            return Contestant(name, process, int(http_port if protocol == "http" else grpc_port), int(admin_port))
    raise RuntimeError("the processor did not start")


def _start_proxy(stack: ExitStack, name: str, kind: str, protocol: Protocol, upstream: str | None = None) -> Contestant:
    command = [sys.executable, "-m", "tests.bench.proxies", kind, "--protocol", protocol]
    command += [] if upstream is None else ["--upstream", upstream]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    stack.callback(_stop, process)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    _wait_for(port)
    return Contestant(name, process, port)


def _start_collector(stack: ExitStack, protocol: Protocol, upstream: str) -> Contestant:
    grpc_port, http_port = _free_ports(2)
    environment = os.environ | {
        "BENCH_GRPC": f"127.0.0.1:{grpc_port}",
        "BENCH_HTTP": f"127.0.0.1:{http_port}",
        "BENCH_UPSTREAM": upstream,
        "BENCH_EXPORTER": f"otlp_{protocol}",
    }
    process = subprocess.Popen([str(COLLECTOR), "--config", str(COLLECTOR_CONFIG)], text=True, env=environment)
    stack.callback(_stop, process)
    port = grpc_port if protocol == "grpc" else http_port
    _wait_for(port)
    return Contestant(COLLECTOR_NAME, process, port)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond where the kernel tells, else in its clock ticks."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_for(port: int) -> None:
    end = time.monotonic() + _STARTED
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > end:
                raise RuntimeError(f"nothing listens on port {port}")
            time.sleep(0.05)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(20)
