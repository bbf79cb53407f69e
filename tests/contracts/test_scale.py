"""The plan of docs/scale.md: its tables are computed, its inputs were measured, and what it refers to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.scale.document import (
    BENCHMARKS,
    DOCUMENT,
    RATES,
    cell,
    number,
    tables,
    with_measurements,
    with_tables,
    written,
)
from bench.scale.model import INPUTS_FILE, clickhouse, cost, limits, mixed, processors, read_inputs, sqlite, values_of

REPOSITORY = Path(__file__).resolve().parents[2]
GROUPS = read_inputs()
VALUES = values_of(GROUPS)
INPUTS = [one for group in GROUPS.values() for one in group]


def test_the_tables_are_what_the_inputs_come_to() -> None:
    """Whoever changes an input, the model or the simulation writes the tables anew: `make scale ARGS=--write`."""
    assert written(DOCUMENT.read_text(encoding="utf-8")) == tables()


def test_writing_the_tables_changes_nothing_else() -> None:
    """A document with its tables taken out gets the same ones back."""
    document = DOCUMENT.read_text(encoding="utf-8")
    emptied = re.sub(r"(<!-- \w+: begin [^>]*-->\n)\n.*?\n\n(<!-- \w+: end)", r"\1\2", document, flags=re.DOTALL)
    assert emptied != document
    assert with_tables(emptied) == document


@pytest.mark.parametrize("one", [one for one in INPUTS if "row" in one], ids=lambda one: one["name"])
def test_measured_inputs_are_those_of_the_benchmarks(one: dict[str, Any]) -> None:
    """To within a half, by which a shared machine may be wrong; `make scale ARGS=--write` takes them anew."""
    measured = cell(BENCHMARKS.read_text(encoding="utf-8"), one["row"], one["column"])
    assert one["value"] == pytest.approx(measured, rel=0.5)


def test_measured_inputs_are_taken_from_the_benchmarks() -> None:
    """Writing takes each of them from its cell, and leaves the others, and the words, as they are."""
    inputs, benchmarks = INPUTS_FILE.read_text(encoding="utf-8"), BENCHMARKS.read_text(encoding="utf-8")
    spoiled = re.sub(r"value = [\d.]+(?=\n.*\nrow = )", "value = 987", inputs)
    assert spoiled.count("value = 987") == sum("row" in one for one in INPUTS)
    taken = with_measurements(spoiled, benchmarks)
    assert "987" not in taken
    assert [line for line in taken.splitlines() if not line.startswith("value")] == [
        line for line in inputs.splitlines() if not line.startswith("value")
    ]
    assert taken == with_measurements(inputs, benchmarks)


def test_every_input_says_where_it_comes_from() -> None:
    """Measured in a cell of the benchmarks, or by its own words; none is there twice."""
    assert all(("row" in one and "column" in one) != ("source" in one) for one in INPUTS)
    assert len({one["name"] for one in INPUTS}) == len(INPUTS)


def test_what_shows_it_is_there() -> None:
    """Each test and program that the document names exists."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT.read_text(encoding="utf-8"))
    assert len(named) > 8
    for file, function in named:
        assert f"def {function}" in (REPOSITORY / file).read_text(encoding="utf-8"), f"{file}::{function}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0338, "0.034"), (3.38, "3.4"), (9, "9"), (845, "845"), (845.2, "850"), (11306, "11,000")],
)
def test_a_plan_has_two_digits(value: float, text: str) -> None:
    """More digits would claim more than is known; numbers that are counted one by one are written as they are."""
    assert number(value) == text


def test_twice_the_rate_needs_no_less_of_anything() -> None:
    """Processors, machines, shards, disks and money grow with the rate, and with what is kept of it."""
    for rate in (*RATES, 3e5, 2.5e7):
        for way in ("proxy", "queue", "writer"):
            one, two = (processors(VALUES, times * rate, mixed(VALUES, way)) for times in (1, 2))
            assert (two.processes, two.machines) >= (one.processes, one.machines)
            assert two.cores == pytest.approx(2 * one.cores)
        small, large = clickhouse(VALUES, rate, 10), clickhouse(VALUES, 2 * rate, 10)
        assert large.shards >= small.shards
        assert large.kept == pytest.approx(2 * small.kept)
        assert cost(VALUES, rate, kept=0.1).all < cost(VALUES, rate).all <= cost(VALUES, 2 * rate).all
        assert sqlite(VALUES, 2 * rate).users > sqlite(VALUES, rate).users


def test_a_lost_zone_leaves_enough() -> None:
    """Without one of the zones, the processors that are left are no busier than a core may be."""
    for rate in RATES[1:]:
        one = processors(VALUES, rate, mixed(VALUES, "proxy"))
        left = one.processes * (VALUES["zones"] - 1) / VALUES["zones"]
        assert one.cores / left <= VALUES["busy"] * 1.001


def test_shards_hold_what_is_kept() -> None:
    """Neither a shard's disk nor its CPU is fuller than it may be."""
    for rate in RATES:
        one = clickhouse(VALUES, rate, 10)
        assert one.kept / one.shards <= VALUES["disk"] * 1e12 * VALUES["full"]
        assert one.cores / one.shards <= VALUES["cores"] * VALUES["busy"]


def test_limits_come_in_the_order_in_which_they_are_met() -> None:
    """The first bottleneck of one machine is the page's; a slower machine meets its CPU earlier."""
    found = limits(VALUES)
    assert [at for _, at in found] == sorted(at for _, at in found)
    assert found[0][0].startswith("SQLite")
    slower = dict(limits({**VALUES, "sqlite_service": 100 * VALUES["sqlite_service"]}))
    assert slower["SQLite: its one writer"] < dict(found)["SQLite: its one writer"]
