"""Hopping over the spans of a scope: counting them, and finding those that have to be dealt with."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from neatlogs_processor.core.regular_spans import Run, find_run
from neatlogs_processor.core.schema import LEN, SCOPE_SPANS_SCOPE, SCOPE_SPANS_SPANS
from neatlogs_processor.core.spans import (
    PARENT_SPAN_ID,
    SPAN_ID,
    TRACE_ID,
    USUAL_CHILD,
    counts_as_root,
    find_namespace,
)
from neatlogs_processor.core.wire import Field, read_field, read_varint
from neatlogs_processor.errors import MalformedOtlpError

Held: TypeAlias = tuple[int, int, int, int, "Run | None", bool]
"""A span that holds an occurrence of the namespace, or is to be opened for another reason: where its length prefix
stands, where it begins and ends, the first occurrence at or after its beginning, its run, and whether it begins with
the id of a parent: it is a child then, unless it names its parent once more. (A plain tuple, because hot loops make
many.)"""


class Hopped(NamedTuple):
    """What was found.

    Attributes:
        spans: How many.
        roots: How many root spans are among those that are not held.
        scopes: Where the scope stands; more than once, if it is written more than once.
        held: Spans that have to be dealt with, in order.
        hit: The first occurrence of the namespace behind the last span.
    """

    spans: int
    roots: int
    scopes: list[Field]
    held: list[Held]
    hit: int


def hop_spans(body: bytes, start: int, end: int, hit: int, *, refuse_groups: bool, hold_all: bool) -> Hopped:
    """Hop over the fields of the `ScopeSpans` in `body[start:end]`.

    Args:
        hit: The first occurrence of the namespace at or after `start`, or `NO_HIT`.
        refuse_groups: Whether a group is an error.
        hold_all: Whether every span has to be dealt with.

    Raises:
        MalformedOtlpError: The framing does not add up.
    """
    scopes = []
    held: list[Held] = []
    spans = roots = 0
    # Nearly every span is a child that begins as exporters begin one, and most of them hold no identity.
    unpack = USUAL_CHILD.unpack_from
    last_usual = -1 if hold_all else end - USUAL_CHILD.size
    pos = start
    while pos < end:
        if pos <= last_usual:
            tag, low, high, trace_id, span_id, third, parent_byte = unpack(body, pos)
            after = pos + 3 + (low & 0x7F | high << 7)
            if (
                tag == 0x12
                and low > 0x7F > high
                and third == PARENT_SPAN_ID
                and parent_byte
                and trace_id == TRACE_ID
                and span_id == SPAN_ID
                and after <= end
            ):
                spans += 1
                if hit < after:
                    inner = pos + 3
                    if hit < inner:
                        hit = find_namespace(body, inner)
                    if hit < after:
                        run, following = find_run(body, inner, after, hit)
                        held.append((pos + 1, inner, after, hit, run, True))
                        hit = following if following >= after else find_namespace(body, after)
                pos = after
                continue
        tag = body[pos]
        if tag == 0x12:
            header = pos + 1
            length = body[header]
            if length < 0x80:
                inner = pos + 2
            elif body[pos + 2] < 0x80:
                length = length & 0x7F | body[pos + 2] << 7
                inner = pos + 3
            else:
                length, inner = read_varint(body, header, end)
            pos = inner + length
            if pos > end:
                raise MalformedOtlpError(f"the span at byte {header - 1} runs past the scope that holds it")
        else:
            field = read_field(body, pos, end, refuse_groups=refuse_groups)
            pos = field.end
            if field.wire_type != LEN:
                continue
            if field.number == SCOPE_SPANS_SCOPE:
                scopes.append(field)
            if field.number != SCOPE_SPANS_SPANS:
                continue
            header, inner = field.header, field.start
        spans += 1
        if hit < inner:
            hit = find_namespace(body, inner)
        if hold_all:
            held.append((header, inner, pos, hit, None, False))
        elif hit < pos:
            run, following = find_run(body, inner, pos, hit)
            held.append((header, inner, pos, hit, run, False))
            hit = following if following >= pos else find_namespace(body, pos)
        elif counts_as_root(body, inner, pos):
            roots += 1
    return Hopped(spans, roots, scopes, held, hit)
