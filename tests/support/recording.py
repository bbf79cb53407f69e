"""An isolated provider with our span processor, recording in memory what leaves it, before any rule is enforced."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, Tracer, set_span_in_context

from neatlogs_otel import EndUserSpanProcessor
from neatlogs_otel import conventions as keys

IDENTITY_KEYS = (keys.END_USER_ID, keys.END_USER_METADATA, keys.END_USER_SOURCE)


class Waiting(InMemorySpanExporter):
    """Keeps spans in memory and wakes who waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = threading.Condition()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep the spans."""
        with self._arrived:
            result = super().export(spans)
            self._arrived.notify_all()
            return result

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until a condition on the spans holds; seconds."""
        with self._arrived:
            return self._arrived.wait_for(condition, timeout)


class Recording:
    """A provider of its own and what its spans look like when they end."""

    def __init__(
        self,
        *,
        roots: Literal["trace", "entry"] = "trace",
        ours: bool = True,
        sampler: Sampler | None = None,
        limits: SpanLimits | None = None,
        resource: Any = None,
    ) -> None:
        self.exporter = Waiting()
        self.provider = TracerProvider(sampler=sampler, span_limits=limits, resource=resource, shutdown_on_exit=False)
        if ours:
            self.provider.add_span_processor(EndUserSpanProcessor(roots=roots))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def tracer(self) -> Tracer:
        """A tracer as an instrumentation would have it."""
        return self.provider.get_tracer("some.instrumentation")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return tuple(self.exporter.get_finished_spans())

    def wait_for_roots(self, count: int) -> tuple[ReadableSpan, ...]:
        """Wait until `count` local roots have ended; a server's span ends after the client has its response."""

        def local_roots() -> tuple[ReadableSpan, ...]:
            return tuple(span for span in self.spans if span.parent is None or span.parent.is_remote)

        assert self.exporter.wait_for(lambda: len(local_roots()) >= count, 30), f"{len(local_roots())} of {count}"
        return local_roots()

    def wait_for_span(self, name: str) -> ReadableSpan:
        """Wait until the one span of that name has ended; work after a response ends later than the root."""
        assert self.exporter.wait_for(lambda: any(span.name == name for span in self.spans), 30), f"no span {name!r}"
        return self.named(name)

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are named {name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def identity(self, name: str) -> tuple[Any, dict[str, Any] | None, Any]:
        """Id, decoded metadata and source of the one span of that name; `None` for what is not there."""
        attributes = self.named(name).attributes or {}
        end_user_id, metadata, source = (attributes.get(key) for key in IDENTITY_KEYS)
        return end_user_id, json.loads(metadata) if isinstance(metadata, str) else None, source

    def id_of(self, name: str) -> Any:
        """The end-user id on the one span of that name."""
        return self.identity(name)[0]

    def session_of(self, name: str) -> Any:
        """The session id on the one span of that name."""
        return (self.named(name).attributes or {}).get(keys.SESSION_ID)


def remote_parent(trace_id: int = 0xA1, span_id: int = 0xB1, *, sampled: bool = True) -> Context:
    """The context that a server instrumentation extracts from an incoming `traceparent`."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)))
