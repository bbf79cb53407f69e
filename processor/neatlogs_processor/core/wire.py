"""The protobuf wire format: reading fields where they stand, and rewriting a few of them.

A field is a tag (number and wire type, a varint) and a payload; a message is a run of fields; a message inside a
message is a field of wire type LEN whose payload is the inner message (https://protobuf.dev/programming-guides/encoding).
Nothing here knows a schema.

Varints may be longer than they need to be, up to ten bytes, because real exporters pad lengths that they fill in later.
Groups can be skipped or refused, as the caller says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from neatlogs_processor.core.schema import FIXED32, FIXED64, GROUP_END, GROUP_START, LEN, VARINT
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError

MAX_GROWTH: Final = 64 * 2**20
"""How many bytes larger a request may leave than it came: what one resource says may land on very many spans."""

_MAX_TAG: Final = 0xFFFFFFFF
# Readers give up at about this depth too; deeper groups are an attack.
_MAX_GROUP_DEPTH: Final = 100


class Field(NamedTuple):
    """Where one field stands in its buffer. All positions are offsets into the whole buffer.

    Attributes:
        number: The field number, 1 to 2^29 - 1.
        wire_type: 0 to 5.
        tag: Where the tag begins.
        header: Where the tag ends: the length prefix of a LEN field, the payload of any other.
        start: Where the payload begins.
        end: Where the payload ends, and the next field begins.
    """

    number: int
    wire_type: int
    tag: int
    header: int
    start: int
    end: int


def read_varint(buf: bytes, pos: int, end: int) -> tuple[int, int]:
    """Read the varint at `pos`.

    Returns:
        The value, below 2^64, and the position after it.

    Raises:
        MalformedOtlpError: It runs past `end`, is longer than ten bytes or larger than 64 bits.
    """
    if pos + 4 <= end:
        # Unrolled: .NET writes every length in four bytes.
        value = buf[pos]
        if value < 0x80:
            return value, pos + 1
        byte = buf[pos + 1]
        value = value & 0x7F | byte << 7
        if byte < 0x80:
            return value, pos + 2
        byte = buf[pos + 2]
        value = value & 0x3FFF | byte << 14
        if byte < 0x80:
            return value, pos + 3
        byte = buf[pos + 3]
        if byte < 0x80:
            return value & 0x1FFFFF | byte << 21, pos + 4
    value = 0
    shift = 0
    for at in range(pos, min(end, pos + 10)):
        byte = buf[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise MalformedOtlpError(f"the varint at byte {pos} does not fit 64 bits")
            return value, at + 1
        shift += 7
    raise MalformedOtlpError(f"the varint at byte {pos} does not end where it has to")


def fields(buf: bytes, start: int, end: int, *, refuse_groups: bool) -> Iterator[Field]:
    """Walk the fields of the message in `buf[start:end]`, in the order of the wire.

    Args:
        refuse_groups: Whether a group is an error. Otherwise it is skipped whole, and reported with its payload.

    Raises:
        MalformedOtlpError: The fields do not fill the message exactly, or one of them is not a field.
    """
    pos = start
    while pos < end:
        field = read_field(buf, pos, end, refuse_groups=refuse_groups)
        yield field
        pos = field.end


def read_field(buf: bytes, pos: int, end: int, *, refuse_groups: bool) -> Field:
    """Read the field that begins at `pos` of a message that ends at `end`, behind `pos`; errors as for `fields`."""
    tag = buf[pos]
    header = pos + 1
    if tag > 0x7F:
        tag, header = read_varint(buf, pos, end)
    if tag > _MAX_TAG or tag < 8:
        raise MalformedOtlpError(f"the tag at byte {pos} is not a field's")
    wire_type = tag & 7
    number = tag >> 3
    start = header
    if wire_type == LEN:
        if header < end and buf[header] < 0x80:
            start = header + 1
            stop = start + buf[header]
        else:
            length, start = read_varint(buf, header, end)
            stop = start + length
    elif wire_type == VARINT:
        _, stop = read_varint(buf, header, end)
    elif wire_type == FIXED64:
        stop = header + 8
    elif wire_type == FIXED32:
        stop = header + 4
    elif wire_type == GROUP_START:
        if refuse_groups:
            raise MalformedOtlpError(f"a group stands at byte {pos}; OTLP defines none")
        try:
            stop = _skip_group(buf, header, end, number)
        except MalformedOtlpError as error:
            raise MalformedOtlpError(f"in the group that begins at byte {pos}, {error}") from error
    else:
        raise MalformedOtlpError(f"the tag at byte {pos} has wire type {wire_type}, which begins no field")
    if stop > end:
        raise MalformedOtlpError(f"the field at byte {pos} runs past the message that holds it")
    return Field(number, wire_type, pos, header, start, stop)


def _skip_group(buf: bytes, pos: int, end: int, number: int) -> int:
    """Return the position after the end tag of the group `number` whose content begins at `pos`."""
    open_groups = [number]
    while open_groups:
        tag, after = read_varint(buf, pos, end)
        if tag & 7 == GROUP_END:
            if tag >> 3 != open_groups.pop():
                raise MalformedOtlpError(f"the group that ends at byte {pos} was not open")
            pos = after
        elif tag & 7 == GROUP_START and 8 <= tag <= _MAX_TAG:
            open_groups.append(tag >> 3)
            if len(open_groups) > _MAX_GROUP_DEPTH:
                raise MalformedOtlpError(f"groups are nested deeper than {_MAX_GROUP_DEPTH} at byte {pos}")
            pos = after
        else:
            pos = read_field(buf, pos, end, refuse_groups=True).end
    return pos


def encode_varint(value: int) -> bytes:
    """Encode an unsigned integer in as few bytes as it needs."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_len(number: int, payload: bytes) -> bytes:
    """Encode a LEN field."""
    return encode_varint(number << 3 | LEN) + encode_varint(len(payload)) + payload


_Part: TypeAlias = tuple[int, int, int, int, bytes, object]


class Editor:
    """Replaces parts of one buffer, and the length prefixes around them, without copying what stays.

    Edits are made in the order of the buffer. A container whose inside is edited is opened before and closed after its
    inner edits; closing rewrites its length prefix if anything inside changed.
    """

    __slots__ = ("_edits", "_in_order", "_last", "buf", "growth")

    def __init__(self, buf: bytes) -> None:
        self.buf = buf
        self.growth = 0
        self._edits: list[tuple[int, int, bytes]] = []
        self._in_order = True
        self._last = 0

    def replace(self, start: int, end: int, replacement: bytes = b"") -> None:
        """Put `replacement` in the place of `buf[start:end]`; without one, cut it out.

        Raises:
            RequestTooLargeError: The buffer has grown by more than `MAX_GROWTH`.
        """
        if start < self._last:
            self._in_order = False
        self._last = end
        self._edits.append((start, end, replacement))
        self.growth += len(replacement) - (end - start)
        if self.growth > MAX_GROWTH:
            raise RequestTooLargeError(f"identity would make the request {MAX_GROWTH} bytes larger than it came")

    def put(self, header: int, start: int, end: int, payload: bytes) -> None:
        """Give the LEN field whose length stands at `header`, and whose payload is `buf[start:end]`, another payload.

        Nothing is edited where it is the same.
        """
        if payload != self.buf[start:end]:
            self.replace(header, end, encode_varint(len(payload)) + payload)

    def open(self) -> tuple[int, int]:
        """Begin a container. Returns a mark for `close`."""
        self._edits.append(_UNCHANGED)
        return len(self._edits), self.growth

    def close(self, mark: tuple[int, int], header: int, start: int, end: int) -> None:
        """End the container whose length prefix stands at `header` and whose payload is `buf[start:end]`."""
        count, growth = mark
        if len(self._edits) == count:
            self._edits.pop()
            return
        prefix = encode_varint(end - start + self.growth - growth)
        self._edits[count - 1] = (header, start, prefix)
        self.growth += len(prefix) - (start - header)

    def cut(self, header: int, start: int, end: int, first: int, last: int) -> None:
        """Cut `buf[first:last]` out of one container: `open`, `replace` and `close` in one quick step."""
        prefix = encode_varint(end - start - (last - first))
        if start < self._last:
            self._in_order = False
        self._last = end
        self._edits += ((header, start, prefix), (first, last, b""))
        self.growth += len(prefix) - (start - header) - (last - first)

    def result(self) -> bytes:
        """The buffer after all edits: the very same object if there were none."""
        if not self._edits:
            return self.buf
        if not self._in_order:
            self._edits.sort()
        buf = self.buf
        view = memoryview(buf)
        parts: list[bytes | memoryview] = []
        done = 0
        for start, end, replacement in self._edits:
            if done < start:
                # A view is itself larger than a small piece.
                parts.append(buf[done:start] if start - done < _SMALL else view[done:start])
            if replacement:
                parts.append(replacement)
            done = end
        parts.append(view[done:])
        return b"".join(parts)


_SMALL: Final = 1024
# Stands for a length prefix until it is known whether anything behind it changes.
_UNCHANGED: Final = (0, 0, b"")
