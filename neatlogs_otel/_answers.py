"""What the backend answers to an accepted export: OpenTelemetry's exporters for Python do not look at it.

OTLP lets a server accept a request and still say something: that it rejected some spans, or a warning, such as that
the processor ignored an override (its flag `--explain`). Both are logged here, once each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_otel._warnings import warn_once

if TYPE_CHECKING:
    import requests

MAX_SHOWN_MESSAGE: Final = 1_000
"""Characters of the backend's message that a log line shows."""

_MAX_ANSWER_BYTES: Final = 65_536


def hear_grpc(exporter: Any) -> None:
    """Log what the backend says to a gRPC exporter.

    The exporter has no public way to see the answer. Where it is built differently than known, nothing is logged.
    """
    make_stub = getattr(exporter, "_stub", None)
    stub = getattr(exporter, "_client", None)
    if callable(make_stub) and callable(getattr(stub, "Export", None)):
        exporter._client = _Listening(stub)
        # It makes another stub when it connects anew.
        exporter._stub = lambda channel: _Listening(make_stub(channel))


def hear_http(response: requests.Response, *_: object, **__: object) -> None:
    """Log what the backend says to an HTTP exporter: a response hook of `requests`."""
    try:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.ok and kind == "application/x-protobuf" and len(response.content) <= _MAX_ANSWER_BYTES:
            _hear(ExportTraceServiceResponse.FromString(response.content))
    except (DecodeError, OSError):
        # Whether the export went well is the exporter's to say.
        pass


class _Listening:
    """A stub whose answers are heard."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def Export(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802  # the name is gRPC's
        answer = self._stub.Export(*args, **kwargs)
        if isinstance(answer, ExportTraceServiceResponse):
            _hear(answer)
        return answer


def _hear(answer: ExportTraceServiceResponse) -> None:
    rejected, message = answer.partial_success.rejected_spans, answer.partial_success.error_message
    if not rejected and not message:
        return
    what = f"rejected {rejected} spans" if rejected else "accepted the spans with a warning"
    # The number may differ from one answer to the next; the message is what tells them apart.
    warn_once("partial_success", message, "The backend %s: %s", what, _shown(message) or "it does not say why")


def _shown(message: str) -> str:
    """A message in one printable line, cut to `MAX_SHOWN_MESSAGE` characters."""
    cut = message[:MAX_SHOWN_MESSAGE]
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)
    return line if cut == message else f"{line}..."
