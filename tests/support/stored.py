"""A store filled with traces that are written as tests read them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from neatlogs_processor.core.policy import EndUserPolicy, Override
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing

SECOND = 10**9
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND
NOW = 1_795_000_000 * SECOND
"""The time of the tests: 2026-11-18T11:06:40Z."""


@dataclass(frozen=True)
class Stored:
    """A trace to be stored: a root (unless it never arrives) and children, the first of them with the errors.

    Attributes:
        number: Makes its ids.
        ago: Nanoseconds between its start and `NOW`.
        metadata: An object, or text as a sender wrote it.
        services: Of the root first, then of one child each.
    """

    number: int
    end_user: str | None = None
    metadata: dict[str, Any] | str | None = None
    workflow: str | None = None
    session: str | None = None
    services: tuple[str, ...] = ("shop",)
    name: str = "chat"
    status: str = "unset"
    tags: tuple[str, ...] = ()
    tokens: int = 0
    errors: int = 0
    spans: int = 1
    ago: int = MINUTE
    duration: int = SECOND
    root_received: bool = True
    source: str = "trace"

    @property
    def trace_id(self) -> str:
        """Its id, in hexadecimal digits."""
        return blake2b(str(self.number).encode(), digest_size=16).hexdigest()

    @property
    def start(self) -> int:
        """When it starts."""
        return NOW - self.ago

    @property
    def span_count(self) -> int:
        """How many spans arrive."""
        return max(self.spans, self.errors, len(self.services), 1)

    @property
    def shown_workflow(self) -> str | None:
        """The workflow, else the root's name, once that is known."""
        return self.workflow or (self.name if self.root_received else "") or None

    def request(self) -> bytes:
        """Return it as a serialised OTLP request."""
        message = ExportTraceServiceRequest()
        for index in range(self.span_count):
            service = self.services[min(index, len(self.services) - 1)]
            resource_spans = message.resource_spans.add()
            resource = {"service.name": service}
            if self.workflow is not None:
                resource["neatlogs.workflow_name"] = self.workflow
            if self.tags:
                resource["neatlogs.tags"] = ",".join(self.tags)
            resource_spans.resource.attributes.extend(_attributes(resource))
            resource_spans.scope_spans.add().spans.append(self._span(index))
        return message.SerializeToString()

    def _span(self, index: int) -> Span:
        root_id = (1).to_bytes(8, "big")
        is_root = index == 0 and self.root_received
        said: dict[str, Any] = {}
        if is_root:
            metadata = json.dumps(self.metadata) if isinstance(self.metadata, dict) else self.metadata
            said = {
                "neatlogs.end_user.id": self.end_user,
                "neatlogs.end_user.metadata": metadata,
                "neatlogs.end_user.source": self.source if self.end_user is not None else None,
                "neatlogs.session.id": self.session,
            }
        if index == 0:
            said |= {"openinference.span.kind": "LLM", "llm.token_count.total": self.tokens or None}
        codes = {"unset": Status.STATUS_CODE_UNSET, "ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}
        # The errors are the last spans; the root has its own status, which counts like any other.
        fails = index >= self.span_count - self.errors
        code = codes[self.status] if is_root else codes["error" if fails else "unset"]
        return Span(
            trace_id=bytes.fromhex(self.trace_id),
            span_id=(index + 1).to_bytes(8, "big"),
            parent_span_id=b"" if is_root else (root_id if index else b"\xff" * 8),
            name=self.name if is_root else f"step {index}",
            start_time_unix_nano=self.start,
            end_time_unix_nano=self.start + self.duration,
            status=Status(code=code),
            attributes=_attributes(said),
        )

    @property
    def error_count(self) -> int:
        """How many of its spans have status error."""
        failing = range(self.span_count - self.errors, self.span_count)
        children = sum(1 for index in failing if index or not self.root_received)
        return children + (self.root_received and self.status == "error")


def write(path: Path, traces: Iterable[Stored], overrides: Iterable[Override] = ()) -> None:
    """Write traces into the store at the path, each in a request of its own, with these overrides."""
    connection = open_writer(path)
    with contextlib.closing(connection):
        requests = [(read_request(trace.request(), EndUserPolicy()), ()) for trace in traces]
        Writing(connection).write([*requests[:-1], *((batch, tuple(overrides)) for batch, _ in requests[-1:])], NOW)


@contextlib.contextmanager
def store(path: Path, traces: Iterable[Stored], overrides: Iterable[Override] = ()) -> Iterator[SqliteReader]:
    """Run a reader over a new store with these traces."""
    write(path, traces, overrides)
    reader = SqliteReader(path)
    try:
        yield reader
    finally:
        reader.close()


def _attributes(said: dict[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in said.items()
        if value is not None
    ]
