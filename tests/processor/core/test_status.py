"""Errors become answers: codes, details and whether the client may come back."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from neatlogs_processor.core import status
from neatlogs_processor.core.status import GrpcCode, answer, is_retryable, upstream_error, with_hint
from neatlogs_processor.errors import (
    ConfigError,
    ExportError,
    MalformedOtlpError,
    NoDestinationError,
    OverloadedError,
    ProcessorError,
    RequestTooLargeError,
    UpstreamRejectedError,
    UpstreamUnavailableError,
)

HTTP_RETRYABLE = {429, 502, 503, 504}

# The table of https://opentelemetry.io/docs/specs/otlp/#failures
RETRYABLE = {
    GrpcCode.CANCELLED: True,
    GrpcCode.UNKNOWN: False,
    GrpcCode.INVALID_ARGUMENT: False,
    GrpcCode.DEADLINE_EXCEEDED: True,
    GrpcCode.NOT_FOUND: False,
    GrpcCode.ALREADY_EXISTS: False,
    GrpcCode.PERMISSION_DENIED: False,
    GrpcCode.RESOURCE_EXHAUSTED: False,
    GrpcCode.FAILED_PRECONDITION: False,
    GrpcCode.ABORTED: True,
    GrpcCode.OUT_OF_RANGE: True,
    GrpcCode.UNIMPLEMENTED: False,
    GrpcCode.INTERNAL: False,
    GrpcCode.UNAVAILABLE: True,
    GrpcCode.DATA_LOSS: True,
    GrpcCode.UNAUTHENTICATED: False,
}


def retry_info(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    return RetryInfo(retry_delay=delay)


def details(code: int, message: str, *infos: RetryInfo | ErrorInfo) -> bytes:
    result = Status(code=code, message=message)
    for info in infos:
        result.details.add().Pack(info)
    return result.SerializeToString()


@pytest.mark.parametrize("code", RETRYABLE)
def test_which_codes_may_be_retried_is_the_table_of_the_specification(code: GrpcCode) -> None:
    """A code is retryable exactly where the OTLP specification says so."""
    assert is_retryable(code, has_retry_info=False) is RETRYABLE[code]


@pytest.mark.parametrize("code", RETRYABLE)
def test_retry_info_makes_only_resource_exhausted_retryable(code: GrpcCode) -> None:
    """RetryInfo turns RESOURCE_EXHAUSTED into a retryable code and changes no other."""
    assert is_retryable(code, has_retry_info=True) is (RETRYABLE[code] or code is GrpcCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("code", RETRYABLE)
@pytest.mark.parametrize("with_retry_info", [False, True])
def test_what_an_upstream_says_reaches_the_client_with_the_same_meaning(code: GrpcCode, with_retry_info: bool) -> None:
    """Code, message and details of an upstream come back, and HTTP clients retry exactly what gRPC clients retry."""
    sent = details(code, "no", *([retry_info(1.5)] if with_retry_info else []))
    error = upstream_error(code, "no", [(status.DETAILS_KEY, sent)])
    told = answer(error)
    assert (told.grpc_code, told.message, told.details) == (code, "no", sent)
    assert told.retryable is is_retryable(code, has_retry_info=with_retry_info)
    assert (told.http_status in HTTP_RETRYABLE) is told.retryable
    assert told.retry_after == (1.5 if with_retry_info else None)


@pytest.mark.parametrize(
    ("error", "code", "http_status"),
    [
        (MalformedOtlpError("bad"), GrpcCode.INVALID_ARGUMENT, 400),
        (RequestTooLargeError("big"), GrpcCode.RESOURCE_EXHAUSTED, 413),
        (NoDestinationError("nowhere"), GrpcCode.UNIMPLEMENTED, 404),
        (OverloadedError("full", retry_after=1.25), GrpcCode.UNAVAILABLE, 503),
        (ConfigError("odd"), GrpcCode.INTERNAL, 500),
        (ProcessorError("odd"), GrpcCode.INTERNAL, 500),
        (UpstreamUnavailableError("late", grpc_code=4), GrpcCode.DEADLINE_EXCEEDED, 504),
        (UpstreamUnavailableError("busy", grpc_code=8, retry_after=2), GrpcCode.RESOURCE_EXHAUSTED, 429),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_has_its_codes(error: ProcessorError, code: GrpcCode, http_status: int) -> None:
    """Every error has one gRPC code and one HTTP status, and the details repeat code and message."""
    told = answer(error)
    assert (told.grpc_code, told.http_status, told.retryable) == (code, http_status, error.retryable)
    parsed = Status.FromString(told.details)
    assert (parsed.code, parsed.message) == (code, str(error))


def test_overload_carries_both_forms_of_retry_info() -> None:
    """An overload names its delay in the rich status, in the key that Python's exporter reads, and for HTTP."""
    told = answer(OverloadedError("full", retry_after=1.25))
    trailers = dict(told.grpc_trailers)
    assert RetryInfo.FromString(trailers[status.RETRY_INFO_KEY]) == retry_info(1.25)
    unpacked = RetryInfo()
    assert Status.FromString(trailers[status.DETAILS_KEY]).details[0].Unpack(unpacked)
    assert unpacked == retry_info(1.25)
    assert told.retry_after_header == "2"


def test_without_a_delay_nothing_says_when_to_come_back() -> None:
    """A refusal has no RetryInfo and no Retry-After."""
    told = answer(RequestTooLargeError("big"))
    assert dict(told.grpc_trailers).keys() == {status.DETAILS_KEY}
    assert told.retry_after_header is None


def test_a_delay_of_zero_still_asks_http_clients_to_wait_a_second() -> None:
    """`Retry-After: 0` would invite a stampede."""
    assert answer(OverloadedError("full", retry_after=0.0)).retry_after_header == "1"


@pytest.mark.parametrize(
    ("trailers", "seconds"),
    [
        ([(status.RETRY_INFO_KEY, retry_info(3).SerializeToString())], 3.0),
        ([(status.DETAILS_KEY, details(8, "", retry_info(2)))], 2.0),
        ([(status.DETAILS_KEY, details(8, "", ErrorInfo(reason="QUOTA"), retry_info(2)))], 2.0),
        ([(status.DETAILS_KEY, details(8, "", retry_info(2))), (status.RETRY_INFO_KEY, b"")], 2.0),
        ([(status.DETAILS_KEY, details(8, "", retry_info(0)))], 0.0),
        ([(status.DETAILS_KEY, details(8, "", retry_info(-5)))], 0.0),
        ([(status.DETAILS_KEY, details(8, "", ErrorInfo(reason="QUOTA")))], None),
        ([(status.DETAILS_KEY, b"\xff\xff")], None),
        ([(status.RETRY_INFO_KEY, b"\xff\xff")], None),
        ([(status.RETRY_INFO_KEY, "text")], None),
        ([("other", b"x")], None),
        ([], None),
    ],
)
def test_where_an_upstream_says_how_long_to_wait(
    trailers: list[tuple[str, str | bytes]], seconds: float | None
) -> None:
    """RetryInfo is found in the rich status or beside it; what cannot be read counts as not said."""
    error = upstream_error(GrpcCode.RESOURCE_EXHAUSTED, "", trailers)
    assert error.retry_after == seconds
    assert type(error) is (UpstreamRejectedError if seconds is None else UpstreamUnavailableError)


def test_details_that_a_client_could_not_receive_are_replaced() -> None:
    """Details over the limit become ours, with the same code, a cut message and the same delay."""
    sent = details(8, "x" * 10_000, retry_info(2))
    told = answer(upstream_error(8, "x" * 10_000, [(status.DETAILS_KEY, sent)]))
    parsed = Status.FromString(told.details)
    assert len(told.message) == status.MAX_MESSAGE_CHARS
    assert (parsed.code, parsed.message) == (8, told.message)
    assert len(parsed.details) == 1
    assert told.retryable


@pytest.mark.parametrize("sent", [None, details(16, "no key", ErrorInfo(reason="KEY")), b"\xff\xff"])
def test_a_hint_is_added_to_the_message_and_to_the_details(sent: bytes | None) -> None:
    """The message in the details follows the status message, because gRPC's reader compares them."""
    error: ExportError = UpstreamRejectedError("no key", grpc_code=16, details=sent)
    told = answer(with_hint(error, "do this"))
    parsed = Status.FromString(told.details)
    assert told.message == parsed.message == "no key (do this)"
    assert (parsed.code, told.retryable) == (16, False)
