"""Waits between tries: exponential, jittered, never shorter than asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.core.backoff import Backoff, overload_delay

CHANCE = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (6, 5.0), (1_000_000, 5.0)]
)
def test_the_bound_doubles_until_its_maximum(attempt: int, bound: float) -> None:
    """With full jitter a wait is a random part of a bound that doubles."""
    backoff = Backoff(initial=0.5, factor=2, maximum=5)
    assert backoff.delay(attempt, chance=0.0) == 0.0
    assert backoff.delay(attempt, chance=0.5) == bound / 2


@given(attempt=st.integers(1, 10_000), chance=CHANCE, retry_after=st.floats(0, 3600))
def test_a_wait_is_never_shorter_than_the_upstream_asked_for(attempt: int, chance: float, retry_after: float) -> None:
    """RetryInfo is a floor, with at most a quarter on top."""
    delay = Backoff().delay(attempt, chance=chance, retry_after=retry_after)
    assert retry_after <= delay <= retry_after * 1.25


@given(chance=CHANCE)
def test_an_overloaded_processor_asks_for_one_to_two_seconds(chance: float) -> None:
    """The delay of an overload is jittered between one and two seconds."""
    assert 1 <= overload_delay(chance) <= 2  # 1 plus the largest float below 1 rounds to 2
