"""What a root span gives to the other spans of its trace, and putting it there."""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

from neatlogs_processor.core.attributes import read_key
from neatlogs_processor.core.policy import names_somebody
from neatlogs_processor.core.schema import END_USER_ID, END_USER_METADATA, LEN, NAMESPACE, SESSION_ID, SPAN
from neatlogs_processor.core.sought import Search, Sought, scan_span
from neatlogs_processor.core.span_heads import Head
from neatlogs_processor.core.strict import read_key_value
from neatlogs_processor.core.wire import encode_len, fields
from neatlogs_processor.errors import MalformedOtlpError

INHERITED: Final = Sought((END_USER_ID, END_USER_METADATA, SESSION_ID))
"""The keys that children inherit. Where the identity came from (`neatlogs.end_user.source`) stays on the root."""

_SPAN_ID_BYTES: Final = 8
_NO_START: Final = 2**64 - 1


class Owner(NamedTuple):
    """A span that owns identity, as the others of its trace see it.

    Of several the smallest speaks for the trace: by rank, then by the earliest start, then by the smaller span id.

    Attributes:
        order: Decides which is smaller.
        attributes: What the other spans inherit, as encoded fields of a span; empty where there is no end user.
    """

    order: bytes
    attributes: bytes


class Stamp:
    """Puts attributes of an owner on spans.

    Args:
        attributes: See `Owner`.
    """

    def __init__(self, attributes: bytes) -> None:
        self._all = attributes
        each = [
            (read_key(attributes, field.start, field.end)[0], attributes[field.tag : field.end])
            for field in fields(attributes, 0, len(attributes), refuse_groups=True)
        ]
        self._each = each
        self._sought = Sought(key for key, _ in each)

    def on(self, span: bytes) -> bytes:
        """Return a span with those of the attributes that it does not have; the very same object if it has all.

        Args:
            span: One that can be read: its head could.
        """
        for key, _ in self._each:
            # Nearly always it is not even among the values.
            if key in span:
                present = _find(span, self._sought)
                missing = b"".join(field for key, field in self._each if key not in present)
                return span + missing if missing else span
        return span + self._all


def read_owner(head: Head, span: bytes, keys: Sought = INHERITED) -> Owner:
    """Read what a span that owns identity gives to the others of its trace.

    Args:
        head: Its head.
        span: The span after the rule.
        keys: The attributes that others inherit. Of duplicates the first counts.
    """
    order = bytes((head.rank,)) + (head.start or _NO_START).to_bytes(8, "big") + head.span_id[:_SPAN_ID_BYTES]
    if NAMESPACE not in span:
        return Owner(order, b"")
    found = _find(span, keys)
    if not _names_somebody(found.get(END_USER_ID)):
        return Owner(order, b"")
    return Owner(order, b"".join(encode_len(SPAN.attributes, attribute) for attribute in found.values()))


def _find(span: bytes, keys: Sought) -> dict[bytes, bytes]:
    """Find attributes of a span, and return the `KeyValue` of each by its key, in the order of the span."""
    try:
        scanned = scan_span(span, 0, len(span), Search(span, keys)).found
        read = [(key, plain or span[start:end]) for _, _, start, end, key, plain in scanned]
    except (MalformedOtlpError, IndexError):
        # Something in it cannot be read, and nobody asked it to be readable: the rest counts.
        read = _readable(span)
    found: dict[bytes, bytes] = {}
    for key, attribute in read:
        if key in keys:
            found.setdefault(key, attribute)
    return found


def _readable(span: bytes) -> list[tuple[bytes, bytes]]:
    """Key and `KeyValue` of all attributes that can be read."""
    read = []
    for field in fields(span, 0, len(span), refuse_groups=False):
        if field.number == SPAN.attributes and field.wire_type == LEN:
            with contextlib.suppress(MalformedOtlpError):
                key, plain = read_key(span, field.start, field.end)
                read.append((key, plain or span[field.start : field.end]))
    return read


def _names_somebody(attribute: bytes | None) -> bool:
    try:
        return attribute is not None and names_somebody(read_key_value(attribute).value.string_value)
    except MalformedOtlpError:
        return False
