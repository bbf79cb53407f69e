"""The simulation behind docs/scale.md loses nothing that it does not count, and answers in the right direction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scale.simulation import Outcome, World, percentile, simulate

SMALL = World(traces=300, seconds=30.0, clients=5)
KILLS = tuple((turn % 3, 2.0 + 2 * turn, 3.0 + 2 * turn) for turn in range(14))

worlds = st.builds(
    World,
    traces=st.integers(1, 60),
    seconds=st.sampled_from([1.0, 30.0]),
    spans=st.integers(1, 12),
    long_share=st.sampled_from([0.0, 0.2]),
    clients=st.integers(1, 4),
    export_size=st.sampled_from([1, 8, 512]),
    client_queue=st.sampled_from([8, 2048]),
    patience=st.sampled_from([1.0, 10.0, 60.0]),
    processors=st.integers(1, 3),
    insert_every=st.sampled_from([0.1, 5.0]),
    durable=st.booleans(),
    answers_lost=st.sampled_from([0.0, 0.3]),
    away=st.lists(st.tuples(st.just(0), st.integers(0, 20), st.integers(21, 40)), max_size=1).map(tuple),
    store_away=st.none() | st.tuples(st.floats(0, 20), st.floats(20, 60)),
    copy_takes=st.sampled_from([0.0, 3.0]),
    replica_lost=st.none() | st.floats(0, 40),
    quorum=st.booleans(),
    seed=st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_every_span_is_stored_or_was_given_up_by_a_client(world: World) -> None:
    """Whatever is killed, lost, sent twice or too much: nothing else is missing, and nothing is stored twice."""
    outcome = simulate(world)
    assert outcome.made == outcome.stored + outcome.lost + outcome.lost_after_ok
    assert not outcome.lost_after_ok or (world.replica_lost is not None and not world.quorum)
    assert outcome.copies >= outcome.stored == len(outcome.lags)
    assert min(outcome.lags, default=0) >= 0
    assert min(outcome.root_waits, default=0) >= 0
    assert len(outcome.root_waits) + outcome.orphans <= world.traces


def test_the_same_seed_is_the_same_run() -> None:
    """A table of the document can be made again."""
    assert simulate(SMALL) == simulate(SMALL)
    assert simulate(SMALL) != simulate(replace(SMALL, seed=2))


def lag(outcome: Outcome) -> float:
    """The lag that a span in a hundred exceeds."""
    return percentile(outcome.lags, 99)


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        ({"long_share": 0.2}, lambda outcome: outcome.later_than(10)),
        ({"median": 20.0}, lambda outcome: percentile(outcome.root_waits, 50)),
        ({"answers_lost": 0.2}, lambda outcome: outcome.duplicates),
        ({"away": KILLS}, lambda outcome: outcome.duplicates),
        ({"insert_every": 4.0}, lag),
        ({"export_every": 20.0}, lag),
        ({"store_away": (10.0, 16.0)}, lag),
        ({"store_away": (5.0, 29.0)}, lambda outcome: outcome.lost),
        ({"client_queue": 8}, lambda outcome: outcome.lost),
        ({"copy_takes": 3.0}, lag),
        ({"copy_takes": 3.0, "replica_lost": 20.0}, lambda outcome: outcome.lost_after_ok),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_it_worse_makes_it_worse(change, measure) -> None:
    """Longer traces, lost answers, kills, slow inserts, a store that is away and small queues show in their column."""
    assert measure(simulate(replace(SMALL, **change))) > measure(simulate(SMALL))


@pytest.mark.parametrize("change", [{}, {"away": KILLS}, {"store_away": (5.0, 29.0)}, {"away": ((0, 5.0, 25.0),)}])
def test_a_durable_queue_keeps_what_was_acknowledged(change) -> None:
    """Behind it neither a processor that is killed nor a store that is away costs a span."""
    assert simulate(replace(SMALL, durable=True, **change)).lost == 0
    assert simulate(replace(SMALL, durable=False, **change)).lost >= 0


def test_a_quorum_keeps_what_was_acknowledged() -> None:
    """With it a replica that is lost for good takes nothing along that a client was told is kept."""
    lost = replace(SMALL, copy_takes=3.0, replica_lost=20.0)
    assert simulate(lost).lost_after_ok > 0
    assert simulate(replace(lost, quorum=True)).lost_after_ok == 0


def test_percentiles_of_little() -> None:
    """Of nothing it is 0, of one value that value, and the hundredth is the greatest."""
    assert (percentile([], 99), percentile([7.0], 50), percentile([1.0, 2.0, 9.0], 100)) == (0.0, 7.0, 9.0)
