"""Accepting and emitting once more, the plain way, on decoded spans: what the stages have to equal.

Written without a look at the stages. Keys are those of `KEYS`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.oracle import ID, METADATA, SOURCE, is_identity, plain_value, settle

KEYS = "user.id,session.id,input.value=metadata,langfuse.trace.metadata.*"
SESSION = "neatlogs.session.id"
PREFIX = "langfuse.trace.metadata."

Decided = tuple[Mapping[str, str], Collection[str]] | None


def is_key(key: str) -> bool:
    """Whether `KEYS` names a key."""
    return key in ("user.id", "session.id", "input.value") or key.startswith(PREFIX)


def accept(span: Span) -> Decided:
    """What accepting does to a span that owns identity."""
    texts, _, _, refused = settle([one for one in span.attributes if is_identity(one.key)])
    put: dict[str, str] = {}
    if not refused and not texts.get(ID, "").strip():
        user = _first_id(span, "user.id")
        if user is not None:
            put |= {ID: user, SOURCE: "user.id"}
        metadata = _metadata(span)
        if METADATA not in texts and metadata is not None:
            put[METADATA] = metadata
    session = _first_id(span, "session.id")
    own = [one.value for one in span.attributes if one.key == SESSION]
    if session is not None and all(one.HasField("string_value") and not one.string_value.strip() for one in own):
        put[SESSION] = session
    return (put, ()) if put else None


def emit(span: Span) -> Decided:
    """What emitting does to a span that owns identity."""
    texts, _, _, _ = settle([one for one in span.attributes if is_identity(one.key)])
    there = {one.key for one in span.attributes}
    put: dict[str, str] = {}
    if texts.get(ID, "").strip():
        put["user.id"] = texts[ID]
        if texts.get(METADATA, "").strip():
            put["input.value"] = texts[METADATA]
            for name, member in (_object(texts[METADATA]) or {}).items():
                if member is not None:
                    put[PREFIX + name] = member if isinstance(member, str) else _compact(member)
    session = _first_id(span, SESSION)
    if session is not None:
        put["session.id"] = session
    put = {key: text for key, text in put.items() if key not in there}
    return (put, ()) if put else None


def _first_id(span: Span, key: str) -> str | None:
    for one in span.attributes:
        if one.key == key:
            kind = one.value.WhichOneof("value")
            text = str(one.value.int_value) if kind == "int_value" else one.value.string_value
            if text.strip():
                return text
    return None


def _metadata(span: Span) -> str | None:
    for one in span.attributes:
        if one.key == "input.value":
            if one.value.HasField("string_value") and _object(one.value.string_value):
                return one.value.string_value
            if one.value.kvlist_value.values:
                return _compact(plain_value(one.value))
    members: dict[str, Any] = {}
    for one in span.attributes:
        if one.key.startswith(PREFIX) and one.key != PREFIX:
            members.setdefault(one.key.removeprefix(PREFIX), _member(one.value))
    return _compact(members) if members else None


def _member(value: AnyValue) -> Any:
    text = value.string_value
    if text[:1] in ("{", "[", '"'):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return plain_value(value)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
