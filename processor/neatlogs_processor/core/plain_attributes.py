"""Attributes of the spans of a plain trace: what is written, within what may come out at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.plain_json import JsonReader, Value
from neatlogs_processor.errors import RequestTooLargeError

OVERHEAD: Final = 16
"""What an attribute, or an element of an array, costs beside its text."""


class Budget:
    """How much may still come out.

    Args:
        size: Bytes, about.
    """

    def __init__(self, size: int) -> None:
        self._size = self._left = size

    def spend(self, size: int) -> None:
        """Take from it.

        Raises:
            RequestTooLargeError: There is not as much left.
        """
        self._left -= size
        if self._left < 0:
            raise RequestTooLargeError(f"the trace has more than {self._size} bytes as attributes (--max-message-size)")


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
        if isinstance(value, str):
            self.add(key, AnyValue(string_value=value), len(value))
        elif isinstance(value, int):
            self.add(key, AnyValue(int_value=value))
        else:
            self.add(key, AnyValue(double_value=value))

    def put_all(self, keys: Iterable[str], value: str | int | float) -> None:
        """Write a value under several keys."""
        for key in keys:
            self.put(key, value)

    def spend(self, size: int) -> None:
        """Take from the budget."""
        self._budget.spend(size)

    def add(self, key: str, value: AnyValue, size: int = 0) -> None:
        """Write an attribute, even if the key is there."""
        self._budget.spend(len(key) + size + OVERHEAD)
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
    flat = AnyValue()
    flat.array_value.SetInParent()
    nested = False

    def take(element: Value) -> None:
        nonlocal nested
        kind = reader.first(element.start)
        nested = nested or kind in b"{[n"
        if nested:
            return
        to.spend(element.end - element.start + OVERHEAD)
        if kind == b'"':
            flat.array_value.values.add(string_value=reader.string(element))
        else:
            flat.array_value.values.append(scalar(element, reader, path))

    reader.elements(value, take)
    if nested:
        to.put(key, reader.written(value))
    else:
        to.add(key, flat)


def scalar(value: Value, reader: JsonReader, path: str) -> AnyValue:
    """Return true, false or a number as an attribute's value.

    Raises:
        FieldError: It is a number that a double cannot hold.
    """
    first = reader.first(value.start)
    if first in b"tf":
        return AnyValue(bool_value=first == b"t")
    number = reader.number(value, path)
    return AnyValue(int_value=number) if isinstance(number, int) else AnyValue(double_value=number)
