"""The processor's errors.

    ProcessorError
    ├── ConfigError                 a setting that cannot be used; the process does not start
    ├── NotOtlpHttpError            the HTTP request is none of those that OTLP defines
    ├── MalformedOtlpError          the request is not OTLP
    ├── RequestTooLargeError        the request is over a size limit
    ├── NoDestinationError          the signal has nowhere to go in this configuration
    ├── UnauthenticatedError        the client did not say who it is, or not with a key that is known
    ├── PermissionDeniedError       the client's key is known and may not do this
    ├── SlowRequestError            the request did not arrive in time
    ├── OverloadedError             no room now; come back
    │   ├── RateLimitedError            the client's key has used up its share for the moment
    │   └── StoreUnavailableError       the store did not take the request
    └── ExportError                 the upstream did not take the request
        ├── UpstreamRejectedError       and never will
        └── UpstreamUnavailableError    now; it may later

Each error knows whether the client may send the same request again (`retryable`) and the short name under which it
is counted (`reason`). `neatlogs_processor.core.status` is the one place that turns them into gRPC and HTTP answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ProcessorError(Exception):
    """Base of every error that the processor raises on purpose."""

    reason: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    @property
    def loggable(self) -> str:
        """The message without what others wrote: only this goes into a log."""
        return str(self)


class ConfigError(ProcessorError):
    """A flag, variable or file entry that cannot be used. The message is one line that says what to do."""

    reason = "config"


class NotOtlpHttpError(ProcessorError):
    """The path, the method, the media type or the content encoding of an HTTP request is none that OTLP defines.

    Args:
        message: What it is, and what it has to be.
        http_status: 404, 405 or 415.
        headers: What HTTP asks for beside this status, such as `allow`; names in lower case.
    """

    reason = "not_otlp_http"

    def __init__(self, message: str, *, http_status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.headers = dict(headers or {})


class MalformedOtlpError(ProcessorError):
    """The request's bytes are not OTLP. Nothing of the request goes on."""

    reason = "malformed"


class RequestTooLargeError(ProcessorError):
    """The request is larger than a limit allows, before or after decompression."""

    reason = "too_large"


class NoDestinationError(ProcessorError):
    """The processor is not configured to send this signal anywhere. The message names the flag that would do so."""

    reason = "no_destination"


class UnauthenticatedError(ProcessorError):
    """The request carries no key or one that is not known. The message never repeats what it carried."""

    reason = "unauthenticated"


class PermissionDeniedError(ProcessorError):
    """The request's key is known, and may not be used for this signal or from this place."""

    reason = "permission_denied"


class SlowRequestError(ProcessorError):
    """The request did not arrive within the time that a client has for sending it."""

    reason = "too_slow"
    retryable = True


class OverloadedError(ProcessorError):
    """The processor has no room for the request at the moment.

    Args:
        message: What is full, and which setting bounds it.
        retry_after: Seconds after which the client should try again.
    """

    reason = "overloaded"
    retryable = True

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(OverloadedError):
    """The client's key has sent more than its share; the client should wait as long as it is told to."""

    reason = "rate_limited"


class StoreUnavailableError(OverloadedError):
    """The store did not take the request: there is no room, or another process holds it. Nothing of it was kept."""

    reason = "store_unavailable"


class ExportError(ProcessorError):
    """The upstream did not accept the request.

    Args:
        message: What happened, in words; the upstream's own text where it sent one.
        grpc_code: The gRPC status code (an integer, 1 to 16) that says it best; the upstream's own where it sent one.
        details: The upstream's serialised `google.rpc.Status`, if it sent one, to be passed back as it came.
        retry_after: Seconds that the upstream asked to wait, if it did.
        summary: What may be logged in place of the message, where that holds words of the upstream: it may quote keys
            and payloads.
    """

    reason = "export"

    def __init__(
        self,
        message: str,
        *,
        grpc_code: int,
        details: bytes | None = None,
        retry_after: float | None = None,
        summary: str | None = None,
    ) -> None:
        super().__init__(message)
        self.summary = summary
        self.grpc_code = grpc_code
        self.details = details
        self.retry_after = retry_after

    @property
    def loggable(self) -> str:
        """See `ProcessorError.loggable`."""
        return str(self) if self.summary is None else self.summary


class UpstreamRejectedError(ExportError):
    """The upstream refused the request for good: sending the same bytes again cannot help."""

    reason = "upstream_rejected"


class UpstreamUnavailableError(ExportError):
    """The upstream did not accept the request this time: it may accept the same bytes later."""

    reason = "upstream_unavailable"
    retryable = True
