"""Both engines say the same: the same traces, the same filters and views, every answer compared field by field."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.view import ALL_TIME, Period, View
from support.stored import DAY, MINUTE, NOW, SECOND, Stored
from support.stored_strategies import filters, stores
from support.two_engines import Database, everything_else, lists_of, orders_of, two_engines

# `make conformance` takes its time. What fails is shown as it was drawn: making it smaller takes minutes.
EXAMPLES = int(os.environ.get("CONFORMANCE_EXAMPLES", "3"))

MANY = [
    Stored(
        number,
        end_user=f"user {number % 7}" if number % 11 else None,
        metadata={"plan": ["pro", "free", "Team"][number % 3], "seats": number} if number % 4 else None,
        workflow=["chat", "Chat", None][number % 3],
        session=f"session {number % 13}" if number % 6 else None,
        services=("shop", "Straße", "mail")[: 1 + number % 3],
        status=["unset", "ok", "error"][number % 3],
        tags=("alpha", "Beta")[: number % 3],
        tokens=number % 3,
        spans=1 + number % 4,
        errors=number % 2,
        duration=(number % 5) * SECOND,
        ago=(number % 9) * DAY + number * MINUTE,
        root_received=number % 10 != 9,
    )
    for number in range(60)
]
OVERRIDES = [
    Override(bytes.fromhex(MANY[number].trace_id), bytes([number]) * 8, "shop", f"step {number % 2}", place, key)
    for number in range(6)
    for place, key in ((Place.CHILD, "neatlogs.end_user.id"), (Place.EVENT, "neatlogs.end_user.metadata"))
]
OVERRIDES.append(Override(b"", b"", "shop", "a scope", Place.SCOPE, "neatlogs.end_user.id"))
PERIODS = {
    "the default": View().period,
    "all time": ALL_TIME,
    "two hours": Period(last=120 * MINUTE),
    "from a time": Period(start=NOW - 3 * DAY),
    "to a time": Period(end=NOW - 3 * DAY),
    "from a time to a time": Period(start=NOW - 5 * DAY, end=NOW - 2 * DAY),
    "nothing at all": Period(start=NOW - 1, end=NOW),
}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stores(), st.lists(st.lists(filters(), min_size=1, max_size=2), min_size=8, max_size=8))
def test_filters_select_the_same(database: Database, traces: list[Stored], questions: list[list[Filter]]) -> None:
    """Each filter, alone and with another, selects the same traces, sessions and end users, with the same sums."""
    with two_engines(database, traces) as engines:
        for question in questions:
            note(f"{question} of {traces}")
            view = View(filters=tuple(question), period=ALL_TIME)
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)


@pytest.mark.parametrize("period", PERIODS.values(), ids=PERIODS)
def test_lists_and_sums_of_a_period_are_the_same(database: Database, period: Period) -> None:
    """Traces, sessions and end users of a period are the same, with all that a row says."""
    with two_engines(database, MANY, OVERRIDES) as engines:
        view = View(period=period, limit=7)
        assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)


def test_orders_and_pages_are_the_same(database: Database) -> None:
    """In every order, page by page, the values that a list is sorted by follow each other alike."""
    with two_engines(database, MANY) as engines:
        view = View(period=ALL_TIME, limit=23)
        assert orders_of(engines.clickhouse, view) == orders_of(engines.sqlite, view)


@pytest.mark.parametrize("period", [ALL_TIME, View().period], ids=["all time", "the default"])
def test_what_stands_beside_the_lists_is_the_same(database: Database, period: Period) -> None:
    """Charts, coverage, autocompletion, neighbours, and each trace, end user and session whole, are the same."""
    with two_engines(database, MANY, OVERRIDES) as engines:
        view = View(period=period)
        asked = [trace.trace_id for trace in MANY[::17]]
        assert everything_else(engines.clickhouse, view, asked) == everything_else(engines.sqlite, view, asked)


def test_an_empty_store_answers_the_same(database: Database) -> None:
    """Where there is nothing, both say so in the same way."""
    with two_engines(database, []) as engines:
        for period in (ALL_TIME, View().period):
            view = View(period=period)
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)
            assert everything_else(engines.clickhouse, view, ()) == everything_else(engines.sqlite, view, ())
