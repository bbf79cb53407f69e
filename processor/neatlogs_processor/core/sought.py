"""Finding the attributes of spans under any keys, where they stand, without decoding what has none of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from neatlogs_processor.core.attributes import Found, read_key
from neatlogs_processor.core.schema import (
    FIXED32,
    LEN,
    SPAN,
    SPAN_EVENTS,
    SPAN_FLAGS,
    SPAN_LINKS,
    SPAN_PARENT_SPAN_ID,
)
from neatlogs_processor.core.spans import (
    IDS,
    LEN_ONCE,
    NO_HIT,
    PARENT_SPAN_ID,
    SPAN_ID,
    TIMES,
    TRACE_ID,
    VARINT_ONCE,
)
from neatlogs_processor.core.wire import fields, read_varint
from neatlogs_processor.errors import MalformedOtlpError

_ATTRIBUTE: Final = SPAN.attributes << 3 | LEN
_EVENT: Final = SPAN_EVENTS << 3 | LEN
_LINK: Final = SPAN_LINKS << 3 | LEN
_PARENT: Final = SPAN_PARENT_SPAN_ID << 3 | LEN


class Sought:
    """Attribute keys that a stage looks for, compared byte for byte.

    Args:
        keys: Whole keys, none of them empty.
        prefixes: What keys begin with, none of them empty.
    """

    __slots__ = ("_keys", "_prefixes", "needles")

    def __init__(self, keys: Iterable[bytes] = (), prefixes: Iterable[bytes] = ()) -> None:
        self._keys = frozenset(keys)
        self._prefixes = tuple(sorted(set(prefixes)))
        # Where `enduser.id` stands, so does `user.id`: each needle is a search through the whole request.
        shortest: list[bytes] = []
        for needle in sorted((*self._keys, *self._prefixes), key=lambda one: (len(one), one)):
            if not any(known in needle for known in shortest):
                shortest.append(needle)
        self.needles: Final = tuple(shortest)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys or key.startswith(self._prefixes)

    def __bool__(self) -> bool:
        return bool(self.needles)

    def __or__(self, other: Sought) -> Sought:
        return Sought((*self._keys, *other._keys), (*self._prefixes, *other._prefixes))


class Search:
    """The next occurrence of any needle in a buffer, or a part of one, that is walked from its beginning to its end.

    Args:
        buf: The buffer.
        sought: What is looked for.
        end: Where the part ends; the end of the buffer unless told otherwise.
    """

    __slots__ = ("_buf", "_end", "_hits", "hit", "sought")

    def __init__(self, buf: bytes, sought: Sought, end: int | None = None) -> None:
        self._buf = buf
        self._end = len(buf) if end is None else end
        self.sought = sought
        self._hits = [-1] * len(sought.needles)
        self.hit = -1

    def at_or_after(self, pos: int) -> int:
        """Where it is, or `NO_HIT`. Positions must not go backwards: each part is searched once."""
        if self.hit < pos:
            hits = self._hits
            nearest = NO_HIT
            for at, needle in enumerate(self.sought.needles):
                hit = hits[at]
                if hit < pos:
                    hit = self._buf.find(needle, pos, self._end)
                    hits[at] = hit = NO_HIT if hit < 0 else hit
                if hit < nearest:
                    nearest = hit
            self.hit = nearest
        return self.hit


class Scanned(NamedTuple):
    """What reading a span brought to light: as `spans.Parts`, for any keys."""

    parent: bytes
    flags: int
    found: list[Found]
    ambiguous: bool


def begins_as_child(buf: bytes, start: int, end: int) -> bool:
    """Whether a span begins as exporters begin a child: with its ids and then its parent's, which is not zero.

    It is a child then, unless it names its parent once more.
    """
    if end - start < IDS.size:
        return False
    trace_id, span_id, third, parent = IDS.unpack_from(buf, start)
    return bool(trace_id == TRACE_ID and span_id == SPAN_ID and third == PARENT_SPAN_ID and parent)


def scan_span(buf: bytes, start: int, end: int, search: Search) -> Scanned:
    """Read the span in `buf[start:end]`.

    Raises:
        MalformedOtlpError: It cannot be walked.
        IndexError: A length leads past the end of the buffer.
    """
    return _scan_usual(buf, start, end, search) or _scan_any(buf, start, end, search.sought)


def _scan_usual(buf: bytes, start: int, end: int, search: Search) -> Scanned | None:
    """Read the fields that exporters write, in any order and with lengths of any size; give up at anything else."""
    parent = b""
    flags = 0
    found: list[Found] = []
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
    hit = search.at_or_after(pos)
    while pos < end:
        tag = buf[pos]
        if tag == _ATTRIBUTE:
            length = buf[pos + 1]
            high = buf[pos + 2] if length > 0x7F else 0
            if length < 0x80:
                inner = pos + 2
            elif high < 0x80:
                length = length & 0x7F | high << 7
                inner = pos + 3
            else:
                length, inner = read_varint(buf, pos + 1, end)
            after = inner + length
            if hit < after:
                if hit < inner:
                    hit = search.at_or_after(inner)
                if hit < after <= end:
                    attribute = _look_at(buf, pos, pos + 1, inner, after, search.sought)
                    if attribute is not None:
                        found.append(attribute)
            pos = after
        elif tag == 0x30 and not seen & 0b111000000 and pos + TIMES.size <= end:
            seen |= 0b1000000
            _, kind, start_tag, end_tag = TIMES.unpack_from(buf, pos)
            if kind < 0x80 and start_tag == 0x39 and end_tag == 0x41:
                seen |= 0b111000000
                pos += 20
            else:
                _, pos = read_varint(buf, pos + 1, end)
        elif tag in (_EVENT, _LINK):
            length, inner = read_varint(buf, pos + 1, end)
            pos = inner + length
        else:
            bit = 1 << (tag >> 3)
            if tag in LEN_ONCE:
                length, inner = read_varint(buf, pos + 1, end)
                pos = inner + length
                if tag == _PARENT:
                    parent = buf[inner:pos]
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
    return Scanned(parent, flags, found, False)


def _scan_any(buf: bytes, start: int, end: int, sought: Sought) -> Scanned:
    """Walk whatever is a span at all."""
    parent = b""
    flags = 0
    found: list[Found] = []
    ambiguous = False
    seen = set()
    for number, wire_type, tag, header, inner, after in fields(buf, start, end, refuse_groups=True):
        expected = SPAN.wire_types.get(number)
        if expected is None:
            continue
        if wire_type != expected or (number in seen and number not in SPAN.repeated):
            ambiguous = True
        seen.add(number)
        if number == SPAN.attributes and wire_type == LEN:
            if any(buf.find(needle, inner, after) >= 0 for needle in sought.needles):
                attribute = _look_at(buf, tag, header, inner, after, sought)
                if attribute is not None:
                    found.append(attribute)
        elif number == SPAN_PARENT_SPAN_ID and wire_type == LEN:
            parent = buf[inner:after]
        elif number == SPAN_FLAGS and wire_type == FIXED32:
            flags = int.from_bytes(buf[inner:after], "little")
    return Scanned(parent, flags, found, ambiguous)


def _look_at(buf: bytes, tag: int, header: int, start: int, end: int, sought: Sought) -> Found | None:
    """Judge the attribute whose `KeyValue` is `buf[start:end]`, which is not empty."""
    first = buf[start]
    key_at = -1
    if first == 0x0A:
        value_at = start + 2 + buf[start + 1]
        if buf[start + 1] < 0x80 and value_at + 1 < end and buf[value_at] == 0x12:
            size, value = read_varint(buf, value_at + 1, end)
            if value + size == end:
                key_at, key_end = start + 2, value_at
    elif first == 0x12:
        # Collectors write the value before the key.
        size, value = read_varint(buf, start + 1, end)
        at = value + size
        if at + 1 < end and buf[at] == 0x0A and buf[at + 1] < 0x80 and at + 2 + buf[at + 1] == end:
            key_at, key_end = at + 2, end
    if key_at >= 0:
        key = buf[key_at:key_end]
        return (tag, header, start, end, key, None) if key in sought else None
    key, plain = read_key(buf, start, end)
    if key in sought or (plain is not None and plain != buf[start:end]):
        return tag, header, start, end, key, plain
    return None
