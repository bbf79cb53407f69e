"""`make bench`: what the rule costs, as ratios within one run.

Two tables. The first is the core alone, in one process. The second is whole proxies on loopback, of which only the
proxy's own CPU counts. CPU is user plus system time; figures are medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import platform

from tests.bench import core, wire
from tests.bench.payloads import IDENTITIES, KINDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--core-only", action="store_true", help="leave the proxies out")
    parser.add_argument("--spans", type=int, default=16_384, help="spans a round and proxy (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("The core, CPU-seconds a million spans\n")
    print(
        f"{'spans':8} {'a batch':>7}  {'identity':8} {'decode+edit+encode':>18} {'core':>6} {'search':>6}  cheaper by"
    )
    for kind, spans, identity, rival, ours, search in core.run():
        print(f"{kind:8} {spans:>7}  {identity:8} {rival:>18.2f} {ours:>6.2f} {search:>6.2f}  {rival / ours:.1f}x")
    if arguments.core_only:
        return
    print("\nWhole proxies over gRPC, eight requests at once, CPU-seconds a million spans of the proxy\n")
    print(
        f"{'spans':8} {'a batch':>7}  {'identity':8} {'pass':>6} {'decode':>6} {'ours':>6}  of pass  of decode  spans/s"
    )
    shapes = [(kind, spans, identity) for kind in KINDS for spans in (16, 512) for identity in IDENTITIES]
    for kind, spans, identity, proxies in wire.run(shapes, spans_a_round=arguments.spans):
        floor, rival, ours = (wire.middle(proxies[name].cpu) for name in wire.PROXIES)
        rate = wire.middle(proxies["processor"].rate)
        print(
            f"{kind:8} {spans:>7}  {identity:8} {floor:>6.1f} {rival:>6.1f} {ours:>6.1f}"
            f"  {ours / floor:>6.2f}x  {ours / rival:>8.2f}x  {rate:>7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
