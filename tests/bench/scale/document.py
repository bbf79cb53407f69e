"""The tables of docs/scale.md: the inputs, what the model makes of them, and what the simulation shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from math import floor, log10
from pathlib import Path
from typing import Any, Final

from .model import (
    Values,
    clickhouse,
    cost,
    limits,
    mixed,
    processors,
    read_inputs,
    sqlite,
    values_of,
)
from .simulation import World, percentile, simulate

DOCUMENT: Final = Path(__file__).resolve().parents[3] / "docs" / "scale.md"
BENCHMARKS: Final = DOCUMENT.with_name("benchmarks.md")
RATES: Final = (1e4, 1e6, 1e8)
_RATE_NAMES: Final = ("10^4", "10^6", "10^8")
_BEGIN: Final = "<!-- {}: begin (python -m tests.bench.scale --write) -->"
_END: Final = "<!-- {}: end -->"

SCENARIOS: Final[tuple[tuple[str, World], ...]] = (
    ("as it should be", World()),
    ("one trace in twenty works for minutes", World(long_share=0.05)),
    ("2 % of the answers are lost", World(answers_lost=0.02)),
    ("inserts every 5 s", World(insert_every=5.0)),
    ("one of 3 processors gone for 30 s", World(away=((0, 40.0, 70.0),))),
    ("... with the durable queue", World(away=((0, 40.0, 70.0),), durable=True)),
    (
        "each killed in turn, one every 5 s",
        World(away=tuple((turn % 3, 10.0 + 5 * turn, 13.0 + 5 * turn) for turn in range(20))),
    ),
    (
        "... with the durable queue",
        World(away=tuple((turn % 3, 10.0 + 5 * turn, 13.0 + 5 * turn) for turn in range(20)), durable=True),
    ),
    ("the store away for 5 s", World(store_away=(40.0, 45.0))),
    ("the store away for 60 s", World(store_away=(40.0, 100.0))),
    ("... with the durable queue", World(store_away=(40.0, 100.0), durable=True)),
    ("two replicas, copied after 2 s", World(copy_takes=2.0)),
    ("... and one lost for good", World(copy_takes=2.0, replica_lost=60.0)),
    ("... and a quorum of both", World(copy_takes=2.0, replica_lost=60.0, quorum=True)),
)


def number(value: float) -> str:
    """Write a number with two digits that count, as a plan has no more; whole numbers below 1,000 as they are."""
    if value == 0 or (float(value).is_integer() and abs(value) < 1000):
        return f"{value:.0f}"
    digits = 1 - floor(log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(digits, 0)}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    written = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]
    return "\n".join((written[0], "|---" * len(lines[0]) + "|", *written[1:]))


def inputs_table(groups: Mapping[str, list[dict[str, Any]]]) -> str:
    """Write every input, with where it comes from."""
    rows = [
        (
            one["what"],
            f"{one['value']:,}",
            one["unit"],
            one.get("source") or f"[measured]({_link(one)}): {one['column']}",
        )
        for group in groups.values()
        for one in group
    ]
    return table(("What", "Value", "Unit", "Where it comes from"), rows)


def _link(one: Mapping[str, Any]) -> str:
    of_store = one["name"].startswith("sqlite")
    return "benchmarks.md#the-store" if of_store else "benchmarks.md#whole-proxies"


def limits_table(values: Values) -> str:
    """Write where each single thing is full, the first one first."""
    return table(
        ("One of these", "is full at, spans/s at the peak"), [(what, number(at)) for what, at in limits(values)]
    )


def sqlite_table(values: Values) -> str:
    """Write how far one file goes."""
    rows = []
    for rate in (20, 200, 2000, 10_000):
        one = sqlite(values, rate)
        users = number(one.users) if one.users <= values["sqlite_limit"] else "refused"
        rows.append((f"{rate:,}", number(one.cores), number(one.days_by_default), number(one.days), users))
    head = ("Spans/s at the peak", "cores", "days in the default 10 GiB", "days in 1 TB", "users over 7 days, s")
    return table(head, rows)


def processors_table(values: Values) -> str:
    """Write how many processors each rate needs."""
    ways = (
        ("512 spans a request", mixed(values, "proxy")),
        ("16 spans a request", mixed(values, "proxy", "small")),
        ("512, durable queue", mixed(values, "queue")),
        ("512, writing to ClickHouse", mixed(values, "writer")),
    )
    rows = []
    for name, rate in zip(_RATE_NAMES, RATES, strict=True):
        for way, cpu in ways:
            one = processors(values, rate, cpu)
            bound = "network" if one.machines > one.machines_for_cpu else "CPU"
            rows.append(
                (
                    *(name, way, number(one.cores), number(one.processes)),
                    number(one.processes * values["memory"] / 1000),
                    *(number(one.network), f"{number(one.machines)} ({bound})"),
                )
            )
    head = ("Spans/s", "How", "cores busy", "processors", "memory, GB", "Gbit/s each way", "machines (bound by)")
    return table(head, rows)


def clickhouse_table(values: Values) -> str:
    """Write how much ClickHouse each rate needs, whole and sampled."""
    rows = []
    for name, rate in zip(_RATE_NAMES, RATES, strict=True):
        for share in (1.0, 0.1, 0.01) if rate > RATES[0] else (1.0,):
            writers = processors(values, rate * share, mixed(values, "writer")).processes
            one = clickhouse(values, rate * share, writers)
            bound = "disk" if one.shards > one.shards_for_cpu else "CPU"
            rows.append(
                (
                    *(name, f"{share:.0%}", number(writers), number(one.day / 1e12), number(one.kept / 1e12)),
                    f"{number(one.shards)} ({bound})",
                    *(number(one.inserts), number(max(1.0, one.inserts / values["inserts_a_shard"]))),
                    number(one.question),
                )
            )
    head = (
        *("Spans/s", "kept", "writers", "TB a day", "TB in 30 days", "shards (bound by)", "inserts/s a shard"),
        *("seconds between a writer's inserts instead", "question over a day, s"),
    )
    return table(head, rows)


def cost_table(values: Values) -> str:
    """Write what a month costs."""
    rows = []
    for name, rate in zip(_RATE_NAMES, RATES, strict=True):
        for share in (1.0, 0.1, 0.01) if rate > RATES[0] else (1.0,):
            one = cost(values, rate, kept=share)
            spans = rate / values["peak"] * 86_400 * 365 / 12 / 1e9
            parts = (number(part) for part in (one.cores, one.disks, one.network, one.all, one.all / spans))
            rows.append((name, f"{share:.0%}", *parts))
    head = ("Spans/s", "kept", "cores, $", "disks, $", "between zones, $", "a month, $", "$ a billion spans")
    return table(head, rows)


def sampling_table(values: Values) -> str:
    """Write what each way to keep less leaves, at the highest rate."""
    roots = 1 / values["trace_spans"]
    ways = (
        ("everything", 1.0, "everything"),
        ("1 trace in 10", 0.1, "shares and medians; counts are a tenth; a rare end user may be missing"),
        ("1 trace in 100", 0.01, "the same, a hundredth; most sessions have gaps"),
        (
            "all traces of 1 end user in 100",
            0.01,
            "sessions and end users that are kept, whole; how many there are is not",
        ),
        (
            "every root, 1 trace in 100 whole",
            roots + (1 - roots) * 0.01,
            "end users, sessions, counts, coverage; not tokens, errors below the root",
        ),
    )
    rate = RATES[-1]
    rows = []
    for way, share, exact in ways:
        one = clickhouse(values, rate * share, processors(values, rate * share, mixed(values, "writer")).processes)
        rows.append(
            (
                way,
                number(rate * share),
                number(one.day / 1e12),
                number(one.shards),
                number(cost(values, rate, kept=share).all),
                exact,
            )
        )
    return table(("Kept", "spans/s", "TB a day", "shards", "a month, $", "What stays exact"), rows)


def simulation_table(_: Values | None = None) -> str:
    """Run every scenario and write what came of it."""
    rows = []
    for name, world in SCENARIOS:
        one = simulate(world)
        rows.append(
            (
                *(name, f"{one.lost / one.made:.1%}", f"{one.lost_after_ok / one.made:.1%}", f"{one.duplicates:.1%}"),
                *(number(percentile(one.lags, percent)) for percent in (50, 99, 100)),
                *(number(percentile(one.root_waits, percent)) for percent in (50, 99)),
                *(f"{one.later_than(wait):.1%}" for wait in (10, 30)),
                number(one.orphans),
            )
        )
    head = (
        *(
            "World",
            "lost by clients",
            "lost after OK",
            "twice",
            "lag p50, s",
            "p99, s",
            "most, s",
            "root after first span p50, s",
            "p99, s",
        ),
        *("root over 10 s late", "over 30 s", "roots lost"),
    )
    return table(head, rows)


@cache
def tables() -> dict[str, str]:
    """Return every table by the name of its markers."""
    groups = read_inputs()
    values = values_of(groups)
    of_values: dict[str, Callable[[Values], str]] = {
        "limits": limits_table,
        "sqlite": sqlite_table,
        "processors": processors_table,
        "clickhouse": clickhouse_table,
        "sampling": sampling_table,
        "cost": cost_table,
        "simulation": simulation_table,
    }
    return {"inputs": inputs_table(groups)} | {name: make(values) for name, make in of_values.items()}


def written(document: str) -> dict[str, str]:
    """Return the tables that stand in a document, by the name of their markers."""
    pattern = f"{re.escape(_BEGIN).replace(re.escape('{}'), '([a-z]+)')}(.*?)<!-- "
    return {name: text.strip() for name, text in re.findall(pattern, document, re.DOTALL)}


def with_tables(document: str) -> str:
    """Return a document with its tables computed anew."""
    for name, text in tables().items():
        begin, end = _BEGIN.format(name), _END.format(name)
        before, found, rest = document.partition(begin)
        if not found:
            raise ValueError(f"{begin} is missing")
        document = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return document


def with_measurements(inputs: str, document: str) -> str:
    """Return the file of inputs with those that are measured set to what stands in a document now."""

    def measured(block: re.Match[str]) -> str:
        value = cell(document, block["row"], block["column"])
        return f"{block['before']}value = {value:g}{block['between']}"

    pattern = (
        r'(?P<before>name = "\w+"\nwhat = "[^"]*"\n)value = [\d.]+'
        r'(?P<between>\nunit = "[^"]*"\nrow = "(?P<row>[^"]*)"\ncolumn = "(?P<column>[^"]*)")'
    )
    return re.sub(pattern, measured, inputs)


def cell(document: str, row: str, column: str) -> float:
    """Return the first number of a cell.

    Args:
        document: Markdown.
        row: How the row begins, its first bar left out.
        column: The heading of the column.

    Raises:
        LookupError: There is no such row with such a column.
    """
    heading: list[str] = []
    for line in document.splitlines():
        cells = [text.strip() for text in line.strip("|").split("|")]
        if not line.startswith("|"):
            heading = []
        elif not heading:
            heading = cells
        elif line.startswith(f"| {row} ") and column in heading:
            found = re.match(r"[\d.,]+", cells[heading.index(column)])
            if found:
                return float(found[0].replace(",", ""))
    raise LookupError(f"no row {row!r} with a column {column!r}")
