"""Content on spans: what `capture_input` and `capture_output` write, and what a mask leaves of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from neatlogs_otel import conventions
from neatlogs_otel._warnings import warn_once

Mask = Callable[[dict[str, Any]], "Mapping[str, Any] | None"]
"""Gets attributes by key, returns those that may stay; it may change, add and leave out."""

MAX_CAPTURED_ITEMS: Final = 10_000
"""How many items of a generator `capture_output` keeps: a stream without an end must not fill the memory."""


def masked(attributes: Mapping[str, Any], masks: tuple[Mask, ...], *, place: str) -> dict[str, AttributeValue]:
    """The attributes after the masks, the first mask first. A mask that fails leaves nothing. Never raises."""
    content = dict(attributes)
    if not content:
        return content
    for mask in masks:
        try:
            left = mask(content)
            content = dict(left) if left is not None else {}
        except Exception as error:  # noqa: BLE001, PERF203  # the application's mask; what it did not mask must not get out
            warn_once(
                "mask_failed",
                place,
                "The mask of %s raised %s; the content is dropped, the end user stays.",
                place,
                type(error).__name__,
            )
            return {}
    return content


def input_content(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """A call's arguments by name, without `self` or `cls`."""
    if signature is None:
        return {"args": list(args), **kwargs}
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # The call itself is about to fail with the same error.
        return {"args": list(args), **kwargs}
    content = dict(bound.arguments)
    first = next(iter(signature.parameters), None)
    if first in ("self", "cls"):
        content.pop(first, None)
    return content


def input_attributes(value: object, *, place: str) -> dict[str, AttributeValue]:
    """`input.value` with its media type."""
    return _content(conventions.INPUT_VALUE, conventions.INPUT_MIME_TYPE, value, place)


def output_attributes(value: object, *, place: str) -> dict[str, AttributeValue]:
    """`output.value` with its media type."""
    return _content(conventions.OUTPUT_VALUE, conventions.OUTPUT_MIME_TYPE, value, place)


def _content(value_key: str, type_key: str, value: object, place: str) -> dict[str, AttributeValue]:
    if isinstance(value, str):
        return {value_key: str.__str__(value), type_key: conventions.TEXT_MIME_TYPE}
    try:
        return {value_key: conventions.encode_json(value), type_key: conventions.JSON_MIME_TYPE}
    except conventions.RefusedError as error:
        warn_once(
            "content_refused", (place, value_key), "%s of %s is not captured, because %s.", value_key, place, error
        )
        return {}


class CapturedItems:
    """What a generator has yielded so far."""

    __slots__ = ("_items", "_more")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._more = False

    def add(self, item: Any) -> None:
        """Keep one item, up to `MAX_CAPTURED_ITEMS`."""
        if len(self._items) < MAX_CAPTURED_ITEMS:
            self._items.append(item)
        else:
            self._more = True

    def value(self, *, place: str) -> object:
        """Text joined where every item is text (a streamed answer), else the list of items."""
        if self._more:
            warn_once("content_cut", place, "Only the first %d items of %s are captured.", MAX_CAPTURED_ITEMS, place)
        if self._items and all(isinstance(item, str) for item in self._items):
            return "".join(self._items)
        return self._items
