"""wrap() on functions, generators and plain objects: what counts as a call, and when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import neatlogs_otel as neatlogs
from neatlogs_otel import _calls
from support.recording import Recording, remote_parent

wrap = functools.partial(neatlogs.wrap, instrument=False)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within a time that only a failure takes."""
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(1500)) and condition()


def parents(recorded: Recording, root: str) -> set[str | None]:
    """The names of the parents of all other spans."""
    ids = {span.context.span_id: span.name for span in recorded.spans}
    return {ids.get(span.parent.span_id) if span.parent else None for span in recorded.spans if span.name != root}


def test_a_function_call_is_a_trace(recorded) -> None:
    """A wrapped function keeps its name and signature, and its spans are below the root."""

    @wrap
    def answer(question: str, *, loud: bool = False) -> str:
        with recorded.tracer.start_as_current_span("inner"):
            return question.upper() if loud else question

    assert answer("why", loud=True) == "WHY"
    assert answer.__name__ == "answer"
    assert list(inspect.signature(answer).parameters) == ["question", "loud"]
    assert [span.name for span in recorded.spans] == ["inner", "answer"]
    assert parents(recorded, "answer") == {"answer"}


def test_only_the_outermost_call_gets_a_root(recorded) -> None:
    """A wrapped call inside a wrapped call belongs to the outer one's trace."""
    inner = wrap(lambda: None)
    outer = wrap(inner.__wrapped__)

    def work() -> None:
        inner()
        outer()

    wrap(work)()
    assert [span.name for span in recorded.spans] == ["work"]


def test_a_remote_parent_counts_as_active(recorded) -> None:
    """Where a context with a remote parent was extracted, the trace has its root elsewhere and gets none here."""
    token = context_api.attach(remote_parent())
    try:
        assert wrap(lambda: 1)() == 1
    finally:
        context_api.detach(token)
    assert recorded.spans == ()


def test_suppressed_instrumentation_is_respected(recorded) -> None:
    """Where instrumentation is suppressed, no root is opened."""
    token = context_api.attach(context_api.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        assert wrap(lambda: 1)() == 1
    finally:
        context_api.detach(token)
    assert recorded.spans == ()


def test_sampled_out_calls_stay_together(record) -> None:
    """A root that is sampled out still leads its trace: what runs below it is sampled out with it, silently."""
    recorded = record(sampler=ALWAYS_OFF)

    def work() -> bool:
        return trace_api.get_current_span().get_span_context().is_valid

    assert wrap(work)()
    assert recorded.spans == ()


async def test_a_coroutine_function(recorded) -> None:
    """A wrapped coroutine function is one still, and its call is one root until the result is there."""

    @wrap
    async def answer() -> int:
        await asyncio.sleep(0)
        with recorded.tracer.start_as_current_span("inner"):
            return 42

    assert inspect.iscoroutinefunction(answer)
    task = asyncio.create_task(answer())
    assert await task == 42
    assert parents(recorded, "answer") == {"answer"}


async def test_a_future_is_handed_out_as_it_is(recorded) -> None:
    """A function that returns a running future gets it back unchanged; the root ends when the future is done."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    assert wrap(lambda: future)() is future
    assert recorded.spans == ()
    future.set_exception(LookupError("gone"))
    with pytest.raises(LookupError):
        await future
    await asyncio.sleep(0)  # The future's callbacks run in the next turn of the loop.
    assert recorded.spans[0].status.status_code is StatusCode.ERROR


async def test_a_cancelled_call_ends_its_root(recorded) -> None:
    """A cancelled call ends its root; a cancellation is no error."""
    started = asyncio.Event()

    @wrap
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.status.status_code for span in recorded.spans] == [StatusCode.UNSET]


async def test_concurrent_calls_do_not_mix(recorded) -> None:
    """Two hundred concurrent calls under different users are two hundred traces, each with its own user."""

    @wrap
    async def answer(user: str) -> str:
        await asyncio.sleep(0)
        trace_api.get_current_span().set_attribute("asked.by", user)
        return user

    async def request(user: str) -> None:
        with neatlogs.identify(end_user_id=user):
            await answer(user)

    await asyncio.gather(*(request(f"u{number}") for number in range(200)))
    assert len({span.context.trace_id for span in recorded.spans}) == 200
    assert all(span.attributes["asked.by"] == span.attributes["neatlogs.end_user.id"] for span in recorded.spans)


def words(recorded: Recording) -> Iterator[str]:
    for word in ("a", "b", "c"):
        with recorded.tracer.start_as_current_span(f"make {word}"):
            pass
        yield word


def test_a_generator_runs_below_its_root_wherever_it_is_consumed(recorded) -> None:
    """Each step of a returned generator runs under the call's root, also in another thread and inside another trace."""
    stream = wrap(words)(recorded)
    assert inspect.isgenerator(stream)
    found = [next(stream)]

    def consume() -> None:
        with recorded.tracer.start_as_current_span("other trace"):
            found.extend(stream)

    thread = threading.Thread(target=consume)
    thread.start()
    thread.join()
    assert found == ["a", "b", "c"]
    made = [span for span in recorded.spans if span.name.startswith("make")]
    assert {span.parent.span_id for span in made} == {recorded.named("words").context.span_id}


def test_a_generator_that_holds_a_span_across_a_yield(recorded) -> None:
    """A span that a generator holds open across its yields is the parent of what its later steps open."""

    def stream() -> Iterator[int]:
        with recorded.tracer.start_as_current_span("held"):
            yield 1
            with recorded.tracer.start_as_current_span("later"):
                yield 2

    steps = wrap(stream)()
    for _ in steps:
        assert not trace_api.get_current_span().get_span_context().is_valid
    assert recorded.named("later").parent == recorded.named("held").context
    assert recorded.named("held").parent == recorded.named("stream").context


def test_send_throw_and_return_of_a_generator(recorded) -> None:
    """send() and throw() reach the generator, and its return value reaches `yield from`."""

    def echo() -> Iterator[Any]:
        try:
            got = yield "ready"
            yield got
        except LookupError:
            yield "caught"
        return "done"

    stream = wrap(echo)()
    assert next(stream) == "ready"
    assert stream.send("x") == "x"
    assert stream.throw(LookupError()) == "caught"

    def outer() -> Iterator[Any]:
        assert (yield from stream) == "done"

    assert list(outer()) == []
    assert [span.status.status_code for span in recorded.spans] == [StatusCode.UNSET]


async def test_an_asynchronous_generator(recorded) -> None:
    """An asynchronous generator keeps its root open until it is exhausted or closed."""

    async def stream() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            with recorded.tracer.start_as_current_span("step"):
                pass
            yield number

    assert [number async for number in wrap(stream)()] == [0, 1, 2]
    assert parents(recorded, recorded.spans[-1].name) == {recorded.spans[-1].name}
    closed = wrap(stream)()
    assert await anext(closed) == 0
    await closed.aclose()
    assert sum(span.parent is None for span in recorded.spans) == 2


def test_a_dropped_stream_ends_its_root(recorded) -> None:
    """A stream that is neither exhausted nor closed ends its root when nobody holds it any more."""
    stream = wrap(words)(recorded)
    next(stream)
    del stream
    gc.collect()
    assert eventually(lambda: any(span.name == "words" for span in recorded.spans))


def test_the_finalizer_of_a_dropped_stream_takes_no_lock(recorded) -> None:
    """Collecting a stream while a lock of ours is held cannot deadlock: the finalizer only appends to a queue."""
    stream = wrap(words)(recorded)
    with _calls._dropped._lock:
        thread = threading.Thread(target=next, args=(stream,))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        collected = threading.Event()

        def drop() -> None:
            nonlocal stream
            del stream
            gc.collect()
            collected.set()

        threading.Thread(target=drop, daemon=True).start()
        assert collected.wait(30)
        assert not any(span.name == "words" for span in recorded.spans)
    assert eventually(lambda: any(span.name == "words" for span in recorded.spans))


def test_a_context_manager_that_a_call_returns(recorded) -> None:
    """The root of a call that returns a context manager ends with the block; leaving it twice is once."""

    @contextlib.contextmanager
    def session() -> Iterator[str]:
        with recorded.tracer.start_as_current_span("setup"):
            pass
        yield "open"

    with wrap(session)() as state:
        assert state == "open"
        assert [span.name for span in recorded.spans] == ["setup"]
    assert parents(recorded, recorded.spans[-1].name) == {recorded.spans[-1].name}


def test_data_is_handed_out_as_it_is(recorded) -> None:
    """Lists, dicts and other data that a call returns are not proxied, though they can be iterated."""
    for data in ([1], {"a": 1}, "text", (1, 2), None, range(3)):
        assert wrap(lambda data=data: data)() is data
    assert len(recorded.spans) == 6


class Agent:
    """An object of an application, with a part of its own and data."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.settings = {"model": "m"}
        self._private = Memory()

    def run(self) -> str:
        return self.memory.read()

    def __call__(self) -> str:
        return self.run()

    @staticmethod
    def version() -> int:
        return 1


class Memory:
    def read(self) -> str:
        return "remembered"


def test_any_object(recorded) -> None:
    """An object's methods get roots, those of its parts too, and calling it does; its data stays data."""
    agent = wrap(Agent())
    assert agent.run() == agent() == agent.memory.read() == "remembered"
    assert agent.version() == 1
    assert type(agent.settings) is dict
    assert type(agent._private) is Memory
    assert [span.name for span in recorded.spans] == ["Agent.run", "Agent", "Agent.memory.read", "Agent.version"]


class Builder:
    """An object with methods that return it, so that calls can be chained."""

    def __init__(self) -> None:
        self.model = ""

    def use(self, model: str) -> Builder:
        self.model = model
        return self

    def run(self) -> str:
        return self.model


def test_chained_calls_stay_wrapped(recorded) -> None:
    """A method that returns its own object gives the proxy, so that what is chained to it is wrapped too."""
    assert wrap(Builder()).use("m").run() == "m"
    assert [span.name for span in recorded.spans] == ["Builder.use", "Builder.run"]


def test_a_partial(recorded) -> None:
    """A partial is named after its function."""
    assert wrap(functools.partial(max, 1))(2) == 2
    assert [span.name for span in recorded.spans] == ["max"]


def test_a_wrapped_function_as_a_method(recorded) -> None:
    """wrap() works as a decorator of methods."""

    class Bot:
        @wrap
        def reply(self, text: str) -> str:
            return text

    assert Bot().reply("hi") == "hi"
    assert len(recorded.spans) == 1


@pytest.mark.parametrize("value", [None, 3, "text", sys], ids=["none", "number", "text", "module"])
def test_what_cannot_be_wrapped_is_returned_as_it_is(value, said) -> None:
    """wrap() of something that is no client costs a warning and changes nothing."""
    assert wrap(value) is value
    assert said.once("wrap() needs a client or a callable", type(value).__name__)


def test_without_a_provider_calls_work(said) -> None:
    """Before any set-up a wrapped call runs as it always did, with one warning."""
    answer = wrap(lambda: 42)
    assert answer() == answer() == 42
    assert said.once("No TracerProvider is set", "init()")
