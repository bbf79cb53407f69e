"""Reading the JSON text of a plain trace where it stands: a value is a place in the text, not an object.

What a plain trace holds for people (what went in, what came out) stays JSON text: it is cut out and never built.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from neatlogs_processor.core import json_text
from neatlogs_processor.core.plain_times import nanoseconds_of, time_of_text
from neatlogs_processor.errors import MalformedOtlpError

MAX_MEMBERS: Final = 16 * 1024
"""Members of one object: each name has to be remembered, so that none comes twice."""

# Longer than any number needs to be; reading digits by the million is slow.
_MAX_NUMBER_CHARS = 1100
_INTEGER = re.compile(r"-?[0-9]{1,19}")


class Value(NamedTuple):
    """A JSON value: where it begins, and where it ends."""

    start: int
    end: int


class FieldError(MalformedOtlpError):
    """A value that does not fit its field. The message names the field and repeats nothing of the value."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(f"{path}: {wanted} is expected")


class JsonReader:
    """Reads one text.

    Args:
        text: The JSON text; its encoding has been checked.
        max_depth: How many objects and arrays may be open at once.
    """

    def __init__(self, text: bytes, max_depth: int) -> None:
        self._text = text
        self._max_depth = max_depth

    def whole(self) -> Value:
        """Return where the text's one value begins; where it ends is not known yet."""
        text = self._text
        start = json_text.skip_space(text, 3 if text.startswith(b"\xef\xbb\xbf") else 0)
        return Value(start, len(text))

    def nothing_after(self, pos: int) -> None:
        """Refuse what stands behind the text's value."""
        pos = json_text.skip_space(self._text, pos)
        if pos != len(self._text):
            json_text.refuse(pos, "something follows the trace")

    def value(self, pos: int, depth: int) -> Value:
        """Return the value at `pos`, which is passed over.

        Args:
            pos: Where it begins.
            depth: How many objects and arrays are open around it.
        """
        return Value(pos, json_text.skip_value(self._text, pos, depth, self._max_depth, MAX_MEMBERS))

    def first(self, pos: int) -> bytes:
        """Return the byte at a position: the first of a value says what it is."""
        return self._text[pos : pos + 1]

    def is_null(self, value: Value) -> bool:
        """Whether the value is null."""
        return self._text.startswith(b"null", value.start)

    def object(self, pos: int, depth: int, take: Callable[[bytes, int], int]) -> int:
        """Read the object at `pos`; `take` is given each member's name and where its value begins, and says where the
        value ends. Returns where the object ends."""
        text = self._text
        if depth >= self._max_depth:
            raise json_text.too_deep(self._max_depth)
        pos = json_text.skip_space(text, pos + 1)
        if text[pos : pos + 1] == b"}":
            return pos + 1
        seen: set[bytes] = set()
        while True:
            name, pos = json_text.read_name(text, pos)
            json_text.note_unread(name, seen, MAX_MEMBERS)
            pos = take(name, pos)
            following = json_text.NEXT_MEMBER.match(text, pos)
            if following is None:
                json_text.refuse(pos, "a comma or the end of the object is missing")
            pos = following.end()
            if not following.lastindex:
                return pos

    def array(self, pos: int, depth: int, take: Callable[[int], int]) -> int:
        """Read the array at `pos` likewise."""
        text = self._text
        if depth >= self._max_depth:
            raise json_text.too_deep(self._max_depth)
        pos = json_text.skip_space(text, pos + 1)
        if text[pos : pos + 1] == b"]":
            return pos + 1
        while True:
            following = json_text.NEXT_ELEMENT.match(text, pos := take(pos))
            if following is None:
                json_text.refuse(pos, "a comma or the end of the array is missing")
            pos = following.end()
            if not following.lastindex:
                return pos

    def members(self, value: Value, take: Callable[[bytes, Value], None]) -> None:
        """Give `take` the members of an object that has been read before."""

        def step(name: bytes, pos: int) -> int:
            member = self.value(pos, 1)
            take(name, member)
            return member.end

        self.object(value.start, 0, step)

    def elements(self, value: Value, take: Callable[[Value], None]) -> None:
        """Give `take` the elements of an array that has been read before."""

        def step(pos: int) -> int:
            element = self.value(pos, 1)
            take(element)
            return element.end

        self.array(value.start, 0, step)

    def string(self, value: Value) -> str:
        """Return what a string holds."""
        return json_text.read_string(self._text, value.start)[0].decode()

    def written(self, value: Value) -> str:
        """Return the value's JSON text as it stands."""
        return self._text[value.start : value.end].decode()

    def readable(self, value: Value) -> str:
        """Return a string's content, and the JSON text of anything else."""
        return self.string(value) if self.first(value.start) == b'"' else self.written(value)

    def number(self, value: Value, path: str) -> int | float:
        """Return a number: an `int` where it is written as one and 64 bits hold it.

        Raises:
            FieldError: It is no number, or no double holds it.
        """
        written = self._text[value.start : value.end]
        if len(written) > _MAX_NUMBER_CHARS or not json_text.NUMBER.fullmatch(written):
            raise FieldError(path, "a number")
        return _number(written.decode(), path)

    def scalars(self, value: Value, path: str) -> list[str | bool | int | float] | None:
        """Return the elements of an array; `None` if one of them is null, an array or an object.

        Raises:
            FieldError: One is a number that no double holds.
        """

        def read(written: str) -> int | float:
            return _number(written, path)

        found = json.loads(self._text[value.start : value.end], parse_int=read, parse_float=read)
        if any(element is None or isinstance(element, (dict, list)) for element in found):
            return None
        return [json_text.repaired(element) if isinstance(element, str) else element for element in found]

    def duration(self, value: Value, path: str) -> int:
        """Return a number of milliseconds in nanoseconds.

        Raises:
            FieldError: It is none, or below zero, or over two centuries.
        """
        duration = nanoseconds_of(self.number(value, path))
        if duration is None:
            raise FieldError(path, "a number of milliseconds, not below zero,")
        return duration

    def time(self, value: Value, path: str) -> int:
        """Return a time, in ISO 8601 or in milliseconds since 1970, in nanoseconds since 1970.

        Raises:
            FieldError: It is none.
        """
        text = self.first(value.start) == b'"'
        moment = time_of_text(self.string(value)) if text else nanoseconds_of(self.number(value, path))
        if moment is None:
            raise FieldError(path, "a time from 1970 to 2262, in ISO 8601 or in milliseconds,")
        return moment


def _number(written: str, path: str) -> int | float:
    if _INTEGER.fullmatch(written) and -(2**63) <= int(written) < 2**63:
        return int(written)
    if len(written) > _MAX_NUMBER_CHARS or math.isinf(float(written)):
        raise FieldError(path, "a number that a double can hold")
    return float(written)
