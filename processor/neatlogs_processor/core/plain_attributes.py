"""Attributes of the spans of a plain trace: what is written, within what may come out at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.plain_json import JsonReader, Value
from neatlogs_processor.errors import RequestTooLargeError

MAX_PIECES: Final = 250_000
"""Attributes, elements of arrays and events of one plain trace. Small ones cost far more than their text."""

MAX_ARRAY_BYTES: Final = 64 * 1024
"""Longer arrays become JSON text: nobody looks for an element in them."""

_OVERHEAD = 16


class Budget:
    """How much may still come out.

    Args:
        size: Bytes, about.
    """

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._pieces = MAX_PIECES

    def spend(self, size: int, pieces: int = 1) -> None:
        """Take pieces from it, and the bytes of their texts together.

        Raises:
            RequestTooLargeError: There is not as much left.
        """
        self._left -= size + pieces * _OVERHEAD
        self._pieces -= pieces
        if self._left < 0:
            raise RequestTooLargeError(f"the trace has more than {self._size} bytes as attributes (--max-message-size)")
        if self._pieces < 0:
            raise RequestTooLargeError(f"a plain trace has at most {MAX_PIECES:,} attributes, elements and events")


class Attributes:
    """The attributes of one span, event or resource; each key once, and what comes first stays.

    Args:
        attributes: Where they are written.
        budget: What they are taken from.
    """

    def __init__(self, attributes: Any, budget: Budget) -> None:
        self._attributes = attributes
        self._budget = budget
        self._keys: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def put(self, key: str, value: str | int | float) -> None:
        """Write an attribute, unless the key is there."""
        if key in self._keys:
            return
        self.add(key, _any_value(value), len(value) if isinstance(value, str) else 0)

    def put_all(self, keys: Iterable[str], value: str | int | float) -> None:
        """Write a value under several keys."""
        for key in keys:
            self.put(key, value)

    def add(self, key: str, value: AnyValue, size: int = 0, pieces: int = 1) -> None:
        """Write an attribute, even if the key is there."""
        self._budget.spend(len(key) + size, pieces)
        self._keys.add(key)
        self._attributes.add(key=key, value=value)


def put_json(to: Attributes, key: str, value: Value, reader: JsonReader, path: str) -> None:
    """Write a JSON value as an attribute: scalars and arrays of them as what they are, anything else as JSON text.

    Args:
        to: Where it is written, unless the key is there.
        key: The attribute's key.
        value: The value; not null.
        reader: The text.
        path: What a message names.

    Raises:
        RequestTooLargeError: There is no room for it.
        FieldError: It holds a number that a double cannot hold.
    """
    first = reader.first(value.start)
    if first in b'"{':
        to.put(key, reader.readable(value))
        return
    if first != b"[":
        to.add(key, scalar(value, reader, path))
        return
    elements = reader.scalars(value, path) if value.end - value.start <= MAX_ARRAY_BYTES else None
    if elements is None:
        to.put(key, reader.written(value))
        return
    flat = AnyValue()
    flat.array_value.values.extend(map(_any_value, elements))
    flat.array_value.SetInParent()
    to.add(key, flat, value.end - value.start, 1 + len(elements))


def scalar(value: Value, reader: JsonReader, path: str) -> AnyValue:
    """Return true, false or a number as an attribute's value.

    Raises:
        FieldError: It is a number that a double cannot hold.
    """
    first = reader.first(value.start)
    return _any_value(first == b"t" if first in b"tf" else reader.number(value, path))


def _any_value(value: str | bool | int | float) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
