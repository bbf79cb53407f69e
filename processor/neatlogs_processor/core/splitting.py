"""Taking a trace request apart, span by span, and putting spans of several requests together.

Every span stays byte for byte what it was, under its own resource and scope. Spans whose resources and scopes are equal
byte for byte come to stand under one, so that what is put together is no larger than what was taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from neatlogs_processor.core.overrides import service_name
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.schema import (
    LEN,
    REQUEST_RESOURCE_SPANS,
    RESOURCE_SPANS_RESOURCE,
    RESOURCE_SPANS_SCOPE_SPANS,
    SCOPE_SPANS_SPANS,
)
from neatlogs_processor.core.span_heads import Head, read_heads
from neatlogs_processor.core.wire import Field, encode_len, encode_varint, fields, read_field, read_varint

MOST_REPEATED_BYTES: Final = 32 * 2**20

_AT_ONCE: Final = 256
"""How many spans are read together: a request may be made of nothing but empty ones."""

_RESOURCE_SPANS_TAG: Final = encode_varint(REQUEST_RESOURCE_SPANS << 3 | LEN)
_SCOPE_SPANS_TAG: Final = encode_varint(RESOURCE_SPANS_SCOPE_SPANS << 3 | LEN)
_SPAN_TAG: Final = encode_varint(SCOPE_SPANS_SPANS << 3 | LEN)
_USUAL_SPAN_TAG: Final = _SPAN_TAG[0]
# Tag and length around a resource or a scope, at most.
_AROUND: Final = 6


class Group(NamedTuple):
    """Some spans of one scope.

    Attributes:
        resource: Everything of their `ResourceSpans` but scopes.
        scope: Everything of their `ScopeSpans` but spans.
        is_entry_service: Whether entry spans of their service own identity.
        spans: Each span's head, and the span itself.
    """

    resource: bytes
    scope: bytes
    is_entry_service: bool
    spans: list[tuple[Head, bytes]]


class _Piece(NamedTuple):
    """As `Group`, with the spans alone, and from where to where their fields stand in the request."""

    resource: bytes
    scope: bytes
    is_entry_service: bool
    first: int
    last: int
    payloads: list[bytes]


class Apart:
    """A request, taken apart as it is iterated over; any number of times.

    Args:
        body: A serialised `ExportTraceServiceRequest` after the rule, which has seen that its framing adds up.
        policy: The policy of the rule.

    Attributes:
        rest: What is not spans, as a request of its own: unknown fields, resources and scopes without a span. Known
            after the first iteration.
    """

    def __init__(self, body: bytes, policy: EndUserPolicy) -> None:
        self._body = body
        self._policy = policy
        self.rest = b""

    def __iter__(self) -> Iterator[Group]:
        for piece in self._pieces():
            spans = self._body[piece.first : piece.last]
            heads = read_heads(spans, piece.payloads, is_entry_service=piece.is_entry_service)
            paired = list(zip(heads, piece.payloads, strict=True))
            yield Group(piece.resource, piece.scope, piece.is_entry_service, paired)

    def without_heads(self) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
        """The resource, scope and spans of each group, where nobody asks what the spans say of themselves."""
        for piece in self._pieces():
            yield piece.resource, piece.scope, piece.payloads

    def _pieces(self) -> Iterator[_Piece]:
        body = self._body
        rest = bytearray()
        for outer in fields(body, 0, len(body), refuse_groups=False):
            if outer.number == REQUEST_RESOURCE_SPANS and outer.wire_type == LEN:
                yield from self._resource_spans(outer, rest)
            else:
                rest += body[outer.tag : outer.end]
        self.rest = bytes(rest)

    def _resource_spans(self, outer: Field, rest: bytearray) -> Iterator[_Piece]:
        body = self._body
        frame = bytearray()
        resources = []
        # Of a resource all is needed before the first of its spans, and it may stand behind them: Collectors write
        # backwards.
        has_scopes = False
        for field in fields(body, outer.start, outer.end, refuse_groups=False):
            if field.number == RESOURCE_SPANS_SCOPE_SPANS and field.wire_type == LEN:
                has_scopes = True
                continue
            frame += body[field.tag : field.end]
            if field.number == RESOURCE_SPANS_RESOURCE and field.wire_type == LEN:
                resources.append(field)
        resource = bytes(frame)
        if not has_scopes:
            rest += encode_len(REQUEST_RESOURCE_SPANS, resource)
            return
        policy = self._policy
        is_entry_service = policy.roots == "entry" and service_name(body, resources) in policy.entry_services
        for field in fields(body, outer.start, outer.end, refuse_groups=False):
            if field.number != RESOURCE_SPANS_SCOPE_SPANS or field.wire_type != LEN:
                continue
            scope = _scope_frame(body, field.start, field.end)
            has_spans = False
            for first, last, payloads in _spans(body, field.start, field.end):
                has_spans = True
                yield _Piece(resource, scope, is_entry_service, first, last, payloads)
            if not has_spans:
                rest += encode_len(REQUEST_RESOURCE_SPANS, resource + encode_len(RESOURCE_SPANS_SCOPE_SPANS, scope))


class Together:
    """Puts spans together into requests.

    Args:
        limit: Bytes of one request; more only where a single span, with its resource and scope, is larger, or where
            too much would have to be repeated.
        most_repeated: Bytes of resources and scopes that may be repeated because spans are divided.
    """

    def __init__(self, limit: int, most_repeated: int = MOST_REPEATED_BYTES) -> None:
        self._limit = limit
        # Without a bound, a resource as large as the limit would be repeated for each of its spans.
        self._may_repeat = most_repeated
        self._seen: set[bytes] = set()
        self._bodies: list[tuple[bytes, int]] = []
        self._resources: dict[bytes, dict[bytes, bytearray]] = {}
        self._size = self._spans = 0

    def add(self, resource: bytes, scope: bytes, span: bytes) -> None:
        """Add a span.

        Args:
            resource: See `Group`.
            scope: See `Group`.
            span: The span itself.
        """
        field = _SPAN_TAG + encode_varint(len(span)) + span
        size = len(field)
        scopes = self._resources.get(resource)
        spans = None if scopes is None else scopes.get(scope)
        if spans is None:
            size += self.frame_bytes(resource, scope)
        if self._size and self._size + size > self._limit and self._may_repeat > 0:
            self._complete()
            self.add(resource, scope, span)
            return
        if spans is None:
            self._may_repeat -= len(scope) if scope in self._seen else 0
            self._may_repeat -= len(resource) if scopes is None and resource in self._seen else 0
            self._seen.update((resource, scope))
            spans = self._resources.setdefault(resource, {})[scope] = bytearray()
        spans += field
        self._size += size
        self._spans += 1

    def frame_bytes(self, resource: bytes, scope: bytes) -> int:
        """Return how many bytes a span of this resource and scope costs beside itself."""
        scopes = self._resources.get(resource)
        if scopes is None:
            return 2 * _AROUND + len(resource) + len(scope)
        return 0 if scope in scopes else _AROUND + len(scope)

    def bodies(self) -> list[tuple[bytes, int]]:
        """Return the requests, and how many spans each holds."""
        self._complete()
        return self._bodies

    def _complete(self) -> None:
        if not self._size:
            return
        body = bytearray()
        for resource, scopes in self._resources.items():
            inner = bytearray(resource)
            for scope, spans in scopes.items():
                inner += _SCOPE_SPANS_TAG + encode_varint(len(scope) + len(spans)) + scope + spans
            body += _RESOURCE_SPANS_TAG + encode_varint(len(inner)) + inner
        self._bodies.append((bytes(body), self._spans))
        self._resources = {}
        self._size = self._spans = 0


def _scope_frame(body: bytes, start: int, end: int) -> bytes:
    """Everything but spans of the `ScopeSpans` in `body[start:end]`."""
    frame = bytearray()
    pos = start
    while pos < end:
        if body[pos] == _USUAL_SPAN_TAG:
            length, inner = read_varint(body, pos + 1, end)
            pos = inner + length
            continue
        field = read_field(body, pos, end, refuse_groups=False)
        pos = field.end
        if field.number != SCOPE_SPANS_SPANS or field.wire_type != LEN:
            frame += body[field.tag : field.end]
    return bytes(frame)


def _spans(body: bytes, start: int, end: int) -> Iterator[tuple[int, int, list[bytes]]]:
    """The spans of the `ScopeSpans` in `body[start:end]`, some at a time, after where their fields begin and end."""
    payloads: list[bytes] = []
    first = pos = start
    while pos < end:
        if body[pos] == _USUAL_SPAN_TAG:
            length, inner = read_varint(body, pos + 1, end)
            pos = inner + length
        else:
            field = read_field(body, pos, end, refuse_groups=False)
            inner, pos = field.start, field.end
            if field.number != SCOPE_SPANS_SPANS or field.wire_type != LEN:
                continue
        payloads.append(body[inner:pos])
        if len(payloads) == _AT_ONCE:
            yield first, pos, payloads
            payloads = []
            first = pos
    if payloads:
        yield first, pos, payloads
