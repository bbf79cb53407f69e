"""`make bench`: what the processor costs, as tables in Markdown. Compare within one run.

Without arguments it takes three to four minutes. `--tables` measures all that docs/benchmarks.md shows, in 15 to 30;
`--full` every combination of payload, batch, identity, protocol, concurrency and compression, which takes hours.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from tests.bench import core, growth, latency, pictures, wire
from tests.bench.contestants import COLLECTOR, COLLECTOR_NAME, DECODE, DIRECT, NAMES, OURS, PASSTHROUGH, QUEUE
from tests.bench.payloads import Kind

PARTS = ("core", "proxies", "queue", "latency", "growth")
_SUSTAINED_SPANS = 65_536
_NOT_MEASURED = "not measured"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--tables", action="store_true", help="one dimension after the other, latency, growth")
    parser.add_argument("--full", action="store_true", help="every combination, more rounds, more samples")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    parser.add_argument("--rounds", type=int, help="rounds of each shape (default: 3; with --full 5)")
    parser.add_argument("--spans", type=int, default=16_384, help="spans a round and proxy (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a directory for pictures of how cost grows")
    arguments = parser.parse_args()
    parts = arguments.only or (PARTS if arguments.full or arguments.tables else ("core", "proxies"))
    shapes = wire.all_shapes() if arguments.full else wire.usual_shapes()
    if not (arguments.full or arguments.tables or arguments.only):
        shapes = wire.first_shapes()
    rounds = arguments.rounds or (5 if arguments.full else 3)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs"
    )
    if not COLLECTOR.exists():
        print("The Collector was not built (make bench-collector): its rows read as not measured.")
    if "core" in parts:
        _core()
    if "proxies" in parts:
        _proxies(shapes, rounds, arguments.spans)
    if "queue" in parts:
        _queue(arguments.rounds or 5)
    if "latency" in parts:
        _latency([("llm", 512), ("service", 16)], samples=2_000 if arguments.full else 500)
    if "growth" in parts:
        _growth(arguments.pictures)


def _core() -> None:
    print("\n### The core\n\nCPU-seconds a million spans.\n")
    _head("Spans", "A batch", "Identity", DECODE, "core", "search alone", "cheaper by")
    for kind, spans, identity, rival, ours, search in core.run():
        print(f"| {kind} | {spans} | {identity} | {rival:.2f} | {ours:.2f} | {search:.2f} | {rival / ours:.1f}x |")

    print("\nBatches of 512 spans in the byte orders of other exporters.\n")
    _head("Exporter", "Spans", "Identity", DECODE, "core", "cheaper by")
    for order, kind, identity, rival, ours in core.run_orders():
        print(f"| {order} | {kind} | {identity} | {rival:.2f} | {ours:.2f} | {rival / ours:.1f}x |")

    print("\nBatches of 512 spans with what is accepted and emitted beside the rule.\n")
    _head("Setting", "Spans", "They hold", f"{DECODE}, rule alone", "core, rule alone", "core, all")
    for setting, kind, what, rival, rule, ours in core.run_stages():
        print(f"| `{setting}` | {kind} | {what} | {rival:.2f} | {rule:.2f} | {ours:.2f} |")


def _proxies(shapes: list[wire.Shape], rounds: int, spans_a_round: int) -> None:
    print("\n### Whole proxies\n")
    print(
        "CPU-seconds a million spans (least to most of the rounds), spans a second, resident MB after the last round.\n"
    )
    peers = ("of passthrough", "of decoding", "of the Collector")
    _head("Spans", "Identity", "Way", "Clients", "Contestant", "CPU", *peers, "spans/s", "MB")
    for shape, figures in wire.run(shapes, rounds=rounds, spans_a_round=spans_a_round):
        way = f"{shape.protocol}{', gzip' if shape.compressed else ''}"
        head = f"| {shape.spans} {shape.kind} | {shape.identity} | {way} | {shape.concurrency}"
        for name in NAMES:
            if name not in figures:
                print(f"{head} | {name} | {_NOT_MEASURED} | | | | | |")
                continue
            one = figures[name]
            cpu = wire.middle(one.cpu)
            cells = ["", "", "", ""]
            if name != DIRECT:
                cells[0] = f"{cpu:.1f} ({min(one.cpu):.1f} to {max(one.cpu):.1f})"
                for at, peer in enumerate((PASSTHROUGH, DECODE, COLLECTOR_NAME), start=1):
                    if peer in figures:
                        cells[at] = f"{cpu / wire.middle(figures[peer].cpu):.2f}x"
            print(
                f"{head} | {name} | {' | '.join(cells)} | {wire.middle(one.rate):.0f} | {one.memory / 2**20:.0f} |",
                flush=True,
            )
        rates = {name: wire.middle(figures[name].rate) for name in (OURS, QUEUE) if name in figures}
        print(
            f"{head} | durable queue: throughput of synchronous | | | | | {rates[QUEUE] / rates[OURS]:.2f}x | |",
            flush=True,
        )


def _queue(rounds: int) -> None:
    print("\n### The durable queue\n\nBeside the synchronous mode, in longer rounds: until everything is delivered.\n")
    _head("Spans", "synchronous: CPU", "queue: CPU", "synchronous: spans/s", "queue: spans/s", "CPU", "throughput")
    for shape, figures in wire.run(
        wire.first_shapes(), rounds=rounds, spans_a_round=_SUSTAINED_SPANS, names=(OURS, QUEUE)
    ):
        ours, queue = figures[OURS], figures[QUEUE]
        cpu, queue_cpu = wire.middle(ours.cpu), wire.middle(queue.cpu)
        rate, queue_rate = wire.middle(ours.rate), wire.middle(queue.rate)
        print(
            f"| {shape.spans} {shape.kind} | {cpu:.1f} | {queue_cpu:.1f} | {rate:.0f} | {queue_rate:.0f}"
            f" | {queue_cpu / cpu:.2f}x | {queue_rate / rate:.2f}x |",
            flush=True,
        )


def _latency(shapes: list[tuple[Kind, int]], *, samples: int) -> None:
    print(
        "\n### Latency\n\nMilliseconds at a fixed rate, one connection, identity on roots; added: less the direct way."
    )
    print()
    _head("Spans", "Requests a second", "Contestant", "p50", "p99", "added p50", "added p99")
    for kind, spans, latencies in latency.run(shapes, samples=samples):
        for name in NAMES:
            head = f"| {spans} {kind} | {latency.RATES[spans]:g} | {name}"
            if name not in latencies:
                print(f"{head} | {_NOT_MEASURED} | | | |")
                continue
            one = latencies[name]
            p50, p99 = latency.added(latencies, name)
            print(
                f"{head} | {one.p50 * 1e3:.2f} | {one.p99 * 1e3:.2f} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} |", flush=True
            )


def _growth(directory: Path | None) -> None:
    print("\n### How cost grows")
    for one in growth.run():
        print(f"\n{one.title}: {one.y}.\n")
        _head(one.x, *one.lines)
        for at, (x, _) in enumerate(next(iter(one.lines.values()))):
            print(
                f"| {x:g} | " + " | ".join(f"{points[at][1]:.2f}" for points in one.lines.values()) + " |", flush=True
            )
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{one.name}.svg").write_text(pictures.draw(one), encoding="utf-8")


def _head(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")
    print("|" + "---|" * len(cells))


if __name__ == "__main__":
    main()
