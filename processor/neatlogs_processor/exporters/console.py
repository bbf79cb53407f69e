"""Prints one line per trace and request, for people who try things out.

    4bf92f3577b34da6a3ce929d0e0e4736  shop / checkout   5 spans  end user u_812 (trace)

End users are printed, because seeing them is the purpose; everything is escaped and cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import Override
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.text import shown
from neatlogs_processor.exporters.sender import Sender

_ID, _SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.source"
_WORKFLOW, _SERVICE = "neatlogs.workflow_name", "service.name"
_NAMED_OVERRIDES = 3


@dataclass
class _Trace:
    """What one request says about one trace."""

    trace_id: bytes
    workflow: str = ""
    service: str = ""
    root: str | None = None
    end_user: str | None = None
    source: str = ""
    spans: int = 0
    overrides: list[Override] = field(default_factory=list)


class Console:
    """A sender that prints the traces of a request and hands it on, or acknowledges it where there is no next link.

    Args:
        out: Where the lines go.
        sender: The next link.
    """

    def __init__(self, out: TextIO, sender: Sender | None = None) -> None:
        self._out = out
        self._sender = sender

    async def send(self, request: Request) -> bytes:
        """Print, then see `Sender.send`."""
        if request.signal is Signal.TRACES:
            self._print(request)
        if self._sender is None:
            # An empty message is a complete success of every OTLP service.
            return b""
        return await self._sender.send(request)

    def _print(self, request: Request) -> None:
        try:
            self._out.write("".join(f"{line}\n" for line in describe(request)))
            self._out.flush()
        except (OSError, ValueError):
            # Whoever read the lines has gone (a closed pipe); requests matter more than lines.
            pass


def describe(request: Request) -> list[str]:
    """Return one line for each trace of a trace request, in the order of the request."""
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(request.body)
    except DecodeError:
        return [f"a request of {len(request.body)} bytes that cannot be decoded for display"]
    traces: dict[bytes, _Trace] = {}
    for resource_spans in message.resource_spans:
        service = _text(resource_spans.resource.attributes, _SERVICE) or ""
        workflow = _text(resource_spans.resource.attributes, _WORKFLOW) or ""
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                trace = traces.setdefault(span.trace_id, _Trace(span.trace_id))
                _add(trace, span, service, workflow)
    lines = []
    scopes: list[Override] = []
    not_named = 0
    if request.enforced is not None:
        not_named = request.enforced.overrides_not_reported
        for override in request.enforced.overrides:
            if override.trace_id in traces:
                traces[override.trace_id].overrides.append(override)
            else:
                scopes.append(override)
    lines = [_line(trace) for trace in traces.values()]
    if scopes or not_named:
        lines.append(f"{'-' * 32}  {_ignored(scopes, not_named)}")
    return lines


def _add(trace: _Trace, span: Span, service: str, workflow: str) -> None:
    trace.spans += 1
    is_root = not span.parent_span_id.strip(b"\0")
    identity = _text(span.attributes, _ID)
    if is_root or identity is not None:
        # With entry spans as roots, identity stands on a child: the rule has removed it everywhere else.
        if trace.root is None or is_root:
            trace.root = span.name
        if trace.end_user is None and identity is not None:
            trace.end_user, trace.source = identity, _text(span.attributes, _SOURCE) or ""
        trace.workflow, trace.service = workflow or trace.workflow, service or trace.service
    else:
        trace.workflow, trace.service = trace.workflow or workflow, trace.service or service


def _line(trace: _Trace) -> str:
    place = trace.workflow or trace.service
    root = "(root not in this request)" if trace.root is None else shown(trace.root, limit=40) or "(unnamed)"
    name = f"{shown(place, limit=40)} / {root}" if place and place != trace.root else root
    if trace.end_user:
        source = f" ({shown(trace.source, limit=20)})" if trace.source else ""
        end_user = f"end user {shown(trace.end_user)}{source}"
    else:
        end_user = "end user on the root" if trace.root is None else "no end user"
    spans = f"{trace.spans} span" + ("s" if trace.spans != 1 else "")
    ignored = f"  {_ignored(trace.overrides)}" if trace.overrides else ""
    return f"{trace.trace_id.hex():32}  {name:32}  {spans:>9}  {end_user}{ignored}"


def _ignored(overrides: list[Override], more: int = 0) -> str:
    """Say how many overrides were ignored, and who tried."""
    total = len(overrides) + more
    names = dict.fromkeys(f'"{shown(override.span_name, limit=40)}" ({override.place.value})' for override in overrides)
    listed = ", ".join(list(names)[:_NAMED_OVERRIDES])
    if len(names) > _NAMED_OVERRIDES or (more and names):
        listed += ", …"
    return f"{total} override{'s' if total != 1 else ''} ignored" + (f": {listed}" if listed else "")


def _text(attributes: Iterable[KeyValue], key: str) -> str | None:
    for attribute in attributes:
        if attribute.key == key and attribute.value.HasField("string_value"):
            return attribute.value.string_value
    return None
