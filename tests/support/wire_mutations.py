"""Mutations of trace requests that know the wire: most results are still messages, and every one is a new trap.

A mutation descends into the request along OTLP's own fields and edits there: it drops, doubles, swaps and pads
fields, changes wire types, plants identity, parents, groups and unknown fields, and writes the lengths around its edit
anew. Now and then it scrambles bytes and leaves the lengths wrong.
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple, TypeAlias

from support.wire_forms import FIXED32, FIXED64, GROUP, GROUP_END, KEYS, LEN, TEXTS, VARINT, field, varint

Kind: TypeAlias = "dict[int, Kind]"

_ANY_VALUE: Kind = {1: {}, 7: {}}
_KEY_VALUE: Kind = {1: {}, 2: _ANY_VALUE}
_ANY_VALUE[5] = {1: _ANY_VALUE}
_ANY_VALUE[6] = {1: _KEY_VALUE}
_SPAN: Kind = {
    1: {},
    2: {},
    3: {},
    4: {},
    5: {},
    9: _KEY_VALUE,
    11: {2: {}, 3: _KEY_VALUE},
    13: {1: {}, 2: {}, 3: {}, 4: _KEY_VALUE},
    15: {2: {}},
}
_SCOPE: Kind = {1: {}, 2: {}, 3: _KEY_VALUE}
_RESOURCE: Kind = {1: _KEY_VALUE, 3: {1: {}, 2: {}, 3: {}, 4: {}}}
_SCOPE_SPANS: Kind = {1: _SCOPE, 2: _SPAN, 3: {}}
_RESOURCE_SPANS: Kind = {1: _RESOURCE, 2: _SCOPE_SPANS, 3: {}}
REQUEST: Final[Kind] = {1: _RESOURCE_SPANS}

_PAYLOADS: Final = (
    *(text.encode() for text in TEXTS),
    *(key.encode() for key in KEYS),
    b"\0" * 8,
    b"\0\0\0\0\0\0\0\x01",
    b"\x11" * 8,
    b"\0" * 3,
    b"\xff\xfe",
    b"\xed\xa0\x80",
)
_VARINTS: Final = (0, 1, 2, 0x7F, 0x80, 0x300, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)
_FIXED32: Final = (b"\0\0\0\0", b"\x00\x03\0\0", b"\x01\x03\0\0", b"\0\x02\0\0", b"user")
_FIXED64: Final = (b"neatlogs", b"\0" * 8, b"\0\0\0\0\0\0\xf8\x7f", b"\0\0\0\0\0\0\xf0\xff")
_NUMBERS: Final = (*range(1, 19), 99, 1000, 536870911)


class _Piece(NamedTuple):
    number: int
    wire_type: int
    payload: bytes
    tag_padding: int = 0
    length_padding: int = 0

    def encoded(self) -> bytes:
        return field(
            self.number,
            self.wire_type,
            self.payload,
            tag_padding=self.tag_padding,
            length_padding=self.length_padding,
        )


def mutate(body: bytes, chance: Random, *, most: int = 4) -> bytes:
    """Return a request that differs from `body` by one to `most` edits."""
    for _ in range(chance.randint(1, most)):
        body = _edit(body, REQUEST, chance) if chance.random() < 0.95 else _scramble(body, chance)
    return body


def _edit(message: bytes, kind: Kind, chance: Random) -> bytes:
    pieces = _split(message)
    if pieces is None or not kind:
        return chance.choice(_PAYLOADS) if chance.random() < 0.5 else _scramble(message, chance)
    inner = [at for at, piece in enumerate(pieces) if piece.wire_type == LEN and piece.number in kind]
    if inner and chance.random() < 0.8:
        at = chance.choice(inner)
        piece = pieces[at]
        pieces[at] = piece._replace(payload=_edit(piece.payload, kind[piece.number], chance))
    else:
        _EDITS[chance.randrange(len(_EDITS))](pieces, kind, chance)
    return b"".join(piece.encoded() for piece in pieces)


def _drop(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        pieces.pop(chance.randrange(len(pieces)))


def _double(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        pieces.insert(chance.randint(0, len(pieces)), chance.choice(pieces))


def _swap(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        one, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        pieces[one], pieces[other] = pieces[other], pieces[one]


def _pad(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        at = chance.randrange(len(pieces))
        pieces[at] = pieces[at]._replace(
            tag_padding=chance.choice((0, 1, 2, 3, 9)), length_padding=chance.choice((0, 1, 2, 3, 9))
        )


def _plant(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    """A field of this message, with content that matters to the rule."""
    number = chance.choice(tuple(kind))
    pieces.insert(chance.randint(0, len(pieces)), _Piece(number, LEN, _content(kind[number], chance)))


def _plant_odd(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    """A field that nobody expects there: unknown, of another wire type, or a group."""
    number = chance.choice(_NUMBERS)
    form = chance.randrange(6)
    if form == 0:
        odd = _Piece(number, VARINT, varint(chance.choice(_VARINTS), chance.choice((0, 0, 1, 3))))
    elif form == 1:
        odd = _Piece(number, FIXED32, chance.choice(_FIXED32))
    elif form == 2:
        odd = _Piece(number, FIXED64, chance.choice(_FIXED64))
    elif form == 3:
        inside = chance.choice((b"", b"\x08\x01", field(1, LEN, b"neatlogs.end_user.id")))
        odd = _Piece(number, GROUP, inside + field(chance.choice((number, 1)), GROUP_END, b""))
    elif form == 4:
        # The flags of a span: they decide about entry spans.
        odd = _Piece(16, FIXED32, chance.choice(_FIXED32))
    else:
        odd = _Piece(number, LEN, chance.choice(_PAYLOADS))
    pieces.insert(chance.randint(0, len(pieces)), odd)


def _retype(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        at = chance.randrange(len(pieces))
        pieces[at] = pieces[at]._replace(wire_type=chance.choice((VARINT, FIXED64, LEN, FIXED32, GROUP)))


def _renumber(pieces: list[_Piece], kind: Kind, chance: Random) -> None:
    if pieces:
        at = chance.randrange(len(pieces))
        pieces[at] = pieces[at]._replace(number=chance.choice(_NUMBERS))


_EDITS: Final = (_drop, _double, _swap, _pad, _plant, _plant, _plant, _plant_odd, _plant_odd, _retype, _renumber)


def _content(kind: Kind, chance: Random) -> bytes:
    if kind is _KEY_VALUE:
        key = field(1, LEN, chance.choice(KEYS).encode())
        return key + field(2, LEN, _content(_ANY_VALUE, chance))
    if kind is _ANY_VALUE:
        form = chance.randrange(8)
        if form == 0:
            return field(2, VARINT, varint(1))
        if form == 1:
            return field(3, VARINT, varint(chance.choice(_VARINTS)))
        if form == 2:
            return field(4, FIXED64, chance.choice(_FIXED64))
        if form == 3:
            member = field(1, LEN, chance.choice((b"a", b"neatlogs.end_user.id"))) + field(2, LEN, field(1, LEN, b"u"))
            return field(6, LEN, field(1, LEN, member) * chance.randint(0, 2))
        return field(1, LEN, chance.choice(TEXTS).encode())
    if not kind:
        return chance.choice(_PAYLOADS)
    return b"".join(
        field(number, LEN, _content(inner, chance)) for number, inner in kind.items() if chance.random() < 0.5
    )


def _scramble(data: bytes, chance: Random) -> bytes:
    mutated = bytearray(data)
    at = chance.randint(0, len(mutated))
    form = chance.randrange(4)
    if form == 0 and at < len(mutated):
        mutated[at] = chance.randrange(256)
    elif form == 1:
        del mutated[at : at + chance.randint(1, 4)]
    elif form == 2:
        mutated[at:at] = chance.randbytes(chance.randint(1, 3))
    else:
        del mutated[at:]
    return bytes(mutated)


def _split(message: bytes) -> list[_Piece] | None:
    """The fields of a message, or None where it is not one that this simple reader reads."""
    pieces = []
    pos = 0
    while pos < len(message):
        tag, pos = _varint_at(message, pos)
        number, wire_type = tag >> 3, tag & 7
        if pos > len(message) or not 0 < number < 1 << 29:
            return None
        if wire_type == LEN:
            length, pos = _varint_at(message, pos)
            after = pos + length
        elif wire_type == VARINT:
            _, after = _varint_at(message, pos)
        elif wire_type in (FIXED64, FIXED32):
            after = pos + (8 if wire_type == FIXED64 else 4)
        else:
            return None
        if after > len(message):
            return None
        pieces.append(_Piece(number, wire_type, message[pos:after]))
        pos = after
    return pieces


def _varint_at(buf: bytes, pos: int) -> tuple[int, int]:
    """The varint at `pos` and the position after it, which is behind the end where it does not end."""
    value = shift = 0
    for at in range(pos, min(len(buf), pos + 10)):
        value |= (buf[at] & 0x7F) << shift
        if buf[at] < 0x80:
            return value, at + 1
        shift += 7
    return 0, len(buf) + 1
