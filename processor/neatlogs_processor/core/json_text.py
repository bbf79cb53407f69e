r"""JSON text, in UTF-8 bytes, read where it stands (https://www.rfc-editor.org/rfc/rfc8259).

No objects are built of it: a tree of them takes twenty times the memory of small JSON values, so that a body within its
size limit could still exhaust a process. The reader holds a position; strings without escapes, which are nearly all,
are slices.

Stricter than the grammar in one thing: no object names a member twice, because readers disagree about what that means.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Final, NoReturn

from neatlogs_processor.errors import MalformedOtlpError

MAX_UNREAD_MEMBERS: Final = 1024
"""Members of one object that nobody reads. OTLP has no objects with free names, and each name has to be remembered."""

NAME: Final = re.compile(rb'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
"""A member's name without escapes, and the colon; group 1 is the name."""

STRING: Final = re.compile(rb'"([^"\\\x00-\x1f]*)"')
"""A string without escapes; group 1 is what it holds."""

NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number."""

NEXT_MEMBER: Final = re.compile(rb"[ \t\n\r]*(?:(,)[ \t\n\r]*|\})")
"""What follows a member: a comma (group 1) or the end of the object."""

NEXT_ELEMENT: Final = re.compile(rb"[ \t\n\r]*(?:(,)[ \t\n\r]*|\])")
"""What follows an element: a comma (group 1) or the end of the array."""

_SCALAR_ELEMENTS = re.compile(
    rb"(?:(?:" + STRING.pattern + rb"|" + NUMBER.pattern + rb"|true|false|null)[ \t\n\r]*,[ \t\n\r]*){1,512}"
)
# Many at once, because an array of millions would hold a processor up for long; not all, because the engine remembers
# where each began.

_SPACE = re.compile(rb"[ \t\n\r]*")
_COLON = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
_LITERAL = re.compile(rb"true|false|null")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BACKSLASH = 0x5C
_CHUNK = 2**20


def refuse(pos: int, what: str) -> NoReturn:
    """Say that the text is not JSON."""
    raise MalformedOtlpError(f"not JSON: {what} at byte {pos}")


def check_encoding(text: bytes) -> None:
    """Refuse text that is not UTF-8, without ever holding a decoded copy of all of it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _CHUNK):
            decoder.decode(text[start : start + _CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise MalformedOtlpError("not JSON: the text is not UTF-8") from None


def skip_space(text: bytes, pos: int) -> int:
    """Return the position of the next token."""
    space = _SPACE.match(text, pos)
    assert space is not None  # noqa: S101  # the pattern matches everywhere
    return space.end()


def read_string(text: bytes, pos: int) -> tuple[bytes, int]:
    r"""Read the string whose quote stands at `pos`.

    Returns:
        What it holds, in UTF-8, and the position after it. Half of a surrogate pair, which UTF-8 cannot hold, becomes
        U+FFFD: the same client's protobuf encoder writes that too.
    """
    plain = STRING.match(text, pos)
    if plain is not None:
        return plain[1], plain.end()
    end = pos + 1
    while True:
        end = text.find(b'"', end)
        if end < 0:
            refuse(pos, "a string that does not end")
        before = end - 1
        while text[before] == _BACKSLASH:
            before -= 1
        if (end - before) % 2:
            break
        end += 1
    try:
        decoded: str = json.loads(text[pos : end + 1].decode())
    except ValueError:
        # A control character or an escape that does not exist; the message would quote the string.
        raise MalformedOtlpError(f"not JSON: the string at byte {pos} cannot be read") from None
    return repaired(decoded).encode(), end + 1


def repaired(text: str) -> str:
    """Return a text that UTF-8 can hold: half of a surrogate pair becomes U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def read_name(text: bytes, pos: int) -> tuple[bytes, int]:
    """Read a member's name and the colon; return the name and the position of the value."""
    if text[pos : pos + 1] != b'"':
        refuse(pos, "a member's name is missing")
    name, pos = read_string(text, pos)
    colon = _COLON.match(text, pos)
    if colon is None:
        refuse(pos, "a colon is missing")
    return name, colon.end()


def note_unread(name: bytes, unread: set[bytes], max_members: int = MAX_UNREAD_MEMBERS) -> None:
    """Remember a member that nobody reads; refuse its second coming, and more of them than anybody needs."""
    if name in unread:
        raise MalformedOtlpError("an object names a member twice")
    if len(unread) == max_members:
        raise MalformedOtlpError(f"an object has over {max_members} members that are not known here")
    unread.add(name)


def skip_value(text: bytes, pos: int, depth: int, max_depth: int, max_members: int = MAX_UNREAD_MEMBERS) -> int:
    """Pass over a value that nobody reads.

    Args:
        text: The text.
        pos: Where the value begins.
        depth: How many objects and arrays are open around it.
        max_depth: How many may be open.
        max_members: How many members one object may have.

    Returns:
        The position after it.
    """
    # An object that is open is the set of its names; an array is None.
    opened: list[set[bytes] | None] = []
    while True:
        first = text[pos : pos + 1]
        if first in (b"{", b"["):
            if depth + len(opened) >= max_depth:
                raise too_deep(max_depth)
            inside: set[bytes] | None = set() if first == b"{" else None
            opened.append(inside)
            pos = skip_space(text, pos + 1)
            if text[pos : pos + 1] == (b"]" if inside is None else b"}"):
                opened.pop()
                pos += 1
            else:
                pos = _enter(text, pos, inside, max_members)
                continue
        else:
            pos = _skip_scalar(text, pos)
        while opened:
            inside = opened[-1]
            following = (NEXT_ELEMENT if inside is None else NEXT_MEMBER).match(text, pos)
            if following is None:
                refuse(pos, "a comma or an end is missing")
            pos = following.end()
            if following.lastindex:
                pos = _enter(text, pos, inside, max_members)
                break
            opened.pop()
        else:
            return pos


def too_deep(max_depth: int) -> MalformedOtlpError:
    """Return the error of a value that nests too deeply."""
    return MalformedOtlpError(f"nested over {max_depth} levels deep (--max-json-depth)")


def _enter(text: bytes, pos: int, inside: set[bytes] | None, max_members: int) -> int:
    """Return where the next value begins: in an object after the name, in an array after scalars that others follow."""
    if inside is None:
        while scalars := _SCALAR_ELEMENTS.match(text, pos):
            pos = scalars.end()
        return pos
    name, pos = read_name(text, pos)
    note_unread(name, inside, max_members)
    return pos


def _skip_scalar(text: bytes, pos: int) -> int:
    if text[pos : pos + 1] == b'"':
        return read_string(text, pos)[1]
    scalar = NUMBER.match(text, pos) or _LITERAL.match(text, pos)
    if scalar is None:
        refuse(pos, "a value is missing")
    return scalar.end()
