"""The strict way: let the official protobuf reader decide what ambiguous bytes mean, and write that down plainly.

A singular field that occurs twice, a known field of the wrong wire type, a oneof that is set twice: readers do not
agree about these, so an identity hidden there could reach one of them. Only the innermost container that needs it comes
here; all else is edited where it stands. This is the one module of the core that uses the generated messages.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.schema import (
    END_USER_ID,
    END_USER_METADATA,
    EVENT,
    LINK,
    RESOURCE,
    SCOPE,
    SPAN,
    Message,
)
from neatlogs_processor.errors import MalformedOtlpError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_TYPES: Final[dict[str, type[ProtobufMessage]]] = {
    SPAN.name: Span,
    EVENT.name: Span.Event,
    LINK.name: Span.Link,
    SCOPE.name: InstrumentationScope,
    RESOURCE.name: Resource,
}


def canonical(message: Message, data: bytes) -> bytes:
    """Rewrite a message so that every reader sees what the official one sees. Unknown fields are kept.

    Raises:
        MalformedOtlpError: The official reader cannot read it.
    """
    try:
        return _TYPES[message.name].FromString(data).SerializeToString()
    except DecodeError as error:
        raise MalformedOtlpError(f"a {message.name} that holds an identity attribute cannot be read") from error


def read_key_value(data: bytes) -> KeyValue:
    """Decode one attribute; errors as for `canonical`."""
    try:
        return KeyValue.FromString(data)
    except DecodeError as error:
        raise MalformedOtlpError("an identity attribute cannot be read") from error


def text_of(key: bytes, value: AnyValue) -> str | None:
    """The string that an identity attribute on a root span or a resource stands for.

    Strings stand for themselves, an int id for its decimal digits, a map as metadata for its JSON (keys sorted by code
    point, compact, bytes as base64, NaN and infinities as the strings that protobuf's JSON mapping gives them).

    Returns:
        The string, or None where the value is of no use.
    """
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value" and key == END_USER_ID:
        return str(value.int_value)
    if kind == "kvlist_value" and key == END_USER_METADATA:
        return json.dumps(json_of(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return None


def json_of(value: AnyValue) -> Json:
    """A value as JSON: bytes as base64, NaN and infinities as the strings that protobuf's JSON mapping gives them."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        members: dict[str, Json] = {}
        for member in value.kvlist_value.values:
            # Of duplicates the first stays, as on the root itself.
            members.setdefault(member.key, json_of(member.value))
        return members
    if kind == "array_value":
        return [json_of(item) for item in value.array_value.values]
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode("ascii")
    if kind == "double_value":
        number = value.double_value
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if kind is None:
        return None
    scalar: Json = getattr(value, kind)
    return scalar
