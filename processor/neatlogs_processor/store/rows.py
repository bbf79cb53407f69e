"""From the bytes of an enforced request to rows. Pure: no database, no clock.

What a span says about its trace is decided here, once: its rank, kind and tokens, the session, the workflow and the
tags. `Rollup` adds spans up, in any order and any grouping with the same result, because a trace arrives in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from neatlogs_processor.core.policy import EndUserPolicy, is_entry_span, is_root_span, names_somebody
from neatlogs_processor.store.message import read_message
from neatlogs_processor.store.text import filterable_metadata, split_tags

ENTRY, ROOT, CHILD = 0, 1, 2
"""Ranks: an entry span of a listed service, a root span, every other span. The smallest speaks for the trace."""

COMPLETION_MARKER: Final = "neatlogs.trace.complete"
"""Children of this name say that a trace is complete; they are not spans of the application, and are not kept."""

MAX_INTEGER: Final = 2**63 - 1
"""SQLite's largest integer."""

_ERROR: Final = 2
_MODEL_CALLS: Final = frozenset({"llm", "embedding", "reranker"})
# https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/: operations whose usage, where they report
# one, repeats that of the calls they make.
_AGGREGATES: Final = frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"})
_KIND_OF_OPERATION: Final = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "embeddings": "embedding",
    "retrieval": "retriever",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "workflow",
}

# Newer name first: the first one that holds a number counts.
_INPUT: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT: Final = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_TOTAL: Final = ("gen_ai.usage.total_tokens", "llm.token_count.total")

_SPAN_KINDS: Final = ("neatlogs.span.kind", "openinference.span.kind")
_OPERATION: Final = "gen_ai.operation.name"
_END_USER, _METADATA, _SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"
_SESSION, _OLD_SESSION, _TAGS = "neatlogs.session.id", "session.id", "neatlogs.tags"
_WORKFLOW, _SERVICE = "neatlogs.workflow_name", "service.name"

_OF_SPANS: Final = frozenset({*_SPAN_KINDS, _OPERATION, *_INPUT, *_OUTPUT, *_TOTAL})
_OF_HEADS: Final = _OF_SPANS | {_END_USER, _METADATA, _SOURCE, _SESSION, _OLD_SESSION, _TAGS}
_OF_RESOURCES: Final = frozenset({_WORKFLOW, _SERVICE, _OLD_SESSION, _TAGS})


class Tokens(NamedTuple):
    """What model calls used: input, output, and the total that was reported or is the sum of both."""

    input: int = 0
    output: int = 0
    total: int = 0


_NONE: Final = Tokens()


@dataclass(frozen=True)
class Shared:
    """A resource or a scope, which many spans share.

    Attributes:
        body: A serialised `ResourceSpans` or `ScopeSpans` without spans: what the container says itself.
        name: `service.name`, or the scope's name.
    """

    body: bytes
    name: str


class SpanRow(NamedTuple):
    """One span.

    Attributes:
        span_id: As on the wire.
        parent_id: As on the wire; empty for a root span, however its sender writes that.
        rank: `ENTRY`, `ROOT` or `CHILD`.
        name: Its name.
        kind: `llm`, `tool`, `agent` and so on, in lower case; empty where the span does not say.
        otel_kind: OTLP's `SpanKind`.
        start: Nanoseconds since the epoch; 0 where unset.
        end: Likewise.
        status: 0 unset, 1 ok, 2 error.
        tokens: What counts for the trace.
        resource: Its resource.
        scope: Its scope.
        body: The serialised span.
        head: What it says about its trace if it speaks for it.
    """

    span_id: bytes
    parent_id: bytes
    rank: int
    name: str
    kind: str
    otel_kind: int
    start: int
    end: int
    status: int
    tokens: Tokens
    resource: Shared
    scope: Shared
    body: bytes
    head: Callable[[], Head]


@dataclass(frozen=True)
class Head:
    """What the span that speaks for a trace says about it; see `schema.sql` for what each means."""

    rank: int = CHILD
    start: int = 0
    span_id: bytes = b""
    status: int = 0
    service: str = ""
    name: str | None = None
    workflow: str | None = None
    session: str | None = None
    end_user: str | None = None
    source: str | None = None
    metadata: str | None = None
    tags: frozenset[str] = frozenset()


@dataclass
class Rollup:
    """A trace as the sum of its spans.

    Attributes:
        start: The earliest start that a span states, 0 where none does.
        end: The latest end.
        spans: How many.
        errors: How many with status ERROR.
        tokens: Of all model calls.
        roots: How many have the head's rank; 0 while there is no root.
        services: `service.name` of all spans.
        head: The span that speaks for the trace; `None` before the first span.
    """

    start: int = 0
    end: int = 0
    spans: int = 0
    errors: int = 0
    tokens: Tokens = _NONE
    roots: int = 0
    services: set[str] = field(default_factory=set)
    head: Head | None = None

    @property
    def duration(self) -> int:
        """Nanoseconds from start to end; 0 where one of them is not known or they are the wrong way round."""
        return max(0, self.end - self.start) if self.start else 0

    def add(self, span: SpanRow) -> None:
        """Add one span, which must not have been added before."""
        if span.start and (not self.start or span.start < self.start):
            self.start = span.start
        self.end = max(self.end, span.end)
        self.spans += 1
        self.errors += span.status == _ERROR
        mine, its = self.tokens, span.tokens
        if its.total or its.input or its.output:
            self.tokens = Tokens(
                min(mine.input + its.input, MAX_INTEGER),
                min(mine.output + its.output, MAX_INTEGER),
                min(mine.total + its.total, MAX_INTEGER),
            )
        if span.resource.name:
            self.services.add(span.resource.name)
        self._hear(span)

    def _hear(self, span: SpanRow) -> None:
        head = self.head
        if head is None or span.rank < head.rank:
            self.roots = 0
        elif span.rank > head.rank:
            return
        self.roots += span.rank != CHILD
        if head is None or (span.rank, span.start or MAX_INTEGER, span.span_id) < (
            *(head.rank, head.start or MAX_INTEGER, head.span_id),
        ):
            self.head = span.head()


class Batch(NamedTuple):
    """What one request holds.

    Attributes:
        traces: Its spans by trace id, each span once, in the order of the request.
        without_id: How many spans cannot be kept because their trace id or span id is missing.
    """

    traces: dict[bytes, list[SpanRow]]
    without_id: int


def read_request(body: bytes, policy: EndUserPolicy) -> Batch:
    """Return what an enforced request holds.

    Args:
        body: A serialised `ExportTraceServiceRequest`.
        policy: The policy that the rule enforced: it says which entry spans own identity.

    Raises:
        MalformedOtlpError: Protobuf cannot read it.
    """
    message = read_message(body)
    traces: dict[bytes, dict[bytes, SpanRow]] = {}
    without_id = 0
    for resource_spans in message.resource_spans:
        of_resource = _texts(resource_spans.resource.attributes, _OF_RESOURCES)
        resource = _shared_resource(resource_spans, _text(of_resource, _SERVICE) or "")
        is_entry_service = policy.roots == "entry" and resource.name in policy.entry_services
        for scope_spans in resource_spans.scope_spans:
            scope = _shared_scope(scope_spans)
            for span in scope_spans.spans:
                if not (span.trace_id.strip(b"\0") and span.span_id.strip(b"\0")):
                    without_id += 1
                    continue
                row = _span_row(span, resource, of_resource, scope, is_entry_service)
                if row is not None:
                    traces.setdefault(span.trace_id, {}).setdefault(row.span_id, row)
    return Batch({trace_id: list(spans.values()) for trace_id, spans in traces.items()}, without_id)


def _span_row(
    span: Span, resource: Shared, of_resource: Mapping[str, Any], scope: Shared, is_entry_service: bool
) -> SpanRow | None:
    parent_id = span.parent_span_id
    if is_root_span(parent_id):
        rank, parent_id = ROOT, b""
    elif is_entry_service and is_entry_span(parent_id, span.flags):
        rank = ENTRY
    elif span.name == COMPLETION_MARKER:
        return None
    else:
        rank = CHILD
    span_id, start, status = span.span_id, min(span.start_time_unix_nano, MAX_INTEGER), span.status.code
    said = _texts(span.attributes, _OF_SPANS if rank == CHILD else _OF_HEADS)
    kind, tokens = kind_and_tokens(said) if said else ("", _NONE)

    def head() -> Head:
        # Asked for once a trace and request at most: what a span says of its trace is of use only if it speaks for it.
        own = said if rank != CHILD else _texts(span.attributes, _OF_HEADS)
        return _head(span, rank, start, own, resource.name, of_resource)

    return SpanRow(
        span_id,
        parent_id,
        rank,
        span.name,
        kind,
        span.kind,
        start,
        min(span.end_time_unix_nano, MAX_INTEGER),
        status,
        tokens,
        resource,
        scope,
        span.SerializeToString(),
        head,
    )


def _head(
    span: Span, rank: int, start: int, said: Mapping[str, Any], service: str, of_resource: Mapping[str, Any]
) -> Head:
    tags = frozenset((*split_tags(_text(said, _TAGS)), *split_tags(_text(of_resource, _TAGS))))
    workflow = _text(of_resource, _WORKFLOW)
    session = _text(said, _SESSION) or _text(said, _OLD_SESSION) or _text(of_resource, _OLD_SESSION)
    common: dict[str, Any] = {
        "rank": rank,
        "start": start,
        "span_id": span.span_id,
        "service": service,
        "session": session,
        "tags": tags,
    }
    if rank == CHILD:
        # Enforced requests have no identity here; a store that is fed otherwise must not believe it either.
        return Head(**common, workflow=workflow)
    end_user = _text(said, _END_USER)
    if end_user is not None and not names_somebody(end_user):
        end_user = None
    return Head(
        **common,
        status=span.status.code,
        name=span.name,
        workflow=workflow or span.name or None,
        end_user=end_user,
        source=_text(said, _SOURCE),
        metadata=filterable_metadata(_text(said, _METADATA)),
    )


def identity_of(span: Span) -> str | None:
    """Return the end user's id that a span states, whether or not the span speaks for its trace."""
    return _text(_texts(span.attributes, frozenset({_END_USER})), _END_USER)


def kind_and_tokens(said: Mapping[str, Any]) -> tuple[str, Tokens]:
    """Return the kind of a span, empty where it does not say, and the tokens that count for its trace.

    Args:
        said: Its attributes, or those of them that matter here; text, whole numbers, or what is ignored.
    """
    operation = _text(said, _OPERATION) or ""
    kind = next((text.lower() for key in _SPAN_KINDS if (text := _text(said, key))), "")
    # Agents and chains repeat the usage of the calls they make, and would count it twice.
    if kind not in _MODEL_CALLS if kind else operation in _AGGREGATES:
        return kind or _KIND_OF_OPERATION.get(operation, ""), _NONE
    used_in, used_out, total = _number(said, _INPUT), _number(said, _OUTPUT), _number(said, _TOTAL)
    tokens = Tokens(used_in, used_out, min(total or used_in + used_out, MAX_INTEGER))
    kind = kind or _KIND_OF_OPERATION.get(operation, "")
    return kind or ("llm" if tokens.total else ""), tokens


def _texts(attributes: Iterable[KeyValue], keys: frozenset[str]) -> dict[str, Any]:
    """Return the wanted attributes; of duplicates the first, as everywhere in the rule."""
    found: dict[str, Any] = {}
    for attribute in attributes:
        key = attribute.key
        if key in keys and key not in found:
            found[key] = _plain(attribute.value)
    return found


def _plain(value: AnyValue) -> str | int | None:
    """Return text and numbers; whole numbers may be written as doubles or as text."""
    which = value.WhichOneof("value")
    if which == "string_value":
        return value.string_value
    if which == "int_value":
        return value.int_value
    if which == "double_value" and value.double_value.is_integer():
        return int(value.double_value)
    return None


def _text(said: Mapping[str, Any], key: str) -> str | None:
    value = said.get(key)
    if isinstance(value, int):
        return str(value)
    return value or None


def _number(said: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        value = said.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, int) and value >= 0:
            return min(value, MAX_INTEGER)
    return 0


def _shared_resource(resource_spans: ResourceSpans, service: str) -> Shared:
    alone = ResourceSpans(schema_url=resource_spans.schema_url)
    if resource_spans.HasField("resource"):
        alone.resource.CopyFrom(resource_spans.resource)
    return Shared(alone.SerializeToString(), service)


def _shared_scope(scope_spans: ScopeSpans) -> Shared:
    alone = ScopeSpans(schema_url=scope_spans.schema_url)
    if scope_spans.HasField("scope"):
        alone.scope.CopyFrom(scope_spans.scope)
    return Shared(alone.SerializeToString(), scope_spans.scope.name)
