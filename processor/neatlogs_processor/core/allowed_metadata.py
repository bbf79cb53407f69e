"""Metadata by allow-list: what of a JSON object may leave, cut out of its text.

What stays keeps its bytes: numbers of any size, escapes, repeated keys. Only the objects around what was removed are
written anew, without white space between their members.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, NoReturn

EVERYTHING: Final = "*"
"""In place of names: all of it may leave."""

_NO_OBJECT: Final = "it is no JSON object that can be read"
_SPACES: Final = " \t\n\r"
_SPACE: Final = re.compile(f"[{_SPACES}]*")


def _nothing(_: str) -> None:
    """Stand in for a number, which need not be converted to be skipped."""


def _refuse(_: str) -> NoReturn:
    raise ValueError(_NO_OBJECT)


_READER: Final = json.JSONDecoder(parse_int=_nothing, parse_float=_nothing, parse_constant=_refuse)


class AllowedMetadata:
    """Which members of metadata may leave.

    Args:
        names: Keys of the object. One with dots also names a member further inside: `company.size` is the member with
            just that key, and the member `size` of the object `company`, the rest of which does not leave. `*` is
            everything.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._everything = EVERYTHING in self._names

    def of(self, text: str) -> str | None:
        """Return what of the metadata may leave, or `None` where nothing of it may.

        Args:
            text: A JSON object. The very same text comes back where nothing has to go.

        Raises:
            ValueError: It is none, or it is nested too deeply to be read.
        """
        try:
            start = _skip(text, 0)
            left, end = _allowed(text, start, self._names, everything=self._everything)
        except (RecursionError, json.JSONDecodeError):
            raise ValueError(_NO_OBJECT) from None
        if _skip(text, end) != len(text):
            raise ValueError(_NO_OBJECT)
        if left == text[start:end]:
            return text
        return None if left == "{}" else left

    def allows(self, name: str) -> bool:
        """Tell whether a member stays that stands alone: under its key, or a path through objects to it."""
        return self._everything or any(name == known or name.startswith(f"{known}.") for known in self._names)


def _allowed(text: str, start: int, names: frozenset[str], *, everything: bool = False) -> tuple[str, int]:
    """Return what may stay of the object that begins at `start`, and where the object ends."""
    if not text.startswith("{", start):
        raise ValueError(_NO_OBJECT)
    kept: list[str] = []
    removed = False
    position = _skip(text, start + 1)
    closed = text.startswith("}", position)
    while not closed:
        key_start = position
        if not text.startswith('"', position):
            raise ValueError(_NO_OBJECT)
        key, position = _READER.raw_decode(text, position)
        key_text = text[key_start:position]
        position = _skip(text, position)
        if not text.startswith(":", position):
            raise ValueError(_NO_OBJECT)
        value_start = _skip(text, position + 1)
        _, position = _READER.raw_decode(text, value_start)
        value: str | None = text[value_start:position]
        if not everything and key not in names:
            value = _inside(text, value_start, frozenset(n[len(key) + 1 :] for n in names if n.startswith(f"{key}.")))
            removed = removed or value != text[value_start:position]
        if value is not None:
            kept.append(f"{key_text}:{value}")
        position = _skip(text, position)
        closed = text.startswith("}", position)
        if not closed:
            if not text.startswith(",", position):
                raise ValueError(_NO_OBJECT)
            position = _skip(text, position + 1)
    end = position + 1
    return (f"{{{','.join(kept)}}}" if removed else text[start:end]), end


def _inside(text: str, start: int, names: frozenset[str]) -> str | None:
    """Return what may stay of a value none of which is named by itself, or `None` where nothing may."""
    if not names or not text.startswith("{", start):
        return None
    left, _ = _allowed(text, start, names)
    return left if left[1:-1].strip(_SPACES) else None


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()
