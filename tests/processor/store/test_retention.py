"""Retention: what goes, what stays, what goes with it, and that nobody waits for it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store.files import checkpoint, open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.retention import DAY, Limits, bytes_used, prune
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.processor import until
from support.store_contents import assert_sound, folder_in_memory, rollups_of, spans_of
from support.store_oracle import Sent
from support.store_parts import MIB, POLICY, START, store_at, trace, traces
from support.store_strategies import request


@dataclass
class Kept:
    """A store that is written and pruned by hand."""

    path: Path
    connection: sqlite3.Connection
    writing: Writing

    def write(self, *sent: list[Sent], received: int = START, overrides: tuple[Override, ...] = ()) -> None:
        """Write traces in one transaction that begins at this time."""
        body = request([one for spans in sent for one in spans])
        self.writing.write([(read_request(body, POLICY), overrides)], received)

    def prune(self, limits: Limits, now: int, *, spans: int = 1000) -> int:
        """Take steps until there is no more to do; return how many spans went."""
        gone = 0
        while True:
            step = prune(self.connection, limits, now, spans=spans)
            if step.traces:
                self.writing.forget_shared()
            gone += step.spans
            if not step.more:
                return gone

    def count(self, table: str) -> int:
        """Count a table's rows."""
        (count,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # names of our own; values are bound
        return int(count)

    def numbers(self) -> set[int]:
        """Return the numbers of the traces that are there."""
        return {int.from_bytes(trace_id, "big") - 1 for trace_id in rollups_of(self.path)}


@contextlib.contextmanager
def kept_at(path: Path) -> Iterator[Kept]:
    """Open a store for writing."""
    with contextlib.closing(open_writer(path)) as connection:
        yield Kept(path, connection, Writing(connection))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """An empty store."""
    with kept_at(tmp_path / "traces.db") as store:
        yield store


def test_age_counts_from_arrival_to_the_nanosecond(kept: Kept) -> None:
    """A trace goes when its first span arrived more than the limit ago; the times that spans state are no reason."""
    kept.write(trace(0), received=START - 1)
    kept.write(trace(1), received=START)
    kept.write(trace(2), received=START + 1)
    assert kept.prune(Limits(max_age=DAY), START + DAY) == 1
    assert kept.numbers() == {1, 2}


def test_later_spans_do_not_make_a_trace_younger(kept: Kept) -> None:
    """A trace that somebody adds to for ever goes like any other, with all its spans."""
    spans = trace(0, spans=3)
    kept.write(spans[:1], received=START)
    kept.write(spans[1:], received=START + 2 * DAY)
    assert kept.prune(Limits(max_age=DAY), START + 2 * DAY) == 3
    assert kept.count("spans") == 0


def test_what_goes_leaves_nothing_behind(kept: Kept) -> None:
    """With a trace go its spans, blocks, overrides and, once nobody uses them any more, resources and scopes."""
    override = Override(trace(0)[0].span.trace_id, (1).to_bytes(8, "big"), "shop", "span", Place.CHILD, "key")
    scope = Override(b"", b"", "shop", "library", Place.SCOPE, "key")
    kept.write(trace(0, spans=3, service="old"), received=START, overrides=(override, scope))
    assert kept.count("overrides") == 2
    kept.write(trace(1, spans=2, service="new"), received=START + 10 * DAY)
    kept.prune(Limits(max_age=DAY), START + 10 * DAY)
    counts = {table: kept.count(table) for table in ("traces", "spans", "blocks", "overrides", "resources", "scopes")}
    assert counts == {"traces": 1, "spans": 2, "blocks": 1, "overrides": 0, "resources": 1, "scopes": 1}
    assert_sound(kept.path)


def test_an_end_user_is_first_seen_in_what_is_left(kept: Kept) -> None:
    """After a clean-up a user's first and last visit, sessions and sums are those of the traces that are there."""
    kept.write(trace(0, spans=4, user="alice"), received=START)
    kept.write(trace(1, spans=2, user="alice"), trace(2, user="bob"), received=START + 10 * DAY)
    everybody = View(Tab.USERS, period=ALL_TIME)
    with contextlib.closing(SqliteReader(kept.path)) as reader:
        before = {row.end_user: row for row in reader.users(everybody, now=START).rows}
        kept.prune(Limits(max_age=DAY), START + 10 * DAY)
        after = {row.end_user: row for row in reader.users(everybody, now=START).rows}
    assert (before["alice"].traces, before["alice"].spans) == (2, 6)
    assert (after["alice"].traces, after["alice"].spans) == (1, 2)
    assert after["bob"] == before["bob"]


@settings(max_examples=60)
@given(
    arrivals=st.lists(st.integers(-3 * DAY, 3 * DAY), min_size=1, max_size=12),
    again=st.lists(st.tuples(st.integers(0, 11), st.integers(-3 * DAY, 3 * DAY)), max_size=4),
    services=st.lists(st.sampled_from(["a", "b"]), min_size=12, max_size=12),
    now=st.integers(-3 * DAY, 6 * DAY),
    step=st.sampled_from([1, 3, 1000]),
)
def test_clocks_may_jump(
    arrivals: list[int], again: list[tuple[int, int]], services: list[str], now: int, step: int
) -> None:
    """Whatever the clock said, just what looks older than the limit goes; what stays is whole, with its resources."""
    with folder_in_memory() as folder, kept_at(folder / "traces.db") as kept:
        for number, (arrival, service) in enumerate(zip(arrivals, services, strict=False)):
            kept.write(trace(number, spans=3, service=service)[:2], received=START + arrival)
        for number, arrival in again:
            if number < len(arrivals):
                kept.write(trace(number, spans=3, service="later")[2:], received=START + arrival)
        kept.prune(Limits(max_age=DAY), START + now, spans=step)
        assert kept.numbers() == {number for number, arrival in enumerate(arrivals) if arrival >= now - DAY}
        assert_sound(kept.path)


def test_a_resource_outlives_a_clock_that_is_set_back(kept: Kept) -> None:
    """A resource that came after the clock was set back stays as long as the trace from before that refers to it."""
    kept.write(trace(0), received=START + 365 * DAY)
    kept.write(trace(0, spans=2, service="later")[1:], received=START)
    kept.write(trace(1), received=START - 10 * DAY)
    assert kept.prune(Limits(max_age=DAY), START) == 1
    assert kept.numbers() == {0}
    assert_sound(kept.path)


def test_the_oldest_go_until_the_size_fits(kept: Kept) -> None:
    """Over the limit traces go in the order of their arrival, and no more of them than it takes."""
    for number in range(60):
        kept.write(trace(number, spans=5, padding=10_000))
    limit = bytes_used(kept.connection) // 2
    assert kept.prune(Limits(max_bytes=limit), START, spans=5) > 0
    left = kept.numbers()
    assert left == set(range(60 - len(left), 60))
    assert limit * 0.9 < bytes_used(kept.connection) <= limit
    assert_sound(kept.path)


def test_freed_pages_go_back_to_the_disk(kept: Kept) -> None:
    """The file itself becomes smaller: beyond a tenth of the limit no page stays unused."""
    for number in range(60):
        kept.write(trace(number, spans=5, padding=10_000))
    checkpoint(kept.connection)
    before = kept.path.stat().st_size
    kept.prune(Limits(max_bytes=before // 4), START)
    checkpoint(kept.connection)
    assert kept.path.stat().st_size < before * 0.4
    assert_sound(kept.path)


def test_one_trace_that_is_larger_than_a_step_goes_alone(kept: Kept) -> None:
    """A step takes a trace that is larger than it may be, but no other beside it."""
    kept.write(trace(0, spans=30), trace(1, spans=2), trace(2, spans=2))
    step = prune(kept.connection, Limits(max_age=0), START + 1, spans=10)
    assert (step.traces, step.spans, step.more, step.by_age) == (1, 30, True, True)
    step = prune(kept.connection, Limits(max_age=0), START + 1, spans=10)
    assert (step.traces, step.spans) == (2, 4)


def test_no_limits_keep_everything(kept: Kept) -> None:
    """With neither an age nor a size nothing ever goes."""
    kept.write(trace(0), received=0)
    assert kept.prune(Limits(), START) == 0
    assert kept.numbers() == {0}


async def test_writes_go_on_between_the_steps(tmp_path: Path) -> None:
    """While a large clean-up is under way requests are acknowledged, and nothing of them goes with it."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        for start in range(0, 6000, 200):
            await parts.store.send(traces(*(trace(10**6 + start + more) for more in range(200))))
    async with store_at(path, Limits(max_age=DAY)) as parts:
        parts.clock.now += 2 * DAY
        between: set[int] = set()
        while parts.pruned() < 6000:
            await parts.keep()
            between.add(parts.pruned())
        await until(lambda: parts.pruned() == 6000)
        assert len(between) > 3
    assert set(spans_of(path)) == {one.place for number in parts.kept for one in trace(number)}
    assert_sound(path)


@pytest.mark.parametrize(
    ("limits", "cause"), [(Limits(max_age=DAY), "age"), (Limits(max_bytes=MIB), "size")], ids=["age", "size"]
)
async def test_what_goes_is_counted_by_cause(
    tmp_path: Path, limits: Limits, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The counter says how many spans went for which limit, and one log line names the flag."""
    caplog.set_level("INFO")
    async with store_at(tmp_path / "traces.db", limits) as parts:
        await parts.keep(padding=10_000, spans=5, count=20)
        parts.clock.now += 2 * DAY
        await parts.keep()
        await until(lambda: parts.pruned() > 0)
        counted = parts.telemetry.counters.store_pruned
        assert counted.get(cause) == counted.total() > 0
    assert f"--store-max-{cause}" in caplog.text


async def test_a_quiet_store_cleans_up_by_itself(tmp_path: Path) -> None:
    """Traces go when they are too old although nothing arrives any more: at the start, and then now and again."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        await parts.keep(count=3)
    async with store_at(path, Limits(max_age=DAY), clock=lambda: START + 3 * DAY) as parts:
        await until(lambda: parts.pruned() == 3)


async def test_a_clean_up_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the database refuses a deletion, that is logged, writes go on, and the next try succeeds."""
    path = tmp_path / "traces.db"
    with kept_at(path) as kept:
        kept.write(trace(10**6))
        kept.connection.execute(
            "CREATE TRIGGER obstacle BEFORE DELETE ON traces BEGIN SELECT raise(ABORT, 'not now'); END"
        )
        async with store_at(path, Limits(max_age=DAY)) as parts:
            parts.clock.now += 2 * DAY
            await parts.keep(count=3)
            await until(lambda: "could not be cleaned up: not now" in caplog.text)
            assert parts.pruned() == 0
            kept.connection.execute("DROP TRIGGER obstacle")
            await parts.keep()
            await until(lambda: parts.pruned() == 1)
    assert_sound(path)
