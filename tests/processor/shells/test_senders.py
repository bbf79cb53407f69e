"""The links around an exporter: one budget, and tries within it."""

from __future__ import annotations

import asyncio

import pytest

from neatlogs_processor.core.backoff import Backoff
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import ExportError, UpstreamRejectedError, UpstreamUnavailableError
from neatlogs_processor.exporters.sender import Budget, Retry


class Scripted:
    """A sender that raises what it is given, one after the other, and then accepts."""

    def __init__(self, *errors: ExportError) -> None:
        self.errors = list(errors)
        self.requests: list[Request] = []

    async def send(self, request: Request) -> bytes:
        self.requests.append(request)
        if self.errors:
            raise self.errors.pop(0)
        return b"accepted"


class Sleep:
    """Keeps the waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def unavailable(retry_after: float | None = None) -> UpstreamUnavailableError:
    return UpstreamUnavailableError("later", grpc_code=14, retry_after=retry_after)


def retry(sender: Scripted, sleep: Sleep) -> Retry:
    return Retry(sender, backoff=Backoff(initial=1, factor=2, maximum=5), chance=lambda: 0.5, sleep=sleep)


async def test_waits_grow_until_the_upstream_accepts() -> None:
    """Each failed try doubles the bound of the next wait."""
    sender, sleep = Scripted(*(unavailable() for _ in range(5))), Sleep()
    assert await retry(sender, sleep).send(Request(Signal.TRACES, b"x")) == b"accepted"
    assert sleep.waits == [0.5, 1.0, 2.0, 2.5, 2.5]
    assert [request.body for request in sender.requests] == [b"x"] * 6


async def test_a_delay_that_the_upstream_names_is_waited_for() -> None:
    """RetryInfo is a floor under the wait."""
    sender, sleep = Scripted(unavailable(3.0)), Sleep()
    await retry(sender, sleep).send(Request(Signal.TRACES, b""))
    assert 3.0 <= sleep.waits[0] <= 3.75


async def test_a_refusal_is_not_tried_again() -> None:
    """What the upstream refused for good goes straight back."""
    error = UpstreamRejectedError("no", grpc_code=3)
    sender, sleep = Scripted(error), Sleep()
    with pytest.raises(UpstreamRejectedError) as raised:
        await retry(sender, sleep).send(Request(Signal.TRACES, b""))
    assert raised.value is error
    assert (len(sender.requests), sleep.waits) == (1, [])


async def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    """Where no time is left for another try, the last error is the answer, at once."""
    error = unavailable(60.0)
    sender, sleep = Scripted(error), Sleep()
    deadline = asyncio.get_running_loop().time() + 30
    with pytest.raises(UpstreamUnavailableError) as raised:
        await retry(sender, sleep).send(Request(Signal.TRACES, b"", deadline=deadline))
    assert raised.value is error
    assert sleep.waits == []


@pytest.mark.parametrize(
    ("left", "limit", "budget"),
    [
        (None, 8.0, 8.0),
        (100.0, 8.0, 8.0),
        (5.0, 8.0, 4.5),
        (1.0, 8.0, 0.5),
        (0.4, 8.0, 0.2),
        (-3.0, 8.0, 0.0),
    ],
)
async def test_the_budget_ends_before_the_client_s_deadline(left: float | None, limit: float, budget: float) -> None:
    """All tries end half a second before the client's deadline, half of what is left where that is short."""
    sender = Scripted()
    now = asyncio.get_running_loop().time()
    deadline = None if left is None else now + left
    await Budget(sender, limit=limit).send(Request(Signal.TRACES, b"", deadline=deadline))
    assert sender.requests[0].deadline == pytest.approx(now + budget, abs=0.2)
