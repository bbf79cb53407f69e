"""@span on generators: one span from the first step to the end, and nothing current between the steps."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs


@pytest.fixture(autouse=True)
def detaching_is_clean(caplog):
    """No step may leave a token that OpenTelemetry cannot detach, nor a context that stays behind."""
    before = context_api.get_current()
    yield
    assert context_api.get_current() == before
    assert [r for r in caplog.records if r.name.startswith("opentelemetry")] == []


def test_the_span_starts_at_the_first_step(recorded) -> None:
    """Making the generator opens nothing; the first step does."""

    @neatlogs.span(end_user_id=lambda user: user)
    def chat(user: str) -> Generator[int]:
        yield 1

    generator = chat("alice")
    with recorded.tracer.start_as_current_span("unrelated"):
        pass
    assert [span.name for span in recorded.spans] == ["unrelated"]
    assert list(generator) == [1]
    assert recorded.id_of("chat") == "alice"
    assert recorded.named("chat").parent is None


def test_nothing_is_current_between_the_steps(recorded) -> None:
    """What the consumer does between two steps is not part of the generator's trace."""

    @neatlogs.span(end_user_id="alice")
    def chat() -> Generator[int]:
        with recorded.tracer.start_as_current_span("inner"):
            yield 1
            assert trace_api.get_current_span().name == "inner"
            yield 2

    for _ in chat():
        assert trace_api.get_current_span() is trace_api.INVALID_SPAN
        with neatlogs.trace("consumer", end_user_id="bob"):
            pass
    assert recorded.named("inner").parent == recorded.named("chat").context
    consumers = [span for span in recorded.spans if span.name == "consumer"]
    assert [span.parent for span in consumers] == [None, None]
    assert recorded.id_of("chat") == "alice"


def test_a_child_span_held_across_a_yield(recorded) -> None:
    """A span that the body opens before a yield and closes after it keeps its parent and its children."""

    @neatlogs.span
    def chat() -> Generator[int]:
        with neatlogs.trace("first"):
            with recorded.tracer.start_as_current_span("deep"):
                yield 1
            with recorded.tracer.start_as_current_span("deep after"):
                pass
        with recorded.tracer.start_as_current_span("second"):
            yield 2

    with recorded.tracer.start_as_current_span("around"):
        assert list(chat()) == [1, 2]
    parents = {s.name: s.parent.span_id if s.parent else None for s in recorded.spans}
    ids = {s.name: s.context.span_id for s in recorded.spans}
    assert parents == {
        "deep": ids["first"],
        "deep after": ids["first"],
        "first": ids["chat"],
        "second": ids["chat"],
        "chat": ids["around"],
        "around": None,
    }


def test_interleaved_generators(recorded) -> None:
    """Two generators that are consumed in turn never see each other's spans or users."""

    @neatlogs.span("chat", end_user_id=lambda user: user)
    def chat(user: str) -> Generator[str]:
        for at in range(3):
            with recorded.tracer.start_as_current_span(f"{user} {at}"):
                current = neatlogs.current_end_user()
                yield current.id if current else "nobody"

    pairs = list(zip(chat("alice"), chat("bob"), strict=True))
    assert pairs == [("alice", "bob")] * 3
    roots = {
        s.context.trace_id: (s.attributes or {})["neatlogs.end_user.id"] for s in recorded.spans if s.name == "chat"
    }
    children = [(roots[s.context.trace_id], s.name.split()[0]) for s in recorded.spans if s.name != "chat"]
    assert len(children) == 6
    assert all(root == child for root, child in children)


def test_send_and_return(recorded) -> None:
    """What is sent reaches the body, and the return value reaches `yield from`."""

    @neatlogs.span
    def echo() -> Generator[str, str, str]:
        got = ""
        while got != "stop":
            got = yield got.upper()
        return "result"

    def outer() -> Generator[str, str, str]:
        return (yield from echo())

    generator = outer()
    assert next(generator) == ""
    assert generator.send("a") == "A"
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == "result"
    assert len(recorded.spans) == 1


def test_throw(recorded) -> None:
    """An exception thrown in reaches the body as the same object, which may handle it and go on."""
    seen: list[BaseException] = []

    @neatlogs.span
    def chat() -> Generator[int]:
        try:
            yield 1
        except ValueError as error:
            seen.append(error)
            assert trace_api.get_current_span().name == "chat"
            yield 2

    error = ValueError("handled")
    generator = chat()
    next(generator)
    assert generator.throw(error) == 2
    assert seen == [error]
    unhandled = KeyError("unhandled")
    with pytest.raises(KeyError) as caught:
        generator.throw(unhandled)
    assert caught.value is unhandled
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.ERROR


def test_an_error_in_the_body(recorded) -> None:
    """An exception of the body ends the span as an error and passes as the same object."""
    error = RuntimeError("broken")

    @neatlogs.span(end_user_id="alice")
    def chat() -> Generator[int]:
        yield 1
        raise error

    with pytest.raises(RuntimeError) as caught:
        list(chat())
    assert caught.value is error
    assert recorded.named("chat").status.description == "RuntimeError: broken"
    assert recorded.id_of("chat") == "alice"


def test_close_is_no_error(recorded) -> None:
    """A generator that is closed early runs its clean-up under its span and ends without an error."""
    cleaned: list[str] = []

    @neatlogs.span
    def chat() -> Generator[int]:
        try:
            yield 1
        finally:
            cleaned.append(trace_api.get_current_span().name)

    generator = chat()
    next(generator)
    generator.close()
    generator.close()
    assert cleaned == ["chat"]
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET
    assert recorded.named("chat").events == ()


def test_a_generator_that_ignores_close(recorded) -> None:
    """A body that yields while it is being closed gets Python's own complaint, and its span still ends."""

    @neatlogs.span
    def chat() -> Generator[int]:
        while True:
            with contextlib.suppress(GeneratorExit):
                yield 1
                return
            yield 2
            return

    generator = chat()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    del generator
    gc.collect()
    assert len(recorded.spans) == 1


def test_a_generator_that_is_dropped(recorded) -> None:
    """A generator that is dropped half-way ends its span when it is collected."""

    @neatlogs.span
    def chat() -> Generator[int]:
        yield 1
        yield 2

    next(chat())
    gc.collect()
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET


def test_steps_in_several_threads(recorded) -> None:
    """Each step may run in another thread, as web servers do with streamed bodies; children keep the right parent."""

    @neatlogs.span(end_user_id="alice")
    def chat() -> Generator[int]:
        for at in range(3):
            recorded.tracer.start_span(f"part {at}").end()
            yield at

    generator = chat()
    for at in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(next, generator).result() == at
    with pytest.raises(StopIteration):
        next(generator)
    chat_id = recorded.named("chat").context.span_id
    assert [recorded.named(f"part {at}").parent.span_id for at in range(3)] == [chat_id] * 3


def test_as_a_context_manager(recorded) -> None:
    """A decorated generator still makes a context manager."""

    @contextlib.contextmanager
    @neatlogs.span
    def resource() -> Generator[str]:
        yield "open"

    with pytest.raises(ZeroDivisionError), resource():
        raise ZeroDivisionError
    assert recorded.named("resource").status.status_code is trace_api.StatusCode.ERROR


def test_output_of_a_generator(recorded) -> None:
    """Of a generator the output is what it yielded: text joined, anything else as a JSON list."""

    @neatlogs.span(capture_output=True)
    def text() -> Generator[str]:
        yield from ("hel", "lo")

    @neatlogs.span(capture_output=True)
    def items() -> Generator[int]:
        yield from (1, 2)

    assert [list(text()), list(items())] == [["hel", "lo"], [1, 2]]
    assert (recorded.named("text").attributes or {})["output.value"] == "hello"
    assert (recorded.named("items").attributes or {})["output.value"] == "[1,2]"


def test_output_of_an_endless_generator_is_bounded(recorded, said) -> None:
    """Only a bounded number of items is kept for the output, and the cut is said."""

    @neatlogs.span(capture_output=True)
    def items() -> Generator[str]:
        while True:
            yield "x"

    generator = items()
    for _ in range(10_010):
        next(generator)
    generator.close()
    assert (recorded.named("items").attributes or {})["output.value"] == "x" * 10_000
    assert said.once("10000 items")


async def test_async_generators(recorded) -> None:
    """An asynchronous generator has one span, its own children, and nothing current between its steps."""

    @neatlogs.span(end_user_id=lambda user: user, capture_output=True)
    async def chat(user: str) -> AsyncGenerator[str]:
        with recorded.tracer.start_as_current_span("model"):
            await asyncio.sleep(0)
            yield "hel"
            await asyncio.sleep(0)
            yield "lo"

    async for _ in chat("alice"):
        assert trace_api.get_current_span() is trace_api.INVALID_SPAN
    assert recorded.id_of("chat") == "alice"
    assert recorded.named("model").parent == recorded.named("chat").context
    assert (recorded.named("chat").attributes or {})["output.value"] == "hello"


async def test_async_send_and_throw(recorded) -> None:
    """asend and athrow reach the body."""

    @neatlogs.span
    async def echo() -> AsyncGenerator[str, str]:
        got = yield "first"
        try:
            yield got
        except ValueError:
            yield "handled"

    generator = echo()
    assert await anext(generator) == "first"
    assert await generator.asend("sent") == "sent"
    assert await generator.athrow(ValueError()) == "handled"
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    assert recorded.named("echo").status.status_code is trace_api.StatusCode.UNSET


async def test_async_early_close(recorded) -> None:
    """Closing an asynchronous generator early runs its clean-up under its span; it is no error."""
    cleaned: list[str] = []

    @neatlogs.span
    async def chat() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            cleaned.append(trace_api.get_current_span().name)

    async with contextlib.aclosing(chat()) as generator:
        await anext(generator)
    assert cleaned == ["chat"]
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET


async def test_an_async_generator_that_is_dropped(recorded) -> None:
    """One that is dropped is closed by the event loop in another context, and still leaves nothing attached."""

    @neatlogs.span
    async def chat() -> AsyncGenerator[int]:
        with neatlogs.trace("inner"):
            yield 1

    async def consume() -> None:
        async for _ in chat():
            break

    await asyncio.create_task(consume())
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert {span.name for span in recorded.spans} == {"chat", "inner"}


async def test_cancelling_a_step(recorded) -> None:
    """A task that is cancelled in the middle of a step ends the span without an error."""
    started = asyncio.Event()

    @neatlogs.span
    async def chat() -> AsyncGenerator[int]:
        started.set()
        await asyncio.Event().wait()
        yield 1

    async def consume() -> None:
        async for _ in chat():
            pass

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET
