"""The application never sees an exception of ours: bad values, broken peers, no provider, fork."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

import neatlogs_otel as neatlogs
from neatlogs_otel import _registry, _warnings
from support.programs import run_program


class Hostile:
    """Raises at whatever is done with it."""

    def __getattribute__(self, name: str) -> object:
        if name in ("__class__", "__dict__"):
            return object.__getattribute__(self, name)
        raise RuntimeError(f"hostile {name}")

    def __str__(self) -> str:
        raise RuntimeError("hostile")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("hostile")

    def __bool__(self) -> bool:
        raise RuntimeError("hostile")

    __repr__ = __str__
    __hash__ = None


class HostileDict(dict):
    """A mapping that cannot be read."""

    def items(self):
        raise RuntimeError("hostile")

    def __bool__(self) -> bool:
        return True


def everything(value: object) -> None:
    """Give a value to every argument of every call."""
    with neatlogs.identify(end_user_id=value, end_user_metadata=value, session_id=value):
        with neatlogs.trace("t", end_user_id=value, end_user_metadata=value, session_id=value, tags=value, kind=value):
            pass
        with neatlogs.trace("x", mask=lambda a: value, content=value):
            pass
        neatlogs.span("s", end_user_id=value, end_user_metadata=value, session_id=value, kind=value)(lambda: 1)()

        @neatlogs.span(capture_input=True, capture_output=True)
        def echo(argument: object) -> object:
            return argument

        assert echo(value) is value
        with neatlogs.trace("late"):
            neatlogs.set_end_user(value, value)
            neatlogs.current_end_user()


@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        HostileDict(a=1),
        {"a": Hostile()},
        {Hostile: 1},
        [Hostile()],
        object,
        print,
        b"\xff",
        1j,
        ...,
        -1,
        1.5,
        "\ud800",
        "\x00",
        lambda: Hostile(),
        lambda *_: 1 / 0,
        lambda: {"a": {1, 2}},
        range(3),
        type,
        Exception("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_raises(recorded, value) -> None:
    """Whatever is passed to whatever argument, nothing of ours raises, and every span is there."""
    everything(value)
    assert {"t", "x", "late"} <= {span.name for span in recorded.spans}
    assert len(_registry.registry) == 0
    assert context_api.get_current() == {}


class RaisingProcessor(SpanProcessor):
    """Raises in every hook."""

    def on_start(self, span, parent_context=None) -> None:
        raise RuntimeError("broken")

    def on_end(self, span) -> None:
        raise RuntimeError("broken")


class RaisingExporter(SpanExporter):
    """Raises at every export."""

    def export(self, spans):
        raise RuntimeError("broken")


class RaisingSampler(Sampler):
    """Raises when asked."""

    def should_sample(self, *args, **kwargs):
        raise RuntimeError("broken")

    def get_description(self) -> str:
        return "raising"


@pytest.mark.parametrize("where", ["processor", "exporter", "sampler"])
def test_broken_peers(record, where) -> None:
    """Where a sampler, span processor or exporter of others raises, the block still runs and its result stands."""
    recorded = record(**({"sampler": RaisingSampler()} if where == "sampler" else {}))
    if where == "processor":
        recorded.provider.add_span_processor(RaisingProcessor())
    if where == "exporter":
        recorded.provider.add_span_processor(SimpleSpanProcessor(RaisingExporter()))
    done = []
    with neatlogs.trace("chat", end_user_id="alice"):
        done.append("trace")
    assert neatlogs.span(end_user_id="bob")(lambda: "result")() == "result"
    assert done == ["trace"]
    assert context_api.get_current() == {}


def test_an_error_whose_text_raises(recorded) -> None:
    """An exception whose own __str__ raises still reaches the caller, and its span still ends."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    error = UnprintableError()
    with pytest.raises(UnprintableError) as caught, neatlogs.trace("chat", end_user_id="alice"):
        raise error
    assert caught.value is error
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.ERROR


def test_a_log_handler_that_raises(recorded) -> None:
    """A logging handler or filter that raises does not reach the application."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("broken")

    handler = Raises()
    _warnings.logger.addHandler(handler)
    try:
        with neatlogs.trace("chat", end_user_id=True):
            pass
    finally:
        _warnings.logger.removeHandler(handler)
    assert recorded.named("chat")


def test_an_instrumented_log_handler(recorded, record) -> None:
    """A log handler that itself opens traces while we warn does not deadlock."""

    class Traces(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with neatlogs.trace("log", end_user_id="logger"):
                neatlogs.set_end_user(True)

    handler = Traces()
    _warnings.logger.addHandler(handler)
    try:
        with recorded.tracer.start_as_current_span("server"):
            neatlogs.set_end_user("alice")
            neatlogs.set_end_user("bob")
    finally:
        _warnings.logger.removeHandler(handler)
    assert recorded.id_of("server") == "alice"


def test_a_log_handler_that_opens_traces_in_another_thread(recorded) -> None:
    """The warning that the registry is full is given without its lock, so that a log handler can open traces."""

    class Traces(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with ThreadPoolExecutor(1) as other:
                other.submit(lambda: recorded.tracer.start_span("log").end()).result(timeout=30)

    handler = Traces()
    _warnings.logger.addHandler(handler)
    try:
        spans = [recorded.tracer.start_span("open") for _ in range(_registry.MAX_OPEN_ROOTS + 1)]
    finally:
        _warnings.logger.removeHandler(handler)
    for span in spans:
        span.end()
    assert recorded.named("log")


def test_warnings_are_bounded(said) -> None:
    """Many different places do not fill the log, and every occurrence is counted."""
    for at in range(5_000):
        _warnings.warn_once("topic", at, "place %d", at)
    assert len(said.messages) == _warnings.MAX_PER_MINUTE
    assert _warnings.count("topic") == 5_000


BEFORE_INIT = """
    import neatlogs_otel as neatlogs

    @neatlogs.span(end_user_id=lambda user: user)
    def decorated(user):
        return user

    def generator():
        yield 1

    with neatlogs.identify(end_user_id="a"), neatlogs.trace("chat", end_user_id="b") as span:
        span.set_attribute("works", True)
        assert decorated("c") == "c"
        assert list(neatlogs.span(generator)()) == [1]
    with neatlogs.trace("again"):
        pass
"""


def test_calls_before_init_work() -> None:
    """Before any provider is set everything runs without recording, with one warning that names init()."""
    ran = run_program(BEFORE_INIT)
    assert len(ran.said) == 1
    assert "neatlogs_otel.init()" in ran.said[0]


def test_a_provider_that_is_set_later() -> None:
    """A decorator at import time serves the provider that the application sets afterwards."""
    ran = run_program("""
        import neatlogs_otel as neatlogs

        @neatlogs.span(end_user_id=lambda user: user)
        def chat(user):
            return user

        chat("unrecorded")
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(neatlogs.EndUserSpanProcessor())
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        chat("alice")
        report([span.attributes["neatlogs.end_user.id"] for span in exporter.get_finished_spans()])
    """)
    assert ran.report == ["alice"]


def test_a_disabled_sdk() -> None:
    """With OTEL_SDK_DISABLED nothing is recorded and nothing is said: somebody has asked for it."""
    ran = run_program(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        import neatlogs_otel as neatlogs

        provider = TracerProvider()
        provider.add_span_processor(neatlogs.EndUserSpanProcessor())
        trace.set_tracer_provider(provider)
        with neatlogs.trace("chat", end_user_id="alice"):
            with neatlogs.trace("inner", end_user_id="bob"):
                report("ran")
        """,
        env={"OTEL_SDK_DISABLED": "true"},
    )
    assert (ran.report, ran.stderr) == ("ran", "")


def in_a_fork(work: Callable[[], object]) -> str:
    """What `work` returns in a forked child, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# From 3.12 on Python warns about any fork beside threads; the children here only compute and exit.
unwarned = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@fork
@unwarned
def test_a_forked_child_names_its_own_traces(recorded) -> None:
    """In a forked worker everything works, also if another thread held our locks at the moment of the fork."""

    def work() -> object:
        with neatlogs.trace("in the child", end_user_id="bob"):
            pass
        return recorded.id_of("in the child"), len(_registry.registry)

    with _registry.registry._lock, _warnings._said.lock:
        assert in_a_fork(work) == "('bob', 0)"


@fork
@unwarned
def test_a_forked_child_cannot_name_the_parents_trace(recorded) -> None:
    """A child that was forked inside a trace has no root to name: the parent ends and exports it."""
    with neatlogs.trace("request", end_user_id="alice"):
        assert in_a_fork(lambda: (neatlogs.set_end_user("bob"), neatlogs.current_end_user())) == "(False, None)"
        assert neatlogs.current_end_user() is not None
    assert recorded.id_of("request") == "alice"


@fork
@unwarned
def test_a_forked_child_leaves_the_parents_blocks(recorded) -> None:
    """A child that was forked inside a trace() leaves that block, also if its root was locked at that moment."""

    def work() -> object:
        block.__exit__(None, None, None)
        return neatlogs.current_end_user()

    block = neatlogs.trace("request", end_user_id="alice")
    block.__enter__()
    (root,) = _registry.registry.of_trace(trace_api.get_current_span().get_span_context().trace_id)
    with ThreadPoolExecutor(1) as other:
        other.submit(root._lock.acquire).result()
        answer = in_a_fork(work)
        other.submit(root._lock.release).result()
    block.__exit__(None, None, None)
    assert answer == "None"
    assert recorded.id_of("request") == "alice"


@fork
@unwarned
def test_a_forked_child_has_a_session_of_its_own(recorded, default_user) -> None:
    """The automatic session is one per process: a forked worker has another one."""
    default_user("by-init", auto_session=True)

    def work() -> object:
        with neatlogs.trace("chat"):
            pass
        return recorded.session_of("chat")

    with neatlogs.trace("parent's"):
        pass
    sessions = {recorded.session_of("parent's"), in_a_fork(work).strip("'"), in_a_fork(work).strip("'")}
    assert len(sessions) == 3


def test_importing_brings_little() -> None:
    """Importing brings neither the processor, nor a test framework, nor an exporter's network library."""
    ran = run_program("""
        import sys
        import neatlogs_otel, neatlogs_otel.testing
        unneeded = {"pytest", "neatlogs_processor", "fastapi", "flask", "grpc", "requests"}
        report(sorted(unneeded & {name.split(".")[0] for name in sys.modules}))
    """)
    assert ran.report == []
