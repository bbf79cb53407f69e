"""Blocks that requests share, or leave in another order than they entered them: nobody's user stays behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys

WAIT = 30.0  # seconds at most


def overlapping(block: Any, user: threading.local, done: Any) -> None:
    """Enter one block object in two threads, leave it first in the one that entered it first, then go on in both."""
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        user.id = "first"
        with block:
            first_in.set()
            assert second_in.wait(WAIT)
        done("first")
        first_out.set()

    def second() -> None:
        user.id = "second"
        assert first_in.wait(WAIT)
        with block:
            second_in.set()
            assert first_out.wait(WAIT)
            done("in second")
        done("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)


def test_one_identify_in_several_threads(recorded) -> None:
    """An identify() object that serves many threads leaves each thread as it found it."""
    user = threading.local()

    def work(name: str) -> None:
        with recorded.tracer.start_as_current_span(name):
            pass

    overlapping(neatlogs.identify(end_user_id=lambda: user.id), user, work)
    assert recorded.id_of("first") is None
    assert recorded.id_of("in second") == "second"
    assert recorded.id_of("second") is None


def test_one_trace_in_several_threads(recorded) -> None:
    """A trace() object that serves many threads ends in each of them the span that it has opened there."""
    user = threading.local()
    inside: dict[str, bool] = {}

    def work(name: str) -> None:
        inside[name] = trace_api.get_current_span().is_recording()

    overlapping(neatlogs.trace("chat", end_user_id=lambda: user.id), user, work)
    assert inside == {"first": False, "in second": True, "second": False}
    assert [span.attributes[keys.END_USER_ID] for span in recorded.spans] == ["first", "second"]


async def test_one_trace_in_several_tasks(recorded) -> None:
    """The same in tasks, however they take turns."""
    block = neatlogs.trace("chat")
    order = asyncio.Queue[int]()

    async def request(number: int) -> None:
        async with block:
            neatlogs.set_end_user(f"u{number}")
            await order.put(number)
            for _ in range(5 - number):
                await asyncio.sleep(0)
            assert neatlogs.current_end_user().id == f"u{number}"
        assert trace_api.get_current_span() is trace_api.INVALID_SPAN

    await asyncio.gather(*(request(number) for number in range(5)))
    assert sorted(span.attributes[keys.END_USER_ID] for span in recorded.spans) == [f"u{n}" for n in range(5)]


def identified(user: str) -> Any:
    with neatlogs.identify(end_user_id=user):
        yield 1
        yield 2


def traced(user: str) -> Any:
    with neatlogs.trace("chat", end_user_id=user):
        yield 1
        yield 2


@pytest.mark.parametrize("generator", [identified, traced])
def test_plain_generators_that_overlap(recorded, generator) -> None:
    """Where generators hold blocks across their yields and end in the order in which they began, no block stays."""
    before = context_api.get_current()
    for _ in zip(generator("first"), generator("second"), generator("third"), strict=True):
        pass
    assert context_api.get_current() is before
    rolling = [generator("0")]
    next(rolling[0])
    for number in range(1, 50):
        rolling.append(generator(str(number)))
        next(rolling[-1])
        rolling.pop(0).close()
    rolling.pop().close()
    assert context_api.get_current() is before


def test_a_block_that_outlives_the_call_around_it(recorded) -> None:
    """A generator that was begun inside a decorated call and ends after it does not bring that call back."""

    @neatlogs.span(end_user_id="first")
    def begin() -> Any:
        generator = identified("second")
        next(generator)
        return generator

    before = context_api.get_current()
    begin().close()
    assert context_api.get_current() is before
