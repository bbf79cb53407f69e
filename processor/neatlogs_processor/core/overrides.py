"""Describing ignored overrides: where they stood and under which key, never their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from neatlogs_processor.core.attributes import Found, read_key
from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.core.schema import (
    END_USER_ID,
    END_USER_METADATA,
    END_USER_SOURCE,
    LEN,
    RESOURCE,
    SCOPE_NAME,
    SERVICE_NAME,
)
from neatlogs_processor.core.spans import describe_span
from neatlogs_processor.core.strict import read_key_value
from neatlogs_processor.core.wire import Field, fields
from neatlogs_processor.errors import MalformedOtlpError

_TEXT: Final = {key: key.decode() for key in (END_USER_ID, END_USER_METADATA, END_USER_SOURCE)}


def describe(place: Place, removed: Sequence[Found], buf: bytes, start: int, end: int, service: str) -> list[Override]:
    """Describe attributes that were removed from one span, or one scope.

    Args:
        place: Where they stood.
        removed: The attributes.
        buf: Holds the span that they stood on, or the scope, at `start` to `end`; it has been walked before.
        service: The resource's `service.name`, or `""`.
    """
    if place is Place.SCOPE:
        trace_id = span_id = b""
        name = _string_field(buf, start, end, SCOPE_NAME)
    else:
        trace_id, span_id, name = describe_span(buf, start, end)
    # As NamedTuple itself does it, without the call in between: a small batch of overrides is mostly this line.
    return [
        tuple.__new__(
            Override, (trace_id, span_id, service, name, place, _TEXT.get(key) or key.decode("utf-8", "replace"))
        )
        for _, _, _, _, key, _ in removed
    ]


def service_name(body: bytes, resources: Sequence[Field]) -> str:
    """The resource's `service.name`, or `""` where it has none that is a string, or cannot be read.

    Args:
        body: The request.
        resources: Where the resource stands in it; more than once, if it is written more than once.
    """
    try:
        for resource in resources:
            for field in fields(body, resource.start, resource.end, refuse_groups=True):
                if field.number == RESOURCE.attributes and body.find(SERVICE_NAME, field.start, field.end) >= 0:
                    key, _ = read_key(body, field.start, field.end)
                    if key == SERVICE_NAME:
                        return read_key_value(body[field.start : field.end]).value.string_value
    except MalformedOtlpError:
        # A name is not worth a refusal: without identity attributes nobody asks a resource to be readable.
        return ""
    return ""


def _string_field(buf: bytes, start: int, end: int, number: int) -> str:
    """The last string of that field number in a message that has been walked before, or `""`."""
    text = b""
    for field in fields(buf, start, end, refuse_groups=True):
        if field.number == number and field.wire_type == LEN:
            text = buf[field.start : field.end]
    return text.decode("utf-8", "replace")
