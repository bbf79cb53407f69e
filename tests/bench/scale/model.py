"""How much of everything a rate of spans needs: arithmetic over the inputs, and nothing else.

Rates are spans a second at the peak; what is kept, and what a month costs, goes by the average.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INPUTS_FILE: Final = Path(__file__).with_name("inputs.toml")
DAY: Final = 86_400
MONTH_HOURS: Final = 730

Values = Mapping[str, float]
"""The inputs by name; their units stand in the file."""


def read_inputs() -> dict[str, list[dict[str, Any]]]:
    """Return the inputs by group, in the order of the file."""
    groups: dict[str, list[dict[str, Any]]] = tomllib.loads(INPUTS_FILE.read_text(encoding="utf-8"))
    return groups


def values_of(groups: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the inputs by name."""
    return {one["name"]: float(one["value"]) for group in groups.values() for one in group}


def mixed(values: Values, name: str, suffix: str = "") -> float:
    """Return what a span costs on average: an input that there is for service spans and for LLM spans."""
    share = values["llm_share"]
    before, after = f"{name}_" if name else "", f"_{suffix}" if suffix else ""
    return values[f"{before}service{after}"] * (1 - share) + values[f"{before}llm{after}"] * share


@dataclass(frozen=True)
class Processors:
    """Processors for a rate.

    Attributes:
        cores: CPU at the peak.
        processes: How many, with room and with a zone lost.
        network: Gbit/s in, and as much out.
        machines: As many as CPU and network ask for.
        machines_for_cpu: Those that the CPU asks for.
    """

    cores: float
    processes: int
    network: float
    machines: int
    machines_for_cpu: int


def processors(values: Values, rate: float, cpu: float) -> Processors:
    """Return what a rate needs.

    Args:
        values: The inputs.
        rate: Spans a second.
        cpu: CPU-seconds a million spans.
    """
    zones = int(values["zones"])
    spare = zones / (zones - 1)
    cores = rate * cpu / 1e6
    processes = max(zones, ceil(cores / values["busy"] * spare))
    network = rate * mixed(values, "", "bytes") * 8 / 1e9
    for_cpu = max(zones, ceil(processes / values["cores"]))
    for_network = ceil(network / (values["nic"] * values["busy"]) * spare)
    return Processors(cores, processes, network, max(for_cpu, for_network), for_cpu)


@dataclass(frozen=True)
class ClickHouse:
    """Servers for a rate.

    Attributes:
        cores: CPU for inserts and merges at the peak, of one replica of everything.
        day: Bytes a day, of one replica.
        kept: Bytes after as many days as traces are kept, of one replica.
        shards: As many as CPU and disk ask for.
        shards_for_cpu: Those that the CPU asks for.
        inserts: Inserts a second that each shard gets, if every processor inserts once in `insert_every`.
        question: Seconds for a question over all traces of a day.
    """

    cores: float
    day: float
    kept: float
    shards: int
    shards_for_cpu: int
    inserts: float
    question: float


def clickhouse(values: Values, rate: float, writers: int) -> ClickHouse:
    """Return what a rate needs, of `writers` processors that insert."""
    average = rate / values["peak"]
    cores = rate * mixed(values, "clickhouse") * (1 + values["clickhouse_merges"]) / 1e6
    day = average * DAY * mixed(values, "clickhouse", "disk")
    kept = day * values["days"]
    for_cpu = ceil(cores / values["busy"] / values["cores"])
    for_disk = ceil(kept / (values["disk"] * 1e12 * values["full"]))
    shards = max(for_cpu, for_disk)
    question = average / values["trace_spans"] * DAY * values["clickhouse_trace"] / 1e6 / (shards * values["cores"])
    return ClickHouse(cores, day, kept, shards, for_cpu, writers / values["insert_every"], question)


@dataclass(frozen=True)
class Cost:
    """What a month costs, in the currency of the prices."""

    cores: float
    disks: float
    network: float

    @property
    def all(self) -> float:
        """Everything."""
        return self.cores + self.disks + self.network


def cost(values: Values, rate: float, *, kept: float = 1.0) -> Cost:
    """Return what a rate costs that goes through processors, of which a share is kept in ClickHouse."""
    enforcing = processors(values, rate, mixed(values, "proxy"))
    writing = processors(values, rate * kept, mixed(values, "writer"))
    storing = clickhouse(values, rate * kept, writing.processes)
    copies, zones = values["copies"], values["zones"]
    # Where the network asks for more machines than the CPU, their cores are paid for all the same.
    bound_by_network = enforcing.machines > enforcing.machines_for_cpu
    paid = enforcing.machines * values["cores"] if bound_by_network else enforcing.processes
    cores = paid + writing.processes + storing.shards * copies * values["cores"]
    month = rate / values["peak"] * MONTH_HOURS * 3600 * mixed(values, "", "bytes") / 1e9
    crossing = (1 - 1 / zones) * month * (1 + kept)
    return Cost(
        cores * MONTH_HOURS * values["core_hour"],
        storing.kept * copies / values["full"] / 1e9 * values["gb_month"],
        crossing * values["gb_zone"],
    )


@dataclass(frozen=True)
class Sqlite:
    """One processor with the embedded store.

    Attributes:
        cores: CPU at the peak.
        days: For how long a disk of 1 TB is enough.
        days_by_default: For how long the default of 10 GiB is.
        users: Seconds for the list of end users over 7 days.
    """

    cores: float
    days: float
    days_by_default: float
    users: float


def sqlite(values: Values, rate: float) -> Sqlite:
    """Return what one processor with the embedded store does at a rate."""
    average = rate / values["peak"]
    day = average * DAY * mixed(values, "sqlite", "disk")
    return Sqlite(
        rate * (mixed(values, "sqlite") + mixed(values, "proxy")) / 1e6,
        1e12 / day,
        10 * 2**30 / day,
        average / values["trace_spans"] * 7 * DAY * values["sqlite_users"] / 1000 / 125_000,
    )


def limits(values: Values) -> list[tuple[str, float]]:
    """Return where each single thing is full: what it is, and the spans a second at the peak; the first one first."""
    peak, busy = values["peak"], values["busy"]
    shard = clickhouse(values, 1.0, 1)
    disk = values["disk"] * 1e12 * values["full"]
    writer = busy * 1e6 / mixed(values, "writer")
    found = [
        ("SQLite: users over 7 days within the page's limit", values["sqlite_limit"] / sqlite(values, 1.0).users),
        ("SQLite: a day in the default 10 GiB", sqlite(values, 1.0).days_by_default),
        ("SQLite: 30 days in 1 TB", sqlite(values, 1.0).days / values["days"]),
        ("SQLite: its one writer", busy / sqlite(values, 1.0).cores),
        ("A processor that writes to ClickHouse", writer),
        ("A processor, 16 spans a request", busy * 1e6 / mixed(values, "proxy", "small")),
        ("A processor with the durable queue, 512 spans a request", busy * 1e6 / mixed(values, "queue")),
        ("A processor, 512 spans a request", busy * 1e6 / mixed(values, "proxy")),
        ("A machine's network, each way", values["nic"] * busy * 1e9 / 8 / mixed(values, "", "bytes")),
        ("A ClickHouse shard: its disk", disk / shard.kept),
        ("A ClickHouse shard: its CPU", values["cores"] * busy / shard.cores),
        (
            "ClickHouse: inserts a shard takes, one writer each",
            values["inserts_a_shard"] * values["insert_every"] * writer / (values["zones"] / (values["zones"] - 1)),
        ),
        (
            "ClickHouse, one shard: a question over a day within 10 s",
            10 * values["cores"] * 1e6 * values["trace_spans"] * peak / DAY / values["clickhouse_trace"],
        ),
    ]
    return sorted(found, key=lambda one: one[1])
