"""OTLP requests in JSON become protobuf (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).

The mapping is protobuf's own (https://protobuf.dev/programming-guides/json/) but for this:

- trace and span ids are hexadecimal, in any case;
- enums are integers, never names;
- members that OTLP does not define are passed over;
- no object names a member twice, in whatever spelling (`traceId`, `trace_id`, `trace\\u0049d`).

A request is written out in protobuf while it is read: nothing stands in between, so memory stays near the sizes of
the two, and time grows with the size alone.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core import json_text
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.schema import FIXED32, FIXED64, LEN, VARINT
from neatlogs_processor.core.wire import encode_varint
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError

MAX_DEPTH: Final = 128
"""The most that `max_depth` may be: as many levels of JSON make fewer than 100 messages inside messages, which is where
protobuf's readers stop."""

_HEX = frozenset({"trace_id", "span_id", "parent_span_id"})
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]*={0,2}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_INTEGER = re.compile(rb'(?:"(-?(?:0|[1-9][0-9]{0,18}))"|(-?(?:0|[1-9][0-9]{0,18})))(?=[ \t\n\r,\]}])')
# Longer than any number needs to be; reading digits by the million is slow.
_MAX_INTEGER_CHARS = 64
_MAX_DOUBLE_CHARS = 1100
_MAX_EXPONENT = re.compile(rb"[eE][+-]?[0-9]{4,}")
_WORDS = {b"NaN": math.nan, b"Infinity": math.inf, b"-Infinity": -math.inf}


class _Wrong(Exception):  # noqa: N818  # never leaves this module
    """A value that does not fit its field; `path` grows on the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path = ""


_Write: TypeAlias = "Callable[[_Reader, int, _Field, int], int]"
"""Writes the value at a position, without its tag, and returns the position after it."""


@dataclass(frozen=True)
class _Field:
    name: str
    tag: bytes
    write: _Write
    repeated: bool
    packed: bool
    oneof: str | None
    low: int = 0
    high: int = 0
    zigzag: bool = False
    layout: struct.Struct | None = None
    members: dict[bytes, _Field] = field(default_factory=dict)


class _Reader:
    """One request on its way from JSON to protobuf."""

    def __init__(self, text: bytes, max_depth: int, max_size: int) -> None:
        self.text = text
        self.out = bytearray()
        self.max_depth = max_depth
        self.max_size = max_size

    def object(self, pos: int, members: dict[bytes, _Field], depth: int) -> int:
        """Write the members of the object at `pos`; return the position after it."""
        text = self.text
        if text[pos : pos + 1] != b"{":
            raise self.wrong(pos, "an object")
        if depth >= self.max_depth:
            raise json_text.too_deep(self.max_depth)
        pos = json_text.skip_space(text, pos + 1)
        if text[pos : pos + 1] == b"}":
            return pos + 1
        seen: set[bytes | str] = set()
        unread: set[bytes] = set()
        while True:
            plain = json_text.NAME.match(text, pos)
            if plain is not None:
                name, pos = plain[1], plain.end()
            else:
                name, pos = json_text.read_name(text, pos)
            found = members.get(name)
            if found is None:
                json_text.note_unread(name, unread)
                pos = json_text.skip_value(text, pos, depth + 1, self.max_depth)
            else:
                pos = self._member(pos, found, seen, depth + 1)
            following = json_text.NEXT_MEMBER.match(text, pos)
            if following is None:
                json_text.refuse(pos, "a comma or the end of the object is missing")
            pos = following.end()
            if not following.lastindex:
                return pos

    def _member(self, pos: int, found: _Field, seen: set[bytes | str], depth: int) -> int:
        if found.tag in seen:
            raise MalformedOtlpError(f"an object names {found.name} twice")
        seen.add(found.tag)
        if self.text.startswith(b"null", pos):
            # The same as not being there.
            return pos + 4
        if found.oneof is not None:
            if found.oneof in seen:
                raise MalformedOtlpError(f"{found.name} stands beside another member that excludes it")
            seen.add(found.oneof)
        try:
            if found.repeated:
                return self._array(pos, found, depth)
            self.out += found.tag
            return found.write(self, pos, found, depth)
        except _Wrong as wrong:
            separator = "." if wrong.path and not wrong.path.startswith("[") else ""
            wrong.path = f"{found.name}{separator}{wrong.path}"
            raise

    def _array(self, pos: int, found: _Field, depth: int) -> int:
        text, out = self.text, self.out
        if text[pos : pos + 1] != b"[":
            raise self.wrong(pos, "an array")
        if depth >= self.max_depth:
            raise json_text.too_deep(self.max_depth)
        pos = json_text.skip_space(text, pos + 1)
        if text[pos : pos + 1] == b"]":
            return pos + 1
        if found.packed:
            out += found.tag
        start = len(out)
        index = 0
        while True:
            if not found.packed:
                out += found.tag
            try:
                pos = found.write(self, pos, found, depth + 1)
            except _Wrong as wrong:
                wrong.path = f"[{index}]{'.' if wrong.path else ''}{wrong.path}"
                raise
            following = json_text.NEXT_ELEMENT.match(text, pos)
            if following is None:
                json_text.refuse(pos, "a comma or the end of the array is missing")
            pos = following.end()
            if not following.lastindex:
                break
            if len(out) > self.max_size:
                # Outside of arrays nothing is larger in protobuf than in JSON.
                raise RequestTooLargeError(
                    f"the request has more than {self.max_size} bytes in protobuf (--max-message-size)"
                )
            index += 1
        if found.packed:
            self.close(start)
        return pos

    def close(self, start: int) -> None:
        """Put the length before what was written since `start`."""
        length = len(self.out) - start
        if length < 0x80:
            self.out.insert(start, length)
        else:
            self.out[start:start] = encode_varint(length)

    def put(self, value: bytes) -> None:
        """Write a value with its length."""
        length = len(value)
        if length < 0x80:
            self.out.append(length)
        else:
            self.out += encode_varint(length)
        self.out += value

    def wrong(self, pos: int, wanted: str) -> Exception:
        """Return the error of a value that is not what it has to be. The value is not repeated: it is payload."""
        try:
            json_text.skip_value(self.text, pos, 0, self.max_depth)
        except MalformedOtlpError as error:
            return error
        return _Wrong(f"{wanted} is expected")

    def quoted(self, pos: int, wanted: str) -> tuple[bytes, int]:
        """Read a string."""
        if self.text[pos : pos + 1] != b'"':
            raise self.wrong(pos, wanted)
        return json_text.read_string(self.text, pos)

    def numeral(self, pos: int, wanted: str) -> tuple[bytes, int]:
        """Read a number, or a string that should be one."""
        if self.text[pos : pos + 1] == b'"':
            return json_text.read_string(self.text, pos)
        number = json_text.NUMBER.match(self.text, pos)
        if number is None:
            raise self.wrong(pos, wanted)
        return number[0], number.end()


def _message(reader: _Reader, pos: int, found: _Field, depth: int) -> int:
    start = len(reader.out)
    pos = reader.object(pos, found.members, depth)
    reader.close(start)
    return pos


def _text(reader: _Reader, pos: int, _found: _Field, _depth: int) -> int:
    value, pos = reader.quoted(pos, "a string")
    reader.put(value)
    return pos


def _id(reader: _Reader, pos: int, _found: _Field, _depth: int) -> int:
    value, pos = reader.quoted(pos, "a string of hexadecimal digits")
    try:
        reader.put(binascii.unhexlify(value))
    except binascii.Error:
        raise _Wrong("a string of hexadecimal digits, two for each byte, is expected") from None
    return pos


def _bytes(reader: _Reader, pos: int, _found: _Field, _depth: int) -> int:
    value, pos = reader.quoted(pos, "a string in base64")
    digits = value.rstrip(b"=")
    if not _BASE64.fullmatch(value) or len(digits) % 4 == 1 or (len(digits) < len(value) and len(value) % 4):
        raise _Wrong("a string in base64 is expected")
    reader.put(base64.b64decode(digits.translate(_URL_SAFE) + b"=" * (-len(digits) % 4)))
    return pos


def _bool(reader: _Reader, pos: int, _found: _Field, _depth: int) -> int:
    for word, value in ((b"true", 1), (b"false", 0)):
        if reader.text.startswith(word, pos):
            reader.out.append(value)
            return pos + len(word)
    raise reader.wrong(pos, "true or false")


def _enum(reader: _Reader, pos: int, found: _Field, depth: int) -> int:
    if reader.text[pos : pos + 1] == b'"':
        raise reader.wrong(pos, "an integer (OTLP writes enums as integers, not as names)")
    return _integer(reader, pos, found, depth)


def _integer(reader: _Reader, pos: int, found: _Field, _depth: int) -> int:
    usual = _INTEGER.match(reader.text, pos)
    if usual is not None:
        value, pos = int(usual[1] or usual[2]), usual.end()
    else:
        numeral, pos = reader.numeral(pos, "an integer")
        value = _integer_of(numeral)
    if not found.low <= value <= found.high:
        raise _Wrong(f"an integer from {found.low} to {found.high} is expected")
    if found.layout is not None:
        reader.out += found.layout.pack(value)
    elif found.zigzag:
        reader.out += encode_varint(value * 2 if value >= 0 else -value * 2 - 1)
    else:
        reader.out += encode_varint(value if value >= 0 else value + 2**64)
    return pos


def _integer_of(numeral: bytes) -> int:
    """Read an integer in an unusual form, such as 1.5e3."""
    if (
        len(numeral) > _MAX_INTEGER_CHARS
        or not json_text.NUMBER.fullmatch(numeral)
        or _MAX_EXPONENT.search(numeral)
        or abs(float(numeral)) > 2.0**64
    ):
        raise _Wrong("an integer of at most 64 bits is expected")
    number = Decimal(numeral.decode())
    if number != number.to_integral_value():
        raise _Wrong("an integer is expected")
    return int(number)


def _double(reader: _Reader, pos: int, found: _Field, _depth: int) -> int:
    numeral, pos = reader.numeral(pos, "a number")
    value = _WORDS.get(numeral) if reader.text[pos - 1 : pos] == b'"' else None
    if value is None:
        if not json_text.NUMBER.fullmatch(numeral) or len(numeral) > _MAX_DOUBLE_CHARS:
            raise _Wrong("a number is expected")
        value = float(numeral)
        if math.isinf(value):
            raise _Wrong("a number that a double can hold is expected")
    assert found.layout is not None  # noqa: S101  # what the table below says
    reader.out += found.layout.pack(value)
    return pos


def _signed(bits: int) -> dict[str, Any]:
    return {"low": -(2 ** (bits - 1)), "high": 2 ** (bits - 1) - 1}


def _unsigned(bits: int) -> dict[str, Any]:
    return {"low": 0, "high": 2**bits - 1}


_TYPES: dict[int, tuple[int, _Write, dict[str, Any]]] = {
    FieldDescriptor.TYPE_MESSAGE: (LEN, _message, {}),
    FieldDescriptor.TYPE_STRING: (LEN, _text, {}),
    FieldDescriptor.TYPE_BYTES: (LEN, _bytes, {}),
    FieldDescriptor.TYPE_BOOL: (VARINT, _bool, {}),
    FieldDescriptor.TYPE_ENUM: (VARINT, _enum, _signed(32)),
    FieldDescriptor.TYPE_INT32: (VARINT, _integer, _signed(32)),
    FieldDescriptor.TYPE_INT64: (VARINT, _integer, _signed(64)),
    FieldDescriptor.TYPE_UINT32: (VARINT, _integer, _unsigned(32)),
    FieldDescriptor.TYPE_UINT64: (VARINT, _integer, _unsigned(64)),
    FieldDescriptor.TYPE_SINT32: (VARINT, _integer, {**_signed(32), "zigzag": True}),
    FieldDescriptor.TYPE_FIXED32: (FIXED32, _integer, {**_unsigned(32), "layout": struct.Struct("<I")}),
    FieldDescriptor.TYPE_FIXED64: (FIXED64, _integer, {**_unsigned(64), "layout": struct.Struct("<Q")}),
    FieldDescriptor.TYPE_SFIXED64: (FIXED64, _integer, {**_signed(64), "layout": struct.Struct("<q")}),
    FieldDescriptor.TYPE_DOUBLE: (FIXED64, _double, {"layout": struct.Struct("<d")}),
}


def _members(message: Descriptor, known: dict[str, dict[bytes, _Field]]) -> dict[bytes, _Field]:
    """Return the fields of a message under both of their names: `traceId` and `trace_id`."""
    if message.full_name in known:
        return known[message.full_name]
    members = known[message.full_name] = {}
    for one in message.fields:
        wire_type, write, more = _TYPES[one.type]
        packed = one.is_repeated and wire_type != LEN
        made = _Field(
            name=one.json_name,
            tag=encode_varint(one.number << 3 | (LEN if packed else wire_type)),
            write=_id if one.name in _HEX else write,
            repeated=one.is_repeated,
            packed=packed,
            oneof=None if one.containing_oneof is None else one.containing_oneof.name,
            members=_members(one.message_type, known) if one.message_type is not None else {},
            **more,
        )
        members[one.json_name.encode()] = members[one.name.encode()] = made
    return members


_KNOWN: dict[str, dict[bytes, _Field]] = {}
_REQUESTS = {
    Signal.TRACES: _members(ExportTraceServiceRequest.DESCRIPTOR, _KNOWN),
    Signal.METRICS: _members(ExportMetricsServiceRequest.DESCRIPTOR, _KNOWN),
    Signal.LOGS: _members(ExportLogsServiceRequest.DESCRIPTOR, _KNOWN),
}


def request_from_json(signal: Signal, text: bytes, *, max_depth: int = MAX_DEPTH, max_size: int = sys.maxsize) -> bytes:
    """Return the `Export…ServiceRequest` that a JSON text holds, serialised. Empty text is an empty request.

    Args:
        signal: Which request it is.
        text: The JSON text, in UTF-8; a byte order mark is passed over.
        max_depth: How many objects and arrays may be open at once, at most `MAX_DEPTH`.
        max_size: About how many bytes may come out; `[0,0]` is four times as large in protobuf.

    Raises:
        RequestTooLargeError: More than `max_size` bytes come out.
        MalformedOtlpError: It is not JSON, or not OTLP. The message says where, and repeats no value.
    """
    json_text.check_encoding(text)
    pos = json_text.skip_space(text, 3 if text.startswith(b"\xef\xbb\xbf") else 0)
    if pos == len(text):
        return b""
    reader = _Reader(text, max_depth, max_size)
    try:
        pos = json_text.skip_space(text, reader.object(pos, _REQUESTS[signal], 0))
    except _Wrong as wrong:
        raise MalformedOtlpError(f"{wrong.path or 'the request'}: {wrong}") from None
    if pos != len(text):
        json_text.refuse(pos, "something follows the request")
    return bytes(reader.out)
