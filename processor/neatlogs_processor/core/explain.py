"""Saying that an override was ignored, and what to do instead: for log lines and for clients."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.policy import Enforced, Override, Place
from neatlogs_processor.core.text import shown

_WHAT: Final = {
    Place.CHILD: "child span",
    Place.EVENT: "event of span",
    Place.LINK: "link of span",
    Place.SCOPE: "scope",
}
_ADVICE: Final = {
    Place.CHILD: "the root span owns the trace's end user; set it there, in the service that starts the trace",
    Place.EVENT: "a span event cannot say who the end user is; set it on the root span",
    Place.LINK: "a span link cannot say who the end user is; set it on the root span",
    Place.SCOPE: "an instrumentation scope cannot say who the end user is; set it on the root span",
}


def explanation(override: Override) -> str:
    """Return one line about an ignored override: names, escaped and cut, and never values."""
    return (
        f'{_WHAT[override.place]} "{shown(override.span_name)}" of service "{shown(override.service or "unknown")}"'
        f" sets {shown(override.key)}: ignored; {_ADVICE[override.place]}"
    )


def with_explanation(response: bytes, enforced: Enforced) -> bytes:
    """Add a warning to the response to an accepted request in which overrides were ignored.

    OTLP has a place for it: a `partial_success` that rejects nothing and has a message.

    Args:
        response: The destination's serialised `ExportTraceServiceResponse`. What it rejected, and its own message,
            are kept.
        enforced: What the rule found in the request.

    Returns:
        The response with the warning; as it came where there is nothing to say, or where it cannot be read.
    """
    if not enforced.overrides:
        return response
    try:
        answer = ExportTraceServiceResponse.FromString(response)
    except DecodeError:
        return response
    warning = explanation(enforced.overrides[0])
    others = enforced.counts.overrides_total - 1
    if others:
        warning += f" ({others} more in this request)"
    own = answer.partial_success.error_message
    answer.partial_success.error_message = f"{own}; {warning}" if own else warning
    return answer.SerializeToString()
