"""What the store's rollup of a trace has to be: recomputed from all its spans at once, without any order of arrival."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

MOST = 2**63 - 1
"""The largest number that SQLite keeps."""

_MODEL_CALLS = {"llm", "embedding", "reranker"}
_REPEAT_WHAT_THEY_CALL = {"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"}
_INPUT = ["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"]
_OUTPUT = ["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"]
_TOTAL = ["gen_ai.usage.total_tokens", "llm.token_count.total"]


@dataclass(frozen=True)
class Sent:
    """A span with the resource it was sent with."""

    span: Span
    resource: Resource

    @property
    def place(self) -> tuple[bytes, bytes]:
        """What tells it from other spans."""
        return self.span.trace_id, self.span.span_id


def is_kept(span: Span, *, is_entry: bool = False) -> bool:
    """Tell whether a span is one of the application: completion markers are not, and spans without ids cannot be."""
    is_marker = span.name == "neatlogs.trace.complete" and not _is_root(span) and not is_entry
    return bool(span.trace_id.strip(b"\0")) and bool(span.span_id.strip(b"\0")) and not is_marker


def rollups(sent: Iterable[Sent], entry_services: Iterable[str] = ()) -> dict[bytes, dict[str, Any]]:
    """Return what `traces` has to hold, by trace id.

    Args:
        sent: The spans, no two with the same ids.
        entry_services: Whose entry spans count as roots.
    """
    traces: dict[bytes, list[Sent]] = {}
    for one in sent:
        if is_kept(one.span, is_entry=_is_entry(one, entry_services)):
            traces.setdefault(one.span.trace_id, []).append(one)
    return {trace_id: _rollup(members, entry_services) for trace_id, members in traces.items()}


def _rollup(members: list[Sent], entry_services: Iterable[str]) -> dict[str, Any]:
    entries = [one for one in members if _is_entry(one, entry_services)]
    roots = [one for one in members if _is_root(one.span)]
    # A listed service's entry span outranks any root; without either the earliest span stands in.
    rank, candidates = (0, entries) if entries else (1, roots) if roots else (2, members)
    head = min(candidates, key=lambda one: (_time(one.span.start_time_unix_nano) or MOST, one.span.span_id))
    starts = [_time(one.span.start_time_unix_nano) for one in members if one.span.start_time_unix_nano]
    start = min(starts, default=0)
    end = max(_time(one.span.end_time_unix_nano) for one in members)
    tokens = [_tokens(one.span) for one in members]
    return {
        "start": start,
        "end": end,
        "duration": max(0, end - start) if start else 0,
        "spans": len(members),
        "errors": sum(one.span.status.code == 2 for one in members),
        "tokens_input": min(sum(used[0] for used in tokens), MOST),
        "tokens_output": min(sum(used[1] for used in tokens), MOST),
        "tokens": min(sum(used[2] for used in tokens), MOST),
        "roots": len(candidates) if rank < 2 else 0,
        "services": {name.replace("\n", " ") for one in members if (name := service_of(one))},
        **_said_by(head, rank),
    }


def _said_by(head: Sent, rank: int) -> dict[str, Any]:
    own, shared = _attributes(head.span.attributes), _attributes(head.resource.attributes)
    workflow = _text(shared.get("neatlogs.workflow_name"))
    session = next(
        (
            text
            for value in (own.get("neatlogs.session.id"), own.get("session.id"), shared.get("session.id"))
            if (text := _text(value)) is not None
        ),
        None,
    )
    tags = f"{_text(own.get('neatlogs.tags')) or ''},{_text(shared.get('neatlogs.tags')) or ''}"
    said: dict[str, Any] = {
        "head_rank": rank,
        "head_start": _time(head.span.start_time_unix_nano),
        "head_span_id": head.span.span_id,
        "status": 0,
        "service": service_of(head),
        "name": None,
        "workflow": workflow,
        "session": session,
        "end_user": None,
        "source": None,
        "metadata": None,
        "tags": {tag.strip().replace("\n", " ") for tag in tags.split(",") if tag.strip()},
    }
    if rank == 2:
        return said
    end_user = _text(own.get("neatlogs.end_user.id"))
    return said | {
        "status": head.span.status.code,
        "name": head.span.name,
        "workflow": workflow or head.span.name or None,
        "end_user": end_user if end_user and end_user.strip() else None,
        "source": _text(own.get("neatlogs.end_user.source")),
        "metadata": _object(_text(own.get("neatlogs.end_user.metadata"))),
    }


def service_of(one: Sent) -> str:
    """The `service.name` of a span's resource."""
    return _text(_attributes(one.resource.attributes).get("service.name")) or ""


def _is_root(span: Span) -> bool:
    return set(span.parent_span_id) <= {0}


def _is_entry(one: Sent, entry_services: Iterable[str]) -> bool:
    is_remote = bool(one.span.flags & 0x100) and bool(one.span.flags & 0x200)
    return is_remote and not _is_root(one.span) and service_of(one) in set(entry_services)


def _time(nanoseconds: int) -> int:
    return min(nanoseconds, MOST)


def _tokens(span: Span) -> tuple[int, int, int]:
    own = _attributes(span.attributes)
    kinds = (_text(own.get("neatlogs.span.kind")), _text(own.get("openinference.span.kind")))
    kind = next((text.lower() for text in kinds if text), "")
    if kind and kind not in _MODEL_CALLS:
        return 0, 0, 0
    if not kind and _text(own.get("gen_ai.operation.name")) in _REPEAT_WHAT_THEY_CALL:
        return 0, 0, 0
    used = [_first_number(own, keys) for keys in (_INPUT, _OUTPUT, _TOTAL)]
    return used[0], used[1], min(used[2] or used[0] + used[1], MOST)


def _first_number(own: dict[str, Any], keys: list[str]) -> int:
    for key in keys:
        value = own.get(key)
        if isinstance(value, str) and len(value) < 20 and all(digit in "0123456789" for digit in value) and value:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, MOST)
    return 0


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as plain values; of duplicates the first, and `None` for what is neither text nor a number."""
    found: dict[str, Any] = {}
    for attribute in attributes:
        which = attribute.value.WhichOneof("value")
        is_plain = which in ("string_value", "int_value", "double_value", "bool_value")
        found.setdefault(attribute.key, getattr(attribute.value, str(which)) if is_plain else None)
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return str(value)
    return value or None


def _object(text: str | None) -> Any:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
