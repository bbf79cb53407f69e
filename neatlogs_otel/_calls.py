"""The root span of a wrapped call, which may stay open after the call has returned.

A call that returns a stream has not ended when it returns. Its root span stays open until the stream is exhausted or
closed. A stream that is simply dropped is noticed by the garbage collector, which may run in any thread at any moment,
also inside code that holds a lock; so its finalizer only appends to a queue, and a thread ends the span.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import Span, Status, StatusCode

from neatlogs_otel import conventions
from neatlogs_otel._provider import tracer
from neatlogs_otel._warnings import warn_once


class OpenCall:
    """One wrapped call: its root span, and the context in which everything of the call runs.

    Attributes:
        span: The root span.
        context: The context of the caller at the time of the call, with `span` as the current span. A stream that is
            consumed elsewhere (another task, another thread, another request) still runs under it.
    """

    __slots__ = ("__weakref__", "_entered", "_finalizer", "context", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.context: Context = trace_api.set_span_in_context(span)
        self._finalizer: weakref.finalize[[int, Span], OpenCall] | None = None
        self._entered = 0

    def keep_open(self) -> None:
        """From here on the span ends by `end()`, or when nobody holds this object any more."""
        if self._finalizer is None:
            self._finalizer = _dropped.watch(self)

    def record(self, error: BaseException) -> None:
        """Record an error as OpenTelemetry does: an `Exception` is one, a cancellation or an early close is not."""
        if not isinstance(error, Exception) or not self.span.is_recording():
            return
        try:
            self.span.record_exception(error)
            self.span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        except Exception:  # noqa: BLE001  # the client's __str__ may raise; its own error must get through
            self.span.set_status(Status(StatusCode.ERROR, type(error).__name__))

    def enter(self) -> None:
        """A result of the call was entered as a context manager: only leaving it ends the call."""
        self._entered += 1

    def leave(self) -> None:
        """The context manager was left."""
        self._entered -= 1
        if self._entered <= 0:
            self.end()

    def exhausted(self) -> None:
        """A stream of the call has no more items."""
        if self._entered <= 0:
            self.end()

    def end(self) -> None:
        """End the span now. Later calls have no effect."""
        if self._finalizer is None:
            _end(self.span, None)
        elif self._finalizer.detach() is not None:
            _dropped.forget(id(self))
            _end(self.span, None)


def start_call(name: str) -> OpenCall | None:
    """Open a root span for a call that begins now.

    Returns:
        `None` where the call needs no root: a span is already active here (in this process or, by an extracted
        context, in the caller's), instrumentation is suppressed, or the span cannot be started.
    """
    end_dropped_calls()
    if trace_api.get_current_span().get_span_context().is_valid or _is_suppressed():
        return None
    attributes = {conventions.SPAN_KIND: "workflow", conventions.OPENINFERENCE_SPAN_KIND: "WORKFLOW"}
    try:
        span = tracer().start_span(name, attributes=attributes)
        return OpenCall(span) if span.get_span_context().is_valid else None
    except Exception as error:  # noqa: BLE001  # a sampler or span processor of the application; its call must go on
        warn_once("wrap_root", name, "No root span for the wrapped call %s: %s.", name, type(error).__name__)
        return None


def end_dropped_calls() -> None:
    """End the spans of calls whose streams were dropped. Cheap where there are none."""
    _dropped.drain()


def end_all_calls() -> None:
    """End every call that is still open. For the end of the process: what is open then is never going to be closed."""
    _dropped.drop_all()
    _dropped.drain()


def _is_suppressed() -> bool:
    # Instrumentations read both keys: the API's own, which exporters set, and the plain one of older releases.
    return any(context_api.get_value(key) for key in (_SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"))


def _end(span: Span, end_time: int | None) -> None:
    try:
        span.end(end_time=end_time)
    except Exception as error:  # noqa: BLE001  # a span processor of the application; its call must go on
        warn_once("wrap_end", type(error), "%s while ending the span of a wrapped call.", type(error).__name__)


class _DroppedCalls:
    """Calls whose last stream was dropped, waiting for somebody to end their spans.

    Rule of this class: what the garbage collector calls (`_drop`) takes no lock. Appending to a deque and putting into
    a `SimpleQueue` are safe there; everything else happens under the lock.
    """

    def __init__(self) -> None:
        # Reentrant: ending a span runs foreign span processors, which may make wrapped calls of their own.
        self._lock = threading.RLock()
        self._watched: dict[int, weakref.finalize[[int, Span], OpenCall]] = {}
        self._queue: deque[tuple[int, Span, int]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def watch(self, call: OpenCall) -> weakref.finalize[[int, Span], OpenCall]:
        finalizer = weakref.finalize(call, self._drop, id(call), call.span)
        # At exit finalizers would run in no useful order; `drop_all` does it before the providers shut down.
        finalizer.atexit = False
        with self._lock:
            self._watched[id(call)] = finalizer
            if self._thread is None:
                atexit.register(end_all_calls)
                self._start_thread()
        return finalizer

    def _drop(self, key: int, span: Span) -> None:
        self._queue.append((key, span, time.time_ns()))
        self._wake.put(None)

    def forget(self, key: int) -> None:
        with self._lock:
            self._watched.pop(key, None)

    def drain(self) -> None:
        while self._queue:
            with self._lock:
                try:
                    key, span, dropped_at = self._queue.popleft()
                except IndexError:
                    return
                # The id may belong to a new call by now; that one's finalizer is alive.
                finalizer = self._watched.get(key)
                if finalizer is not None and not finalizer.alive:
                    del self._watched[key]
                _end(span, dropped_at)

    def drop_all(self) -> None:
        with self._lock:
            for finalizer in list(self._watched.values()):
                finalizer()

    def after_fork(self) -> None:
        # The parent ends its own spans; ending the child's copies would send them twice.
        self._lock = threading.RLock()
        for finalizer in list(self._watched.values()):
            finalizer.detach()
        self._watched.clear()
        self._queue.clear()
        self._wake = SimpleQueue()
        if self._thread is not None:
            self._thread = None
            self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._serve, args=(self._wake,), name="neatlogs-otel-dropped-calls", daemon=True
        )
        # Nothing that this thread does may become a span.
        token = context_api.attach(Context())
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is ending or has no more threads: the next call, flush() or the exit ends the spans.
            self._thread = None
        finally:
            context_api.detach(token)

    def _serve(self, wake: SimpleQueue[None]) -> None:
        while True:
            wake.get()
            self.drain()


_dropped = _DroppedCalls()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_dropped.after_fork)
