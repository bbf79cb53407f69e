"""What wrap() does where the process forks, exits or has span processors that fail: the application never notices."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

import neatlogs_otel as neatlogs
from support.programs import run_program


class Failing(SpanProcessor):
    """A span processor of an application that raises at the start, at the end, or both."""

    def __init__(self, *, start: bool, end: bool) -> None:
        self._start, self._end = start, end

    def on_start(self, span: Span, parent_context: object = None) -> None:
        if self._start:
            raise RuntimeError("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        if self._end:
            raise RuntimeError("on_end")


@pytest.mark.parametrize(("start", "end"), [(True, False), (False, True), (True, True)])
def test_a_failing_span_processor_does_not_cost_the_call(recorded, said, start, end) -> None:
    """A span processor that raises costs a warning; the wrapped call and its stream go on."""
    recorded.provider.add_span_processor(Failing(start=start, end=end))
    assert neatlogs.wrap(lambda: 42, instrument=False)() == 42
    assert list(neatlogs.wrap(lambda: iter([1, 2]), instrument=False)()) == [1, 2]
    assert said.messages
    assert all("RuntimeError" in message for message in said.messages)


def test_an_error_that_cannot_be_printed_arrives(recorded) -> None:
    """An error whose __str__ raises reaches the application as it is."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        raise UnprintableError

    with pytest.raises(UnprintableError):
        neatlogs.wrap(fail, instrument=False)()
    assert len(recorded.spans) == 1


class Unhashable(type):
    """A metaclass whose classes cannot be looked up anywhere."""

    __hash__ = None


class Odd(metaclass=Unhashable):
    """An iterator whose class cannot be proxied."""

    def __iter__(self) -> Odd:
        return self

    def __next__(self) -> int:
        raise StopIteration


def test_a_result_that_cannot_be_proxied_is_handed_out(recorded, said) -> None:
    """Where a stream's class is too odd for a proxy, the application gets the stream itself; the root ends at once."""
    odd = Odd()
    assert neatlogs.wrap(lambda: odd, instrument=False)() is odd
    assert len(recorded.spans) == 1
    assert said.once("returned a Odd ends now")


class Dynamic:
    """A client that answers to any attribute, as clients of remote procedures do, and guards some."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @property
    def is_closed(self) -> bool:
        raise ConnectionError("not connected")

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self.calls.append, name)

    def me(self) -> Dynamic:
        return self


def test_objects_with_dynamic_attributes(recorded) -> None:
    """An object that answers to any attribute, or raises on some, works wrapped as it does alone."""
    real = Dynamic()
    client = neatlogs.wrap(real, instrument=False)
    client.anything()
    assert real.calls == ["anything"]
    assert client.me() is client
    with pytest.raises(ConnectionError):
        _ = client.is_closed


def test_open_streams_end_with_the_process() -> None:
    """A stream that is still open when the process exits ends its root before the provider shuts down."""
    result = run_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
        import neatlogs_otel as neatlogs

        class Printing(SpanExporter):
            def export(self, spans):
                report([span.name for span in spans])
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Printing()))
        trace.set_tracer_provider(provider)

        def stream():
            yield 1

        kept = neatlogs.wrap(stream, instrument=False)()
        next(kept)
        """
    )
    assert result.report == ["stream"]


def test_a_forked_child_leaves_the_streams_of_its_parent_alone() -> None:
    """A stream that is open at a fork ends its root in the parent only; the child's own calls work."""
    result = run_program(
        """
        import gc, os, time
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        import neatlogs_otel as neatlogs

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

        def before():
            yield 1
            yield 2

        def after():
            yield 1

        kept = neatlogs.wrap(before, instrument=False)()
        next(kept)
        from_child, to_parent = os.pipe()
        if os.fork() == 0:
            list(kept)
            del kept
            new = neatlogs.wrap(after, instrument=False)()
            del new
            gc.collect()
            deadline = time.monotonic() + 30
            while not exporter.get_finished_spans() and time.monotonic() < deadline:
                time.sleep(0.01)
            neatlogs.flush()
            os.write(to_parent, ",".join(span.name for span in exporter.get_finished_spans()).encode())
            os._exit(0)
        os.close(to_parent)
        child = b"".join(iter(lambda: os.read(from_child, 100), b"")).decode()
        os.wait()
        list(kept)
        report({"child": child, "parent": [span.name for span in exporter.get_finished_spans()]})
        """,
        strict=False,  # Newer Pythons warn of every fork in a process with threads.
    )
    assert result.report == {"child": "after", "parent": ["before"]}


async def test_a_coroutine_that_is_never_started(recorded) -> None:
    """A task that is cancelled before its first step closes the call's coroutine, as without wrap(), and its root."""

    class Client:
        async def ask(self) -> int:
            return 42

    client = neatlogs.wrap(Client(), instrument=False)
    task = asyncio.create_task(client.ask())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)  # The event loop, too, lets go of it.
    with warnings.catch_warnings(record=True) as said_by_python:
        warnings.simplefilter("always")
        gc.collect()
        forgotten = client.ask()
        assert forgotten.__qualname__.endswith("Client.ask")
        del forgotten
        gc.collect()
    # Python's own complaint about the forgotten one names what the application has called, once.
    complaints = [str(one.message) for one in said_by_python]
    said_by_python.clear()  # They hold the coroutine.
    assert complaints == [f"coroutine '{Client.ask.__qualname__}' was never awaited"]
    recorded.wait_for_roots(2)
