"""Metadata in the forms that other SDKs and backends know: one JSON object, or an attribute for each member."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.json_text import repaired
from neatlogs_processor.core.schema import END_USER_METADATA
from neatlogs_processor.core.strict import Json, json_of, text_of

MAX_METADATA_CHARS: Final = 2**20
"""Longer metadata is not read: a tree of it takes some twenty times its size, whoever made it up."""

# NaN and infinities are no JSON; they become the strings that protobuf's JSON mapping gives them.
_DECODER: Final = json.JSONDecoder(parse_constant=str)
# What text that is JSON and more than a bare word begins with.
_BEGINS: Final = ("{", "[", '"')


def read_object(text: str) -> dict[str, Json] | None:
    """The JSON object that a text is; None where it is something else, or too long to be read."""
    if len(text) > MAX_METADATA_CHARS:
        return None
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        # Not JSON, a number of thousands of digits, or an object inside another a thousand times.
        return None
    return value if isinstance(value, dict) else None


def write(value: Json) -> str:
    """Write JSON as the rule writes it: keys sorted, compact, and nothing that UTF-8 cannot hold."""
    return repaired(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def object_text(value: AnyValue) -> str | None:
    """An attribute's value as metadata: text that is a JSON object stays as it is, a map becomes one.

    Returns:
        The text; None where it is neither, has no members, or is too long to be read.
    """
    if value.HasField("string_value"):
        return value.string_value if read_object(value.string_value) else None
    if value.ByteSize() > MAX_METADATA_CHARS:
        return None
    return text_of(END_USER_METADATA, value) if value.kvlist_value.values else None


def members_text(members: Mapping[str, AnyValue]) -> str | None:
    """Metadata from an attribute for each of its members.

    SDKs write members that are no text as JSON, and some write texts so too: what is a JSON object, array or string is
    read. A bare number or word stays text, because it may have been one; filters take it for either.

    Returns:
        The text; None where there are no members, or they are too long to be read.
    """
    if not members or sum(len(name) + value.ByteSize() for name, value in members.items()) > MAX_METADATA_CHARS:
        return None
    return write({name: _member(value) for name, value in members.items()})


def _member(value: AnyValue) -> Json:
    text = value.string_value
    if not text.startswith(_BEGINS):
        return json_of(value)
    try:
        read: Json = _DECODER.decode(text)
        write(read)
    except (ValueError, RecursionError):
        return text
    return read


def member_texts(metadata: str) -> dict[str, str]:
    """The members of metadata as texts, for an attribute each: what is no text becomes JSON, and null is left out."""
    members = read_object(metadata)
    if members is None:
        return {}
    texts: dict[str, str] = {}
    for name, value in members.items():
        if value is not None:
            texts[repaired(name)] = repaired(value) if isinstance(value, str) else write(value)
    return texts
