"""The forms in which requests come over HTTP: how a body becomes OTLP, and how the answer is written.

Two of them: OTLP/HTTP itself, in protobuf and in JSON, and plain traces, which are one JSON object a trace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from starlette.responses import Response

from neatlogs_processor.core.answers_json import (
    plain_trace_answer,
    plain_trace_refusal,
    response_to_json,
    status_to_json,
)
from neatlogs_processor.core.otlp_json import request_from_json
from neatlogs_processor.core.plain_trace import PlainTrace, plain_trace_to_otlp
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.status import answer
from neatlogs_processor.errors import NotOtlpHttpError, ProcessorError

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

# Longer texts are read beside the event loop, which goes on meanwhile.
_LONG_JSON = 32 * 1024

_T = TypeVar("_T")


class Form(Protocol):
    """One request's form.

    Attributes:
        signal: The signal that it belongs to.
        media_types: The content types that it may have; anything else is answered 415.
        transcodes: Whether `read` makes something new of a body.
    """

    signal: Signal
    media_types: tuple[str, ...]
    transcodes: bool

    async def read(self, body: bytes) -> bytes:
        """Return the serialised OTLP request that a body holds.

        Raises:
            MalformedOtlpError: It is not what it has to be.
            RequestTooLargeError: More comes out than a request may have.
        """

    def accepted(self, response: bytes) -> Response:
        """Return the answer for the destination's serialised OTLP response. After `read`."""

    def refused(self, error: ProcessorError, *, close: bool) -> Response:
        """Return the answer for an error; with `close`, the connection ends with it."""


class OtlpForm:
    """OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

    Args:
        signal: The signal.
        media_type: What the client says that it sends, and is answered in.
        max_depth: How deeply JSON may nest.
        max_size: How large the request may be in protobuf.
    """

    media_types: tuple[str, ...] = (PROTOBUF, JSON)

    def __init__(self, signal: Signal, media_type: str, *, max_depth: int, max_size: int) -> None:
        self.signal = signal
        self.transcodes = media_type == JSON
        self._media_type = media_type
        self._max_depth = max_depth
        self._max_size = max_size

    async def read(self, body: bytes) -> bytes:
        """See `Form`."""
        if not self.transcodes:
            return body
        return await _beside(
            body, lambda: request_from_json(self.signal, body, max_depth=self._max_depth, max_size=self._max_size)
        )

    def accepted(self, response: bytes) -> Response:
        """See `Form`."""
        content = response_to_json(self.signal, response) if self.transcodes else response
        return Response(content, headers={"content-type": self._media_type})

    def refused(self, error: ProcessorError, *, close: bool) -> Response:
        """See `Form`."""
        failure = answer(error)
        headers = _headers(error, failure.http_headers, close=close)
        if self._media_type == PROTOBUF:
            return Response(failure.details, failure.http_status, {**headers, "content-type": PROTOBUF})
        # People who try with a browser or with curl can read this.
        return Response(status_to_json(failure.details), failure.http_status, {**headers, "content-type": JSON})


class PlainTraceForm:
    """A plain trace, as the published `neatlogs/browser` client sends it.

    Args:
        max_depth: How deeply JSON may nest.
        max_size: How large the request may be in protobuf.
        clock: Returns nanoseconds since 1970.
    """

    signal = Signal.TRACES
    media_types: tuple[str, ...] = (JSON,)
    transcodes = True

    def __init__(self, *, max_depth: int, max_size: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._max_depth = max_depth
        self._max_size = max_size
        self._clock = clock
        self._trace = PlainTrace(b"", "", 0)

    async def read(self, body: bytes) -> bytes:
        """See `Form`."""
        received = self._clock()
        self._trace = await _beside(
            body,
            lambda: plain_trace_to_otlp(body, received=received, max_depth=self._max_depth, max_size=self._max_size),
        )
        return self._trace.body

    def accepted(self, response: bytes) -> Response:
        """See `Form`."""
        content = plain_trace_answer(self._trace.trace_id, self._trace.spans, response)
        return Response(content, headers={"content-type": JSON})

    def refused(self, error: ProcessorError, *, close: bool) -> Response:
        """See `Form`."""
        failure = answer(error)
        headers = _headers(error, failure.http_headers, close=close)
        content = plain_trace_refusal(failure.message)
        return Response(content, failure.http_status, {**headers, "content-type": JSON})


async def _beside(body: bytes, read: Callable[[], _T]) -> _T:
    return read() if len(body) <= _LONG_JSON else await asyncio.to_thread(read)


def _headers(error: ProcessorError, headers: Mapping[str, str], *, close: bool) -> dict[str, str]:
    together = dict(headers)
    if isinstance(error, NotOtlpHttpError):
        together.update(error.headers)
    if close:
        together["connection"] = "close"
    return together
