"""In-memory capture with fixed ids, for tests of applications that use this package.

    import neatlogs_otel as neatlogs
    from neatlogs_otel import testing

    def test_the_chat_names_its_user():
        with testing.capture() as captured:
            handle_chat(user_id="u1")  # opens neatlogs.trace("chat", end_user_id=...)

        assert captured.end_user_of("chat").id == "u1"
        assert [span.name for span in captured.spans] == ["llm", "chat"]

`assert_every_root_has_end_user(captured)` finds the handler that forgot. For a whole test suite, `pytest
--require-end-users` does the same after each test (also as `require_end_users = true` in pytest's configuration, with
the names of traces that need none in `end_users_except`, and the marker `end_user_optional`); and the fixture
`end_users` is a `capture()` that ends with this assertion.

Needs no test framework, no processor and no network. Inside the block `trace()`, `@span`, `wrap()`, `identify()` and
`set_end_user()` work as in production; other instrumentations take part if they are given `captured.tracer_provider`
(most take it as an argument). The rule is enforced as the processor does, so the spans look as they would downstream.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

from opentelemetry import context as context_api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from neatlogs_otel import _declaring, _warnings, conventions
from neatlogs_otel._context import Attached
from neatlogs_otel._identity import EndUser, end_user_from
from neatlogs_otel._leaving import Leaving, set_leaving
from neatlogs_otel._process_default import ProcessDefault, set_process_default
from neatlogs_otel._provider import use_tracer_provider
from neatlogs_otel._span_exporter import EndUserSpanExporter
from neatlogs_otel._span_processor import EndUserSpanProcessor, witnesses

__all__ = ["Captured", "FixedIds", "assert_every_root_has_end_user", "capture", "watch_roots"]


class FixedIds(IdGenerator):
    """Counts: the first trace is ...01, the next ...02, and so do spans. Safe to use from several threads."""

    def __init__(self) -> None:
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)
        self._lock = threading.Lock()

    def generate_trace_id(self) -> int:
        """The next trace id."""
        with self._lock:
            return next(self._traces)

    def generate_span_id(self) -> int:
        """The next span id."""
        with self._lock:
            return next(self._spans)

    def is_trace_id_random(self) -> bool:
        """They are not."""
        return False


class Captured:
    """What was recorded inside `capture()`; readable during the block and after it.

    Attributes:
        tracer_provider: The provider behind it, for instrumentations that take one.
    """

    def __init__(self, roots: Literal["trace", "entry"]) -> None:
        self._final_warnings: dict[str, int] | None = None
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(id_generator=FixedIds(), shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(EndUserSpanProcessor(roots=roots))
        enforcing = EndUserSpanExporter(self._exporter, roots=roots)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(enforcing))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in the order in which they ended."""
        return tuple(self._exporter.get_finished_spans())

    @property
    def roots(self) -> tuple[ReadableSpan, ...]:
        """The root spans among them: one for each trace."""
        return tuple(span for span in self.spans if span.parent is None)

    @property
    def warnings(self) -> dict[str, int]:
        """How often each kind of warning occurred inside the block, by its topic."""
        return _warnings.counts() if self._final_warnings is None else self._final_warnings

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name.

        Raises:
            LookupError: There is none, or more than one.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            names = ", ".join(sorted({span.name for span in self.spans})) or "nothing"
            raise LookupError(f"{len(found)} spans are named {name!r}; captured: {names}")
        return found[0]

    def end_user_of(self, trace: str | int | ReadableSpan) -> EndUser | None:
        """The end user of a trace.

        Args:
            trace: Any span of it, the name of one, or the trace id.

        Returns:
            `None` where its root span names nobody.

        Raises:
            LookupError: There is no such span, or the trace's root span has not ended.
        """
        root = self._root_of(trace)
        attributes: dict[str, Any] = dict(root.attributes or {})
        end_user_id = attributes.get(conventions.END_USER_ID)
        if not end_user_id:
            return None
        return EndUser(
            end_user_id,
            attributes.get(conventions.END_USER_METADATA),
            attributes.get(conventions.END_USER_SOURCE, ""),
        )

    def session_of(self, trace: str | int | ReadableSpan) -> str | None:
        """The session id of a trace; arguments and errors as for `end_user_of`."""
        session = (self._root_of(trace).attributes or {}).get(conventions.SESSION_ID)
        return session if isinstance(session, str) and session else None

    def clear(self) -> None:
        """Forget the spans recorded so far."""
        self._exporter.clear()

    def close(self) -> None:
        """End the capture: what was captured stays readable."""
        self._final_warnings = _warnings.counts()
        self.tracer_provider.shutdown()

    def _root_of(self, trace: str | int | ReadableSpan) -> ReadableSpan:
        if isinstance(trace, str):
            trace = self.named(trace)
        trace_id = trace if isinstance(trace, int) else trace.context.trace_id
        for span in self.roots:
            if span.context.trace_id == trace_id:
                return span
        raise LookupError("the root span of this trace has not ended inside the capture, or there is no such trace")


@contextmanager
def capture(
    *,
    end_user_id: Any = None,
    end_user_metadata: Any = None,
    session_id: str | None = None,
    roots: Literal["trace", "entry"] = "trace",
) -> Iterator[Captured]:
    """Record the spans of the block in memory, in place of whatever `init()` has set up.

    Inside the block no span is active at first, warnings start anew, and the process default is what is given here.
    Ids are what the application gives, also where they leave as pseudonyms otherwise.
    What was set up before is back in place afterwards. The choice holds for the whole process: two captures at once in
    different threads would see each other's spans.

    Args:
        end_user_id: Stands in for `init(end_user_id=...)`.
        end_user_metadata: Stands in for `init(end_user_metadata=...)`.
        session_id: Stands in for `init(session_id=...)`.
        roots: As for `EndUserSpanProcessor`.

    Yields:
        What is captured.
    """
    captured = Captured(roots)
    _warnings.reset()
    _declaring.forget_named()
    end_user = end_user_from("init", end_user_id, end_user_metadata, place="capture()")
    default_before = set_process_default(ProcessDefault(end_user, session_id))
    leaving_before = set_leaving(Leaving())
    provider_before = use_tracer_provider(captured.tracer_provider)
    try:
        with Attached(context_api.Context()):
            yield captured
    finally:
        use_tracer_provider(provider_before)
        set_process_default(default_before)
        set_leaving(leaving_before)
        captured.close()


@contextmanager
def watch_roots() -> Iterator[list[ReadableSpan]]:
    """See the root spans that end inside the block, of every provider that has an `EndUserSpanProcessor`.

    For tests of an application as it sets itself up, where `capture()` does not reach; nothing is changed. It holds for
    the whole process: spans that other threads end meanwhile are seen too.

    Yields:
        A list that grows: root spans, and under `roots="entry"` entry spans, in the order in which they ended.
    """
    seen: list[ReadableSpan] = []
    witnesses.append(seen.append)
    witness = witnesses[-1]
    try:
        yield seen
    finally:
        witnesses[:] = [other for other in witnesses if other is not witness]


def assert_every_root_has_end_user(
    spans: Captured | Iterable[ReadableSpan],
    *,
    roots: Literal["trace", "entry"] = "trace",
    except_for: Iterable[str] = (),
) -> None:
    """Fail where a trace has no end user: a handler has forgotten to name it.

    Args:
        spans: What was captured, or spans that have ended: of an in-memory exporter, or of `watch_roots()`.
        roots: `"trace"`: root spans count. `"entry"`: also spans whose parent is remote.
        except_for: Names of root spans that need no end user (`GET /healthz`), with `*` and `?`.

    Raises:
        AssertionError: At least one has none; the message holds the names. Or there is none at all, which would prove
            nothing.
    """
    ended = spans.spans if isinstance(spans, Captured) else tuple(spans)
    found = [s for s in ended if s.parent is None or (roots == "entry" and s.parent.is_remote)]
    if not found:
        raise AssertionError("no root span has ended, so there is no end user to look for")
    exempt = tuple(except_for)
    unnamed = Counter(
        span.name
        for span in found
        if not _end_user_id(span) and not any(fnmatchcase(span.name, pattern) for pattern in exempt)
    )
    if unnamed:
        names = ", ".join(
            f"{_warnings.shown(name)} ({times} times)" if times > 1 else _warnings.shown(name)
            for name, times in unnamed.items()
        )
        raise AssertionError(
            f"{unnamed.total()} of {len(found)} root spans have no end user: {names}. Name it by trace(..., "
            "end_user_id=...), @span, identify() or set_end_user(), or list what needs none in except_for."
        )


def _end_user_id(span: ReadableSpan) -> str | None:
    text = conventions.text_of(conventions.END_USER_ID, (span.attributes or {}).get(conventions.END_USER_ID))
    return text.strip() if text else None
