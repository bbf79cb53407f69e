"""Reading one span where it stands: who its parent is, and which of its parts have to be dealt with.

There are two ways, with one result. `_scan_usual` is the hot loop: it knows the fields that exporters write, in any
order and with lengths of any size, and gives up at anything else. `_scan_any` walks whatever is a span at all.

The hot loop may read past the end of a span before it notices that a length leads there; past the end of the request
that is an IndexError, which `traces` turns into the error it is.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, TypeAlias

from neatlogs_processor.core.attributes import Found, look_at, usual_attribute
from neatlogs_processor.core.policy import is_root_span
from neatlogs_processor.core.schema import (
    FIXED32,
    LEN,
    NAMESPACE,
    SPAN,
    SPAN_FLAGS,
    SPAN_NAME,
    SPAN_PARENT_SPAN_ID,
    SPAN_SPAN_ID,
    SPAN_TRACE_ID,
    in_namespace,
)
from neatlogs_processor.core.wire import fields, read_varint
from neatlogs_processor.errors import MalformedOtlpError

NO_HIT: Final = 1 << 62
"""Stands for the position of an occurrence of the namespace where there is none: it is past every end."""

Nested: TypeAlias = tuple[int, int, int, int, int, bytes]
"""A part of a span that has to be looked into: an event or link that holds an occurrence of the namespace, or an
attribute outside the namespace that readers could disagree about. Field number, tag, header, start, end; and for the
attribute, the bytes that all readers agree about."""

Parts: TypeAlias = tuple[bytes, int, list[Found], list[Nested], bool, int]
"""What reading a span brought to light: the parent span id (where it stands twice, the last counts), `Span.flags`, the
identity attributes, the parts that have to be looked into, whether readers could disagree about the span itself, and
the first occurrence of the namespace behind the span."""

# Trace id, span id and, on a child, its parent's: the tags and lengths that every exporter begins a span with.
IDS: Final = Struct(">H16xH8xHQ")
TRACE_ID: Final = 0x0A10
SPAN_ID: Final = 0x1208
PARENT_SPAN_ID: Final = 0x2208
_TRACE_ID_HEADER: Final = b"\x0a\x10"
_SPAN_ID_HEADER: Final = b"\x12\x08"
_PARENT_HEADER: Final = b"\x22\x08"
# The same from the end of a span, as Collectors write it: backwards, its status first, and an empty parent's id too.
_IDS_BACKWARDS: Final = Struct(">HQH8xH16x")
_STATUS: Final = 0x7A
_NO_PARENT: Final = 0x2200
_FLAGS_TAG: Final = b"\x85\x01"
# What follows the ids of a root span: its name, or its flags where these are written first.
_AFTER_PARENT: Final = frozenset({0x2A, 0x85})
# A child in its scope: the tag, a length of two bytes, the ids, and the first byte of its parent's.
USUAL_CHILD: Final = Struct(">BBBH16xH8xHB")
# Kind, start and end.
TIMES: Final = Struct(">BBB8xB8x")

# One-byte tags of `Span`, field number << 3 | wire type.
LEN_ONCE: Final = frozenset({0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x7A})
VARINT_ONCE: Final = frozenset({0x30, 0x50, 0x60, 0x70})


def find_namespace(buf: bytes, start: int) -> int:
    """The first occurrence of the namespace at or after `start`, or `NO_HIT`."""
    hit = buf.find(NAMESPACE, start)
    return NO_HIT if hit < 0 else hit


def scan_span(buf: bytes, start: int, end: int, hit: int) -> Parts:
    """Read the span in `buf[start:end]`.

    Args:
        hit: The first occurrence of the namespace at or after `start`, or `NO_HIT`.

    Raises:
        MalformedOtlpError: It cannot be walked.
    """
    return _scan_usual(buf, start, end, hit) or _scan_any(buf, start, end)


def _scan_usual(buf: bytes, start: int, end: int, hit: int) -> Parts | None:
    find = buf.find
    parent = b""
    flags = 0
    attributes: list[Found] = []
    nested: list[Nested] = []
    seen = 0
    pos = start
    if end - start >= IDS.size:
        trace_id, span_id, third, _ = IDS.unpack_from(buf, start)
        if trace_id == TRACE_ID and span_id == SPAN_ID:
            seen = 0b110
            pos += 28
            if third == PARENT_SPAN_ID:
                parent = buf[pos + 2 : pos + 10]
                seen = 0b10110
                pos += 10
    while pos < end:
        tag = buf[pos]
        if tag == 0x4A:
            length = buf[pos + 1]
            if length < 0x80:
                after = pos + 2 + length
                if after <= hit:
                    pos = after
                    continue
                inner = pos + 2
            else:
                high = buf[pos + 2]
                if high < 0x80:
                    inner = pos + 3
                    after = inner + (length & 0x7F | high << 7)
                elif buf[pos + 3] > 0x7F and buf[pos + 4] == 0:
                    # Four bytes, as .NET reserves for every length.
                    inner = pos + 5
                    after = inner + (length & 0x7F | (high & 0x7F) << 7 | (buf[pos + 3] & 0x7F) << 14)
                else:
                    length, inner = read_varint(buf, pos + 1, end)
                    after = inner + length
                if after <= hit:
                    pos = after
                    continue
            if hit < inner:
                hit = find_namespace(buf, inner)
            if hit < after:
                found = usual_attribute(buf, pos, inner, after, hit)
                if found is None:
                    pass
                elif found[5] is None or in_namespace(found[4]):
                    attributes.append(found)
                else:
                    nested.append((SPAN.attributes, pos, pos + 1, inner, after, found[5]))
                hit = find(NAMESPACE, after)
                if hit < 0:
                    hit = NO_HIT
            pos = after
        elif tag == 0x30 and not seen & 0b111000000 and pos + TIMES.size <= end:
            seen |= 0b1000000
            _, kind, start_tag, end_tag = TIMES.unpack_from(buf, pos)
            if kind < 0x80 and start_tag == 0x39 and end_tag == 0x41:
                seen |= 0b111000000
                pos += 20
            else:
                _, pos = read_varint(buf, pos + 1, end)
        elif tag == 0x5A or tag == 0x6A:
            length, inner = read_varint(buf, pos + 1, end)
            after = inner + length
            if hit < inner:
                hit = find_namespace(buf, inner)
            if hit < after:
                nested.append((tag >> 3, pos, pos + 1, inner, after, b""))
                hit = find_namespace(buf, after)
            pos = after
        else:
            bit = 1 << (tag >> 3)
            if tag in LEN_ONCE:
                length = buf[pos + 1]
                inner = pos + 2
                if length > 0x7F:
                    length, inner = read_varint(buf, pos + 1, end)
                if tag == 0x22:
                    parent = buf[inner : inner + length]
                pos = inner + length
            elif tag in (0x39, 0x41):
                pos += 9
            elif tag == 0x85 and buf[pos + 1] == 0x01:
                flags = int.from_bytes(buf[pos + 2 : pos + 6], "little")
                pos += 6
            elif tag in VARINT_ONCE:
                _, pos = read_varint(buf, pos + 1, end)
            else:
                return None
            if seen & bit:
                return None
            seen |= bit
    if pos != end:
        raise MalformedOtlpError(f"the span at byte {start} ends in the middle of a field")
    if hit < end:
        hit = find_namespace(buf, end)
    return parent, flags, attributes, nested, False, hit


def _scan_any(buf: bytes, start: int, end: int) -> Parts:
    parent = b""
    flags = 0
    attributes: list[Found] = []
    nested: list[Nested] = []
    ambiguous = False
    seen = set()
    for number, wire_type, tag, header, inner, after in fields(buf, start, end, refuse_groups=True):
        expected = SPAN.wire_types.get(number)
        if expected is None:
            continue
        if wire_type != expected or (number in seen and number not in SPAN.repeated):
            ambiguous = True
        seen.add(number)
        if wire_type == LEN and number in SPAN.repeated:
            if buf.find(NAMESPACE, inner, after) < 0:
                continue
            if number != SPAN.attributes:
                nested.append((number, tag, header, inner, after, b""))
                continue
            found = look_at(buf, tag, header, inner, after)
            if found is not None:
                if found[5] is None or in_namespace(found[4]):
                    attributes.append(found)
                else:
                    nested.append((number, tag, header, inner, after, found[5]))
        elif number == SPAN_PARENT_SPAN_ID and wire_type == LEN:
            parent = buf[inner:after]
        elif number == SPAN_FLAGS and wire_type == FIXED32:
            flags = int.from_bytes(buf[inner:after], "little")
    return parent, flags, attributes, nested, ambiguous, find_namespace(buf, end)


def counts_as_root(buf: bytes, start: int, end: int) -> bool:
    """Whether the span in `buf[start:end]` is a root span, for counting only: it is not read further than it takes.

    Exact for every span that names its parent once, in front of its own name, or at its end as Collectors do, or else
    in the usual encoding. Where a span holds identity, or a resource has one to give, it is read to its end instead.
    """
    if end - start >= IDS.size:
        trace_id, span_id, third, parent = IDS.unpack_from(buf, start)
        if trace_id == TRACE_ID and span_id == SPAN_ID:
            if third == PARENT_SPAN_ID:
                if parent:
                    return False
            # Without a parent's tag and length anywhere, the usual root; only odd encodings are left to doubt.
            elif third >> 8 in _AFTER_PARENT and buf.find(_PARENT_HEADER, start + 28, end) < 0:
                return True
        elif buf[start] == _STATUS:
            first, parent, second, third = _IDS_BACKWARDS.unpack_from(buf, end - _IDS_BACKWARDS.size)
            if second == SPAN_ID and third == TRACE_ID:
                if first == PARENT_SPAN_ID:
                    return not parent
                if parent & 0xFFFF == _NO_PARENT:
                    return True
    return is_root_span(scan_span(buf, start, end, NO_HIT)[0])


def describe_span(buf: bytes, start: int, end: int) -> tuple[bytes, bytes, str]:
    """Trace id, span id and name of a span that has been walked before, and found to say each of them once at most."""
    pos = start + 28
    if buf.startswith(_TRACE_ID_HEADER, start) and buf.startswith(_SPAN_ID_HEADER, start + 18):
        if buf.startswith(_PARENT_HEADER, pos):
            pos += 10
        if buf.startswith(_FLAGS_TAG, pos):
            pos += 6
        if pos + 1 < end and buf[pos] == 0x2A and buf[pos + 1] < 0x80:
            name = buf[pos + 2 : pos + 2 + buf[pos + 1]]
            return buf[start + 2 : start + 18], buf[start + 20 : start + 28], name.decode("utf-8", "replace")
    found = {SPAN_TRACE_ID: b"", SPAN_SPAN_ID: b"", SPAN_NAME: b""}
    for field in fields(buf, start, end, refuse_groups=True):
        if field.wire_type == LEN and field.number in found:
            found[field.number] = buf[field.start : field.end]
    return found[SPAN_TRACE_ID], found[SPAN_SPAN_ID], found[SPAN_NAME].decode("utf-8", "replace")
