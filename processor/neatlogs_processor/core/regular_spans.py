"""Proving of many spans at once, in C, that they are regular: only known fields, each in its encoding, none twice.

Where identity stands on every span, walking each of them field by field in Python is what costs. The official reader
walks faster, and here it is asked with a message type of its own: the fields of `Span`, of which none is looked into.
What it has read it is asked to measure, unknown fields left out, and of a field that stood twice only one is there. So
spans that come out as long as they went in are regular. Where they do not, nothing is known about any of them, and they
are walked one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from neatlogs_processor.core.attributes import Found, usual_key
from neatlogs_processor.core.schema import (
    FIXED32,
    FIXED64,
    LEN,
    NAMESPACE,
    SPAN,
    SPAN_PARENT_SPAN_ID,
    VARINT,
)
from neatlogs_processor.core.spans import NO_HIT
from neatlogs_processor.core.wire import read_varint

_TYPES: Final = {
    # 32 bits, because of a varint over 64 the reader keeps what fits; a value over 32 comes out shorter.
    VARINT: FieldDescriptorProto.TYPE_UINT32,
    FIXED64: FieldDescriptorProto.TYPE_FIXED64,
    FIXED32: FieldDescriptorProto.TYPE_FIXED32,
    LEN: FieldDescriptorProto.TYPE_BYTES,
}

_ONCE: Final = FieldDescriptorProto.LABEL_OPTIONAL
_REPEATED: Final = FieldDescriptorProto.LABEL_REPEATED
_MESSAGE: Final = FieldDescriptorProto.TYPE_MESSAGE
_PARENT_SPAN_ID: Final = f"field_{SPAN_PARENT_SPAN_ID}"

_ATTRIBUTE_BEGINS: Final = Struct("BBBB").unpack_from
_SIZE: Final = len(NAMESPACE)
# How far in front of its key a value is looked for, and at how many places that might begin its attribute.
_FAR: Final = 1024
_TRIES: Final = 8

# Tag and length of a wrapped span and of its first half, and of its second half. Lengths take two bytes, needed or not.
_HEADERS: Final = Struct("BBBBBB").pack
_HEADER: Final = Struct("BBB").pack
_TAG: Final = 1 << 3 | LEN
_ATTRIBUTE: Final = SPAN.attributes << 3 | LEN
_ATTRIBUTE_TAG: Final = bytes((_ATTRIBUTE,))

# The largest span, without its run, that can be proven: its length still takes two bytes.
_LARGEST: Final = 0x3FF0

AT_ONCE: Final = 64
"""How many spans are best proven together: more than that leave the cache of the machine."""

Run: TypeAlias = tuple[int, int, int]
"""Identity attributes of the usual shape that stand side by side and are all that a span holds of the namespace: where
the first begins, where the last ends, and how many they are. That they are attributes of the span, and not bytes inside
a value, remains to be proven."""


def find_run(buf: bytes, start: int, end: int, hit: int) -> tuple[Run | None, int]:
    """Find the run of a span.

    Args:
        buf: Holds the span at `start` to `end`.
        hit: The first occurrence of the namespace in it.

    Returns:
        The run, or None where there is none, or the span is too large to be proven regular; and the next occurrence of
        the namespace. Without a run that may be one in the same span.
    """
    count = first = 0
    after = start
    while hit < end:
        # Tag, length, tag of the key and its length: four bytes, or five where the attribute is longer than 127.
        pos = hit - 4
        tag, length, key_tag, key_length = _ATTRIBUTE_BEGINS(buf, pos)
        key_end = hit + key_length
        if key_tag != 0x0A or key_length < _SIZE or (key_length > _SIZE and buf[hit + _SIZE] != 0x2E) or key_end > end:
            return None, hit
        key_first = tag == _ATTRIBUTE and length < 0x80
        if not key_first and tag > 0x7F and length < 0x80 and buf[pos - 1] == _ATTRIBUTE:
            key_first = True
            pos -= 1
            length = tag & 0x7F | length << 7
        if not key_first:
            pos = _begin_of_value_first(buf, after if count else max(after, hit - _FAR), key_end, hit - 2, count == 0)
        if count == 0:
            first = pos
        if pos < after or (count and pos != after):
            return None, hit
        if key_first:
            after = hit - 2 + length
            value = key_end + 2
            if after > end or value >= after or buf[key_end] != 0x12:
                return None, hit
            size = buf[key_end + 1]
            if size > 0x7F:
                size = size & 0x7F | buf[value] << 7
                value += 1
            if value + size != after:
                return None, hit
        else:
            after = key_end
        count += 1
        hit = buf.find(NAMESPACE, after)
        if hit < 0:
            hit = NO_HIT
    if end - start - (after - first) <= _LARGEST:
        return (first, after, count), hit
    return None, hit


def _begin_of_value_first(buf: bytes, low: int, end: int, end_of_value: int, search: bool) -> int:
    """Where an attribute begins that has its value in front of its key, as Collectors write it, or -1.

    Args:
        low: Where it begins at the earliest; without `search`, where it has to begin.
        end: Where it ends.
        end_of_value: Where its value ends.
    """
    pos = end_of_value
    for _ in range(_TRIES if search else 1):
        pos = buf.rfind(_ATTRIBUTE_TAG, low, pos) if search else low
        if pos < 0:
            break
        length, inner = _short_length(buf, pos + 1)
        if inner + length == end and buf[inner] == 0x12:
            size, value = _short_length(buf, inner + 1)
            if value + size == end_of_value:
                return pos
    return -1


def _short_length(buf: bytes, pos: int) -> tuple[int, int]:
    """The length at `pos`, which takes one byte or two, and the position after it. Of a longer one, something else."""
    length = buf[pos]
    if length < 0x80:
        return length, pos + 1
    return length & 0x7F | buf[pos + 1] << 7, pos + 2


def attributes_of(buf: bytes, run: Run) -> list[Found]:
    """The attributes of a run."""
    pos, end, _ = run
    attributes: list[Found] = []
    while pos < end:
        length, inner = read_varint(buf, pos + 1, end)
        after = inner + length
        attributes.append((pos, pos + 1, inner, after, usual_key(buf, inner), None))
        pos = after
    return attributes


class RegularSpans:
    """Spans that turned out to be regular, and so are their runs attributes of theirs."""

    def __init__(self, read: Any) -> None:
        self._read = read

    def parent(self, number: int) -> bytes:
        """The parent span id of one of them."""
        parent: bytes = getattr(self._read[number].span, _PARENT_SPAN_ID)
        return parent


def prove_regular(buf: bytes, spans: Iterable[tuple[int, int, Run]]) -> RegularSpans | None:
    """Say whether all of these spans are regular.

    Each is read as two halves, before and behind its run, which the reader puts together: a message that stands twice
    in a message is one. A half that ends in the middle of a field cannot be read, which is how it is known that the
    run begins and ends between fields.

    Args:
        buf: Holds the spans.
        spans: Start, end and run of each.
    """
    pieces: list[bytes] = []
    expected = 0
    for start, end, (first, last, _) in spans:
        before, behind = first - start, end - last
        size = before + behind
        # What goes in has a header of three bytes for each half. What comes out has one for the span and one for what
        # it is wrapped into, no longer than they need be.
        wrapped = size + 6
        expected += wrapped if size > 0x7F else size + 4 if size < 0x7E else size + 5
        pieces += (
            _HEADERS(_TAG, wrapped & 0x7F | 0x80, wrapped >> 7, _TAG, before & 0x7F | 0x80, before >> 7),
            buf[start:first],
            _HEADER(_TAG, behind & 0x7F | 0x80, behind >> 7),
            buf[last:end],
        )
    try:
        read = _SPANS.FromString(b"".join(pieces))
    except DecodeError:
        return None
    read.DiscardUnknownFields()
    return RegularSpans(read.spans) if read.ByteSize() == expected else None


def _message_type() -> type[Message]:
    file = FileDescriptorProto(
        name="neatlogs_processor/regular_spans.proto", package="neatlogs_processor", syntax="proto2"
    )
    span = file.message_type.add(name="Span")
    for number, wire_type in SPAN.wire_types.items():
        once = number not in SPAN.repeated
        span.field.add(
            name=f"field_{number}", number=number, type=_TYPES[wire_type], label=_ONCE if once else _REPEATED
        )
    wrapped = file.message_type.add(name="Wrapped")
    wrapped.field.add(name="span", number=1, type=_MESSAGE, type_name=".neatlogs_processor.Span", label=_ONCE)
    spans = file.message_type.add(name="Spans")
    spans.field.add(name="spans", number=1, type=_MESSAGE, type_name=".neatlogs_processor.Wrapped", label=_REPEATED)
    # A pool of its own: the names are nobody else's.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("neatlogs_processor.Spans"))


_SPANS: Final[Any] = _message_type()
