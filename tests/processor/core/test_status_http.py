"""What an upstream's HTTP status means, and what HTTP clients are told."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from neatlogs_processor.core.status import GrpcCode, answer, retry_after_seconds, upstream_http_error, with_hint
from neatlogs_processor.errors import (
    ExportError,
    NoDestinationError,
    OverloadedError,
    PermissionDeniedError,
    ProcessorError,
    RateLimitedError,
    RequestTooLargeError,
    SlowRequestError,
    UnauthenticatedError,
)

NOW = 1_800_000_000.0
PROTOBUF, JSON, TEXT = "application/x-protobuf", "application/json", "text/plain"


@pytest.mark.parametrize("status", range(300, 600))
@pytest.mark.parametrize("retry_after", [None, 3.0])
def test_the_four_statuses_of_the_specification_are_retryable(status: int, retry_after: float | None) -> None:
    """429, 502, 503 and 504 stay retryable for clients of both protocols, and nothing else becomes so."""
    told = answer(upstream_http_error(status, b"", "", retry_after))
    retryable = status in {429, 502, 503, 504}
    assert told.retryable is retryable
    assert (told.http_status in {429, 502, 503, 504}) is retryable
    assert told.retry_after == (retry_after if retryable else None)
    if told.grpc_code is GrpcCode.RESOURCE_EXHAUSTED:
        assert retryable is (told.retry_after is not None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 9_999_999_999.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW + 90).replace("-0000", ""), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Fri, 99 Foo 99999 99:99:99 GMT", None),
        ("Fri, 31 Feb 2027 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms are read; a moment that has passed is no wait, and what cannot be read says nothing."""
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.parametrize(
    ("body", "media_type", "words"),
    [
        (Status(message="no such tenant").SerializeToString(), PROTOBUF, "no such tenant"),
        (json.dumps({"code": 5, "message": "no such tenant"}).encode(), JSON, "no such tenant"),
        (b"no such tenant\r\n", TEXT, "no such tenant"),
        (b"\x1b[2J\xff", TEXT, "\\x1b[2J�"),
        (b"<html>", "text/html", ""),
        (b"\xff", PROTOBUF, ""),
        (b"{", JSON, ""),
        (b"[" * 100_000, JSON, ""),
        (b'{"message": 1}', JSON, ""),
        (b"[]", JSON, ""),
        (b'{"message": "\\ud800"}', JSON, "?"),
    ],
)
def test_an_upstream_s_words_are_for_the_client_and_not_for_the_log(body: bytes, media_type: str, words: str) -> None:
    """The client is told what the upstream said, escaped; a log is told only that it spoke."""
    error = upstream_http_error(400, body, media_type, None)
    assert str(error) == "the upstream answered HTTP 400" + (f": {words}" if words else "")
    assert error.loggable == "the upstream answered HTTP 400"
    hinted = with_hint(error, "a hint")
    assert (str(hinted), hinted.loggable) == (f"{error} (a hint)", f"{error.loggable} (a hint)")
    told = Status.FromString(answer(hinted).details)
    assert (told.code, told.message) == (GrpcCode.INVALID_ARGUMENT, str(hinted))


def test_long_words_are_cut() -> None:
    """Trailing metadata has little room."""
    assert len(str(upstream_http_error(400, b"x" * 60_000, TEXT, None))) < 1024


@pytest.mark.parametrize("has_retry_info", [False, True])
def test_details_are_kept_and_the_delay_is_among_them(has_retry_info: bool) -> None:
    """What the upstream put into its Status reaches a gRPC client, with a RetryInfo for its Retry-After."""
    sent = Status(message="later")
    sent.details.add().Pack(ErrorInfo(reason="QUOTA"))
    if has_retry_info:
        info = RetryInfo()
        info.retry_delay.FromSeconds(5)
        sent.details.add().Pack(info)
    told = Status.FromString(answer(upstream_http_error(429, sent.SerializeToString(), PROTOBUF, 5.0)).details)
    reason, delay = ErrorInfo(), RetryInfo()
    assert len(told.details) == 2
    assert told.details[0].Unpack(reason)
    assert told.details[1].Unpack(delay)
    assert (reason.reason, delay.retry_delay.seconds) == ("QUOTA", 5)


@pytest.mark.parametrize(
    ("error", "code", "http_status", "headers"),
    [
        (UnauthenticatedError("x"), GrpcCode.UNAUTHENTICATED, 401, {"www-authenticate": "Bearer"}),
        (PermissionDeniedError("x"), GrpcCode.PERMISSION_DENIED, 403, {}),
        (RateLimitedError("x", retry_after=2.5), GrpcCode.RESOURCE_EXHAUSTED, 429, {"retry-after": "3"}),
        (OverloadedError("x", retry_after=1.5), GrpcCode.UNAVAILABLE, 503, {"retry-after": "2"}),
        (SlowRequestError("x"), GrpcCode.UNAVAILABLE, 503, {}),
        (RequestTooLargeError("x"), GrpcCode.RESOURCE_EXHAUSTED, 413, {}),
        (NoDestinationError("x"), GrpcCode.UNIMPLEMENTED, 404, {}),
    ],
)
def test_refusals_of_the_receivers(
    error: ProcessorError, code: GrpcCode, http_status: int, headers: dict[str, str]
) -> None:
    """Each has its code, its status and the headers that HTTP asks for."""
    told = answer(error)
    assert (told.grpc_code, told.http_status, told.http_headers) == (code, http_status, headers)
    assert error.loggable == str(error)


def test_an_error_of_ours_is_logged_as_it_is() -> None:
    """Only words of others are left out."""
    assert ExportError("ours", grpc_code=14).loggable == "ours"
