"""`make bench-shim`: what the shim's span processor costs a span, beside one that does nothing and beside none.

Spans go nowhere: a provider without an exporter, so that nothing hides the cost. Identity comes from `identify()`, so
each root is stamped. Medians of interleaved rounds.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer

from neatlogs_otel import EndUserSpanProcessor, identify

_ROUNDS: Final = 41
_SPANS: Final = 2_000


def main() -> None:
    """Measure and print."""
    tracers = {
        "none": _tracer(),
        "no-op span processor": _tracer(SpanProcessor()),
        "EndUserSpanProcessor": _tracer(EndUserSpanProcessor()),
    }
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("CPU-microseconds a span: the median, and the middle half of the rounds\n")
    print("| Span | " + " | ".join(tracers) + " |")
    print("|---|" + "---|" * len(tracers))
    jobs: dict[str, Callable[[Tracer], None]] = {"child": _children, "root": _roots, "root that is stamped": _stamped}
    for span, job in jobs.items():
        print(f"| {span} | " + " | ".join(_measured(job, list(tracers.values()))) + " |")


def _tracer(*processors: SpanProcessor) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider.get_tracer("bench")


def _children(tracer: Tracer) -> None:
    with tracer.start_as_current_span("root"):
        for _ in range(_SPANS):
            tracer.start_span("child").end()


def _roots(tracer: Tracer) -> None:
    for _ in range(_SPANS):
        tracer.start_span("root").end()


def _stamped(tracer: Tracer) -> None:
    with identify(end_user_id="u_1", end_user_metadata={"plan": "pro"}):
        _roots(tracer)


def _measured(job: Callable[[Tracer], None], tracers: list[Tracer]) -> list[str]:
    taken: list[list[float]] = [[] for _ in tracers]
    for turn in range(_ROUNDS + 1):
        for at, tracer in enumerate(tracers):
            gc.collect()
            began = time.process_time()
            job(tracer)
            if turn:
                taken[at].append((time.process_time() - began) / _SPANS * 1e6)
    return [_with_spread(one) for one in taken]


def _with_spread(figures: list[float]) -> str:
    ordered = sorted(figures)
    quarter = len(ordered) // 4
    return f"{median(ordered):.2f} ({ordered[quarter]:.2f} to {ordered[-quarter - 1]:.2f})"


if __name__ == "__main__":
    main()
