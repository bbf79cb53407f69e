"""What the pipeline does with requests, apart from the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.payloads import KINDS, Kind
from bench.payloads import request as batch
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import BACKENDS, IdentityKey
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import ProcessorError, RequestTooLargeError
from neatlogs_processor.pipeline import Pipeline
from neatlogs_processor.telemetry import Telemetry
from support.spans import END_USER, attributes, request, root


class Broken:
    """A sender with a bug whose message quotes the payload."""

    async def send(self, request: Request) -> bytes:
        raise ZeroDivisionError(f"cannot divide {request.body!r}")


class Accepting:
    """A sender that keeps what it was given."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> bytes:
        self.requests.append(request)
        return b""


def pipeline(
    sender: Broken | Accepting,
    telemetry: Telemetry,
    *,
    size: int = 1000,
    at_once: int = 1,
    emit: Sequence[IdentityKey] = (),
) -> Pipeline:
    return Pipeline(
        dict.fromkeys(Signal, sender),
        treat=Treatment(EndUserPolicy(), emit=Emitting(emit) if emit else None),
        max_message_size=size,
        max_concurrent_requests=at_once,
        telemetry=telemetry,
        chance=lambda: 0.5,
    )


async def test_a_bug_costs_one_request_and_shows_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception becomes an internal error, counted and logged without its message; the next goes on."""
    telemetry = Telemetry()
    broken = pipeline(Broken(), telemetry)
    for _ in range(2):
        with pytest.raises(ProcessorError) as raised:
            await broken.handle(Request(Signal.TRACES, request(root("u_812"))))
        assert type(raised.value) is ProcessorError
    assert telemetry.counters.failures.total() == 2
    assert telemetry.counters.spans_refused.get("internal") == 2
    assert "ZeroDivisionError" in caplog.text
    assert "u_812" not in caplog.text


async def test_a_body_over_the_limit_is_refused_whatever_the_receiver_let_through() -> None:
    """The pipeline bounds the size for every receiver, and names the setting."""
    accepting = Accepting()
    with pytest.raises(RequestTooLargeError, match="--max-message-size"):
        await pipeline(accepting, Telemetry()).handle(Request(Signal.LOGS, b"x" * 1001))
    assert accepting.requests == []


async def test_the_findings_travel_with_the_enforced_body() -> None:
    """A sender sees the request after the rule, with counts and overrides."""
    accepting = Accepting()
    body = request(root(neatlogs__end_user__id="u_1"))
    await pipeline(accepting, Telemetry()).handle(Request(Signal.TRACES, body))
    [sent] = accepting.requests
    assert sent.body is body
    assert sent.enforced is not None
    assert sent.enforced.counts.roots_with_identity == 1


CRUMBS = b"\x0a\x00" * 2**20
"""Two bytes for each empty message: of all requests of its size the one that takes longest to walk."""


async def test_a_request_that_takes_long_to_walk_holds_nobody_up() -> None:
    """While the rule is applied to a large request, others are answered."""
    accepting = Accepting()
    both = pipeline(accepting, Telemetry(), size=len(CRUMBS), at_once=2)
    long = asyncio.create_task(both.handle(Request(Signal.TRACES, CRUMBS)))
    await asyncio.sleep(0)
    await both.handle(Request(Signal.TRACES, request(root())))
    assert not long.done()
    await long
    assert [len(sent.body) for sent in accepting.requests] == [len(request(root())), len(CRUMBS)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_usual_batch_is_walked_at_once(kind: Kind) -> None:
    """A batch as large as SDKs make them is dealt with before anything else runs: a thread would cost more."""
    body = batch(kind, 512, "every")
    accepting = Accepting()
    soon = asyncio.create_task(pipeline(accepting, Telemetry(), size=len(body)).handle(Request(Signal.TRACES, body)))
    await asyncio.sleep(0)
    assert len(accepting.requests) == 1
    await soon


async def test_a_very_large_request_is_walked_beside_the_loop() -> None:
    """However usual it looks, a request of many batches leaves the loop free."""
    body = batch("llm", 512, "nowhere") * 2
    accepting = Accepting()
    later = asyncio.create_task(pipeline(accepting, Telemetry(), size=len(body)).handle(Request(Signal.TRACES, body)))
    await asyncio.sleep(0)
    assert accepting.requests == []
    await later
    assert accepting.requests[0].body is body


async def test_roots_to_edit_hold_nobody_up() -> None:
    """With a stage beside the rule each root costs, however usual it looks; a small request is still done at once."""
    accepting = Accepting()
    for spans, at_once in ((100, True), (1_500, False)):
        span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, attributes=attributes({END_USER: "u", "path": "/" * 90}))
        body = request(*[span] * spans)
        busy = pipeline(accepting, Telemetry(), size=len(body), emit=BACKENDS["phoenix"])
        soon = asyncio.create_task(busy.handle(Request(Signal.TRACES, body)))
        await asyncio.sleep(0)
        assert bool(accepting.requests) == at_once
        await soon
        assert accepting.requests.pop().body.count(b"\x07user.id") == spans


async def test_a_client_that_leaves_is_counted_until_its_request_is_let_go() -> None:
    """Work that cannot be broken off keeps its place among the requests in flight, so that leaving buys no room."""
    telemetry = Telemetry()
    accepting = Accepting()
    gone = asyncio.create_task(pipeline(accepting, telemetry, size=len(CRUMBS)).handle(Request(Signal.TRACES, CRUMBS)))
    for _ in range(3):
        await asyncio.sleep(0)
        gone.cancel()
    await asyncio.sleep(0)
    assert telemetry.gauges.requests_in_flight.read() == 1
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert telemetry.gauges.requests_in_flight.read() == 0
    assert accepting.requests == []
