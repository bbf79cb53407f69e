"""The one place where errors and answers meet: gRPC statuses, HTTP statuses and `google.rpc.RetryInfo`.

Which statuses a client may retry is said by the OTLP specification:
https://opentelemetry.io/docs/specs/otlp/#failures for gRPC, https://opentelemetry.io/docs/specs/otlp/#failures-1 for
HTTP.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import IntEnum

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import (
    ExportError,
    MalformedOtlpError,
    NoDestinationError,
    NotOtlpHttpError,
    OverloadedError,
    PermissionDeniedError,
    ProcessorError,
    RateLimitedError,
    RequestTooLargeError,
    SlowRequestError,
    UnauthenticatedError,
    UpstreamRejectedError,
    UpstreamUnavailableError,
)

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata: a serialised `google.rpc.Status`, which is how gRPC carries rich errors."""

RETRY_INFO_KEY = "google.rpc.retryinfo-bin"
"""Trailing metadata: a serialised `google.rpc.RetryInfo`, which is what OpenTelemetry's Python exporter reads."""

MAX_MESSAGE_CHARS = 1024
"""Longer messages are cut: gRPC clients refuse trailing metadata of more than 8 KiB altogether."""

MAX_DETAILS_BYTES = 4096
"""Longer details are replaced by ours, for the same reason."""


class GrpcCode(IntEnum):
    """gRPC status codes (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_ALWAYS_RETRYABLE = frozenset(
    {
        GrpcCode.CANCELLED,
        GrpcCode.DEADLINE_EXCEEDED,
        GrpcCode.ABORTED,
        GrpcCode.OUT_OF_RANGE,
        GrpcCode.UNAVAILABLE,
        GrpcCode.DATA_LOSS,
    }
)

# A refusal must not become one of 429, 502, 503, 504, which OTLP/HTTP clients retry.
_HTTP_OF_REFUSAL = {
    GrpcCode.INVALID_ARGUMENT: 400,
    GrpcCode.FAILED_PRECONDITION: 400,
    GrpcCode.UNAUTHENTICATED: 401,
    GrpcCode.PERMISSION_DENIED: 403,
    GrpcCode.NOT_FOUND: 404,
    GrpcCode.UNIMPLEMENTED: 404,
    GrpcCode.ALREADY_EXISTS: 409,
    # Without RetryInfo this is how an upstream says that a message is over its size limit.
    GrpcCode.RESOURCE_EXHAUSTED: 413,
}
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_HTTP_RETRYABLE = frozenset({429, 502, 503, 504})
_CODE_OF_HTTP = {
    400: GrpcCode.INVALID_ARGUMENT,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.UNIMPLEMENTED,
    409: GrpcCode.ALREADY_EXISTS,
    413: GrpcCode.RESOURCE_EXHAUSTED,
    429: GrpcCode.RESOURCE_EXHAUSTED,
    501: GrpcCode.UNIMPLEMENTED,
    502: GrpcCode.UNAVAILABLE,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}
# Three centuries; more digits are no time.
_MAX_RETRY_AFTER_DIGITS = 10
_HTTP_OF_RETRYABLE = {GrpcCode.RESOURCE_EXHAUSTED: 429, GrpcCode.DEADLINE_EXCEEDED: 504}


@dataclass(frozen=True)
class Answer:
    """A failure as the client sees it, over either transport.

    Attributes:
        grpc_code: The gRPC status code.
        http_status: The HTTP status code.
        message: Text for a person, at most `MAX_MESSAGE_CHARS` characters.
        details: A serialised `google.rpc.Status`; also the body of an OTLP/HTTP answer.
        retry_after: Seconds that the client should wait, where somebody said so.
        retryable: Whether the client may send the same request again.
    """

    grpc_code: GrpcCode
    http_status: int
    message: str
    details: bytes
    retry_after: float | None
    retryable: bool

    @property
    def grpc_trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The trailing metadata to send beside code and message."""
        trailers: tuple[tuple[str, bytes], ...] = ((DETAILS_KEY, self.details),)
        if self.retry_after is not None:
            trailers += ((RETRY_INFO_KEY, _retry_info(self.retry_after).SerializeToString()),)
        return trailers

    @property
    def retry_after_header(self) -> str | None:
        """The value of HTTP's `Retry-After`: whole seconds, rounded up."""
        return None if self.retry_after is None else str(max(1, math.ceil(self.retry_after)))

    @property
    def http_headers(self) -> dict[str, str]:
        """The headers that HTTP asks for beside this status; names in lower case."""
        headers: dict[str, str] = {}
        if self.retry_after_header is not None:
            headers["retry-after"] = self.retry_after_header
        if self.http_status == 401:
            # https://www.rfc-editor.org/rfc/rfc9110#name-401-unauthorized: a 401 has to say how to authenticate.
            headers["www-authenticate"] = "Bearer"
        return headers


def answer(error: ProcessorError) -> Answer:
    """Return what the client is told about an error.

    A refusal that the upstream made for good stays one that must not be retried; what it could not do at the moment
    stays retryable. Details that the upstream sent are passed on as they came, unless they contradict the message or
    would not fit a client's limit for metadata.
    """
    retry_after: float | None = None
    details: bytes | None = None
    if isinstance(error, ExportError):
        code, retry_after, details = GrpcCode(error.grpc_code), error.retry_after, error.details
    elif isinstance(error, RateLimitedError):
        # Together with RetryInfo this code is retryable; HTTP says 429.
        code, retry_after = GrpcCode.RESOURCE_EXHAUSTED, error.retry_after
    elif isinstance(error, OverloadedError):
        code, retry_after = GrpcCode.UNAVAILABLE, error.retry_after
    elif isinstance(error, UnauthenticatedError):
        code = GrpcCode.UNAUTHENTICATED
    elif isinstance(error, PermissionDeniedError):
        code = GrpcCode.PERMISSION_DENIED
    elif isinstance(error, SlowRequestError):
        # Over HTTP not 408, which OTLP's clients do not retry.
        code = GrpcCode.UNAVAILABLE
    elif isinstance(error, (MalformedOtlpError, NotOtlpHttpError)):
        code = GrpcCode.INVALID_ARGUMENT
    elif isinstance(error, RequestTooLargeError):
        code = GrpcCode.RESOURCE_EXHAUSTED
    elif isinstance(error, NoDestinationError):
        code = GrpcCode.UNIMPLEMENTED
    else:
        code = GrpcCode.INTERNAL
    message = _cut(str(error))
    if details is None or len(details) > MAX_DETAILS_BYTES:
        details = _details(code, message, retry_after)
    if isinstance(error, NotOtlpHttpError):
        http_status = error.http_status
    elif error.retryable:
        http_status = _HTTP_OF_RETRYABLE.get(code, 503)
    else:
        http_status = _HTTP_OF_REFUSAL.get(code, 500)
    return Answer(code, http_status, message, details, retry_after, error.retryable)


def is_retryable(code: int, *, has_retry_info: bool) -> bool:
    """Say whether OTLP lets a client send the request again after this gRPC status code."""
    return code in _ALWAYS_RETRYABLE or (code == GrpcCode.RESOURCE_EXHAUSTED and has_retry_info)


def upstream_error(code: int, message: str, trailers: Iterable[tuple[str, str | bytes]] = ()) -> ExportError:
    """Return the error that says what an upstream's gRPC status means.

    Args:
        code: The status code, 1 to 16.
        message: The status message.
        trailers: The trailing metadata.
    """
    details: bytes | None = None
    retry_after: float | None = None
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            details = value
        elif key == RETRY_INFO_KEY and isinstance(value, bytes):
            retry_after = _seconds_of(value)
    if details is not None:
        in_details = _retry_after_in(details)
        retry_after = retry_after if in_details is None else in_details
    retryable = is_retryable(code, has_retry_info=retry_after is not None)
    kind = UpstreamUnavailableError if retryable else UpstreamRejectedError
    summary = f"the upstream answered {GrpcCode(code).name}; the client has its words"
    return kind(message, grpc_code=code, details=details, retry_after=retry_after, summary=summary)


def upstream_http_error(status: int, body: bytes, media_type: str, retry_after: float | None) -> ExportError:
    """Return the error that says what an upstream's HTTP status means.

    Args:
        status: Any status but 2xx.
        body: What came with it, bounded by whoever read it: a `google.rpc.Status`, or text.
        media_type: The body's media type, in lower case, without parameters.
        retry_after: Seconds of its `Retry-After`; see `retry_after_seconds`.
    """
    retryable = status in _HTTP_RETRYABLE
    if retryable:
        # 429 without a delay would be a gRPC code that must not be retried.
        code = _CODE_OF_HTTP[status] if status != 429 or retry_after is not None else GrpcCode.UNAVAILABLE
    else:
        code = _CODE_OF_HTTP.get(status, GrpcCode.FAILED_PRECONDITION if status < 500 else GrpcCode.INTERNAL)
        retry_after = None
    summary = f"the upstream answered HTTP {status}"
    if 300 <= status < 400:
        summary += ", which leads elsewhere; redirects are not followed, because headers would travel along"
    sent = _status_in(body, media_type)
    # HTML is written for people who look at a page.
    words = sent.message if sent is not None else body.decode("utf-8", "replace") if media_type == "text/plain" else ""
    words = shown(words.strip(), limit=MAX_MESSAGE_CHARS - 100)
    message = f"{summary}: {words}" if words else summary
    details = None
    if sent is not None:
        # HTTP leaves the code to its own status; gRPC clients compare code and message with the call's.
        sent.code, sent.message = int(code), message
        details = sent.SerializeToString()
        if retry_after is not None and _retry_after_in(details) is None:
            sent.details.add().Pack(_retry_info(retry_after))
            details = sent.SerializeToString()
    kind = UpstreamUnavailableError if retryable else UpstreamRejectedError
    return kind(message, grpc_code=code, details=details, retry_after=retry_after, summary=summary)


def retry_after_seconds(value: str | None, *, now: float) -> float | None:
    """Read HTTP's `Retry-After` (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after): seconds, or a date.

    Args:
        value: The header's value, if there is one.
        now: The time of day, in seconds since 1970.

    Returns:
        Seconds, at least 0; `None` where the value says nothing.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:_MAX_RETRY_AFTER_DIGITS])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        # "-0000" and a missing zone; HTTP knows GMT only.
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, moment.timestamp() - now)


def with_hint(error: ExportError, hint: str) -> ExportError:
    """Return the same error with a sentence added to its message.

    The message inside the details is changed as well: gRPC's `rpc_status.from_call` refuses details that do not
    repeat the status message.
    """
    message = f"{error} ({hint})"
    details = error.details
    if details is not None:
        status = Status()
        try:
            status.ParseFromString(details)
        except DecodeError:
            details = None
        else:
            status.message = _cut(message)
            details = status.SerializeToString()
    summary = None if error.summary is None else f"{error.summary} ({hint})"
    return type(error)(
        message, grpc_code=error.grpc_code, details=details, retry_after=error.retry_after, summary=summary
    )


def _status_in(body: bytes, media_type: str) -> Status | None:
    status = Status()
    try:
        if media_type == "application/x-protobuf":
            status.ParseFromString(body)
        elif media_type == "application/json":
            # Its details are not needed, and could be of types that are not known here.
            document = json.loads(body)
            if not isinstance(document, dict) or not isinstance(document.get("message"), str):
                return None
            status.message = document["message"].encode("utf-8", "replace").decode()
        else:
            return None
    except (DecodeError, ValueError, RecursionError):
        return None
    return status


def _details(code: GrpcCode, message: str, retry_after: float | None) -> bytes:
    status = Status(code=int(code), message=message)
    if retry_after is not None:
        status.details.add().Pack(_retry_info(retry_after))
    return bytes(status.SerializeToString())


def _retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(round(seconds * 1e9))
    return info


def _seconds_of(retry_info: bytes) -> float | None:
    info = RetryInfo()
    try:
        info.ParseFromString(retry_info)
    except DecodeError:
        return None
    return _seconds(info)


def _retry_after_in(details: bytes) -> float | None:
    status = Status()
    try:
        status.ParseFromString(details)
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                return _seconds(info)
    except DecodeError:
        pass
    return None


def _seconds(info: RetryInfo) -> float:
    # A negative delay has no meaning; a present RetryInfo still says "retryable".
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return max(0.0, seconds)


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
