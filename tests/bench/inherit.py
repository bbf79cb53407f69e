"""What --inherit costs: CPU of the processor with --queue-dir alone, and of one whose spans wait for their roots.

python -m tests.bench.inherit
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.bench.contestants import DIRECT, Contestant, start, start_processor
from tests.bench.payloads import KINDS, SPANS_A_TRACE, Kind, request

WAYS = ("--queue-dir alone", "root in the same request", "all children first")

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_BUSY = re.compile(
    r"^neatlogs_processor_(?:queue_waiting_requests|inherit_held_spans)(?:\{.*\})? ([0-9.]+)", re.MULTILINE
)
_SPANS = 512


def bodies(kind: Kind, batches: int, *, children_first: bool) -> list[bytes]:
    """Requests of whole traces; or each time one of their children, and then one of their roots."""
    found = []
    for seed in range(batches):
        body = request(kind, _SPANS, "roots", seed=seed)
        if not children_first:
            found.append(body)
            continue
        children, roots = ExportTraceServiceRequest.FromString(body), ExportTraceServiceRequest.FromString(body)
        for message, is_root in ((children, False), (roots, True)):
            scope = message.resource_spans[0].scope_spans[0]
            kept = [span for number, span in enumerate(scope.spans) if (number % SPANS_A_TRACE == 0) == is_root]
            del scope.spans[:]
            scope.spans.extend(kept)
            found.append(message.SerializeToString())
    return found


def measure(kind: Kind, way: str, batches: int) -> float:
    """CPU-seconds of the processor for a million spans, until all have been delivered."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        (sink,) = start(stack, "grpc", (DIRECT,))
        flags = ["--upstream-endpoint", f"127.0.0.1:{sink.port}", "--queue-dir", str(directory / "queue")]
        processor = start_processor(stack, flags + (["--inherit"] if way != WAYS[0] else []))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{processor.port}"))
        send = channel.unary_unary(_METHOD)
        # The first ones warm up.
        sent = bodies(kind, batches + 8, children_first=way == WAYS[2])
        warm = len(sent) * 8 // (batches + 8)
        for body in sent[:warm]:
            send(body, timeout=60)
        _settle(processor)
        before = processor.cpu_seconds()
        for body in sent[warm:]:
            send(body, timeout=60)
        _settle(processor)
        return (processor.cpu_seconds() - before) / (batches * _SPANS) * 1e6


def _settle(processor: Contestant) -> None:
    """Wait until nothing waits any more, for a root or for the upstream."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{processor.admin_port}/metrics", timeout=10) as answer:
            waiting = _BUSY.findall(answer.read().decode())
        if waiting and not any(float(one) for one in waiting):
            return
        time.sleep(0.2)
    raise RuntimeError("spans still wait")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100, help="Requests of 512 spans in each round.")
    parser.add_argument("--rounds", type=int, default=3, help="How often; figures are medians.")
    arguments = parser.parse_args()
    print(f"| Spans | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    for kind in KINDS:
        rounds = [[measure(kind, way, arguments.batches) for way in WAYS] for _ in range(arguments.rounds)]
        figures = (f"{statistics.median(figures):.1f}" for figures in zip(*rounds, strict=True))
        print(f"| {_SPANS} {kind} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
