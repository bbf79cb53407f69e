"""The operator's numbers in the Prometheus text format, or in OpenMetrics where a scraper asks for it.

Names follow the conventions of Prometheus: one prefix, base units, `_total` for counters. Labels hold words of this
program only, so the number of series is bounded by the program and not by what it receives.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from neatlogs_processor.telemetry import Telemetry

PREFIX = "neatlogs_processor_"


class Described(NamedTuple):
    """One metric, for documents.

    Attributes:
        name: As it is scraped.
        kind: `counter`, `gauge`, `histogram` or `info`.
        labels: The names of its labels.
        description: A sentence.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    description: str


class Exposition:
    """Renders the numbers of one processor, and those of its process.

    Args:
        telemetry: Where the numbers are.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        # A registry of our own: the global one is for programs that are alone in their process.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(telemetry))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return what a scraper gets.

        Args:
            accept: Its `Accept` header.

        Returns:
            The body and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def described(telemetry: Telemetry) -> list[Described]:
    """Every metric of this program, whether or not there is something to measure at the moment."""
    found = [Described(f"{PREFIX}build_info", "info", ("version", "python"), _BUILD)]
    found += [
        Described(f"{PREFIX}{one.name}_total", "counter", one.labels, one.description) for one in telemetry.counters
    ]
    found += [Described(f"{PREFIX}{one.name}", "gauge", (), one.description) for one in telemetry.gauges]
    found += [
        Described(f"{PREFIX}{one.name}", "histogram", (one.label,), one.description) for one in telemetry.histograms
    ]
    return found


_BUILD = "Version of the processor and of Python; always 1."


class _Collector(Collector):
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """Read every number now."""
        build = {"version": version("neatlogs-otel"), "python": platform.python_version()}
        yield InfoMetricFamily(f"{PREFIX}build", _BUILD, value=build)
        for counter in self._telemetry.counters:
            counted = CounterMetricFamily(PREFIX + counter.name, counter.description, labels=counter.labels)
            for labels, value in counter:
                counted.add_metric(labels, value)
            yield counted
        for gauge in self._telemetry.gauges:
            if gauge.read is not None:
                yield GaugeMetricFamily(PREFIX + gauge.name, gauge.description, value=gauge.read())
        for histogram in self._telemetry.histograms:
            durations = HistogramMetricFamily(PREFIX + histogram.name, histogram.description, labels=(histogram.label,))
            for of, counts, total in histogram:
                bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
                running = 0
                buckets = []
                for bound, count in zip(bounds, counts, strict=True):
                    running += count
                    buckets.append((bound, running))
                durations.add_metric((of,), buckets, sum_value=total)
            yield durations
