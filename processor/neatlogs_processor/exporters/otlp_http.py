"""Sends OTLP requests to an upstream over HTTP, as protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

aiohttp is the client: it parses in C, keeps connections by itself, and gives up a request cleanly when its task is
cancelled, which is what happens to a request whose client leaves.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

import aiohttp
from yarl import URL

from neatlogs_processor.core.inflate import Inflater
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import GrpcCode, retry_after_seconds, upstream_http_error, with_hint
from neatlogs_processor.errors import MalformedOtlpError, UpstreamRejectedError, UpstreamUnavailableError
from neatlogs_processor.exporters.outgoing import WITHHELD_API_KEY, OutgoingHeaders
from neatlogs_processor.formats import Endpoint
from neatlogs_processor.tls import TlsFiles, client_context

PROTOBUF = "application/x-protobuf"

_COMPRESSION_LEVEL = 1
"""Higher levels cost several times as much and save a tenth of the bytes of traces."""

_COMPRESS_IN_THREAD = 128 * 1024
"""Bytes above which compressing would hold up other requests for milliseconds; zlib works beside the event loop."""

_MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read: it holds a sentence."""

_POOL_IDLE = 20.0
"""Seconds that an idle connection is kept; servers commonly close theirs after a minute or more."""


class _TooLargeError(Exception):
    """A response is over its limit."""


class OtlpHttpExporter:
    """A sender (see `neatlogs_processor.exporters.sender.Sender`) over a pool of HTTP/1.1 connections.

    Args:
        endpoint: Where the upstream listens; `/v1/<signal>` is added to its path. Its scheme decides about TLS.
        headers: Sent with every request.
        forward_headers: Names of request headers that travel on. A configured header wins over a forwarded one.
        compression: `"none"` or `"gzip"`.
        max_response_size: The largest response accepted, in bytes, after decompression.
        tls_files: What TLS trusts and shows; `None` trusts whom the system trusts. New connections follow changes.
        wall_clock: Returns seconds since 1970; upstreams may say by date when to come back.

    Raises:
        ConfigError: A TLS file cannot be used.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        forward_headers: Iterable[str] = (),
        compression: str = "none",
        max_response_size: int = 4 * 2**20,
        tls_files: TlsFiles | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._headers = OutgoingHeaders(headers, forward_headers)
        self._gzip = compression == "gzip"
        self._max_response_size = max_response_size
        self._wall_clock = wall_clock
        authority = (
            "http://localhost" if endpoint.path else f"{'https' if endpoint.tls else 'http'}://{endpoint.target}"
        )
        # Encoded already: the base goes out as it was written.
        self._urls = {signal: URL(f"{authority}{endpoint.base}/v1/{signal.value}", encoded=True) for signal in Signal}
        # Checked now, although the pool is made by the first request.
        self._tls = client_context(tls_files) if endpoint.tls and tls_files is not None else None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(self, request: Request) -> bytes:
        """Send the request once. What the upstream says is in the error."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise self._unavailable("the connection is closed")
        left = None if request.deadline is None else request.deadline - loop.time()
        if left is not None and left <= 0:
            raise self._no_answer()
        headers = list(self._headers.text(request))
        body = request.body
        if self._gzip:
            headers.append(("content-encoding", "gzip"))
            body = await _compressed(body)
        try:
            if self._session is None:
                self._session = self._open()
            async with self._session.post(
                self._urls[request.signal],
                data=body,
                headers=headers,
                # Headers, the API key among them, are for this upstream and no other.
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=left),
            ) as response:
                return await self._read(response, request)
        except asyncio.TimeoutError:
            raise self._no_answer() from None
        except aiohttp.ClientConnectorCertificateError:
            raise self._unavailable("its certificate is not one that is trusted (--upstream-ca-file)") from None
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: the session was closed under the request. The text may quote what was sent.
            raise self._unavailable(type(error).__name__) from None

    async def close(self) -> None:
        """Close all connections. Requests in flight fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # How many requests are in flight is bounded where they come in, so the pool does not bound them again.
        connector: aiohttp.BaseConnector
        if self._endpoint.path:
            connector = aiohttp.UnixConnector(self._endpoint.path, limit=0, keepalive_timeout=_POOL_IDLE)
        else:
            connector = aiohttp.TCPConnector(ssl=self._tls or True, limit=0, keepalive_timeout=_POOL_IDLE)
        return aiohttp.ClientSession(
            connector=connector,
            headers={
                "user-agent": f"neatlogs-processor/{version('neatlogs-otel')}",
                "accept": PROTOBUF,
                "accept-encoding": "gzip",
                "content-type": PROTOBUF,
            },
            # What comes back is decompressed here, within its limit.
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
        )

    async def _read(self, response: aiohttp.ClientResponse, request: Request) -> bytes:
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        accepted = 200 <= response.status < 300
        try:
            body = await self._content(response, self._max_response_size if accepted else _MAX_ERROR_BODY)
        except (_TooLargeError, MalformedOtlpError) as error:
            response.close()
            if accepted:
                why = (
                    f"has more than {self._max_response_size} bytes (--upstream-max-response-size)"
                    if isinstance(error, _TooLargeError)
                    else "cannot be decompressed"
                )
                # It did accept: sending again would deliver twice.
                raise UpstreamRejectedError(
                    f"the upstream answered HTTP {response.status}, but its response {why}",
                    grpc_code=GrpcCode.RESOURCE_EXHAUSTED,
                ) from None
            body = b""
        if accepted:
            # Some answer with a page or nothing at all; an empty message is a complete success.
            return body if media_type == PROTOBUF else b""
        failure = upstream_http_error(
            response.status,
            body,
            media_type,
            retry_after_seconds(response.headers.get("retry-after"), now=self._wall_clock()),
        )
        if response.status == 401 and self._headers.withholds_api_key(request):
            failure = with_hint(failure, WITHHELD_API_KEY)
        raise failure

    async def _content(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """Return the body without its content encoding; stop where it is larger than the limit."""
        pieces: list[bytes] = []
        left = limit

        def grown(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise _TooLargeError

        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        inflater = Inflater(grown) if encoding in ("gzip", "x-gzip") else None
        if inflater is None and encoding != "identity":
            raise MalformedOtlpError("not an encoding that was asked for")
        empty = True
        async for piece in response.content.iter_any():
            empty = False
            if inflater is not None:
                pieces += inflater.feed(piece)
            else:
                grown(len(piece))
                pieces.append(piece)
        if inflater is not None and not empty:
            inflater.finish()
        return b"".join(pieces)

    def _no_answer(self) -> UpstreamUnavailableError:
        return UpstreamUnavailableError(
            f"the upstream {self._endpoint} did not answer in time", grpc_code=GrpcCode.UNAVAILABLE
        )

    def _unavailable(self, why: str) -> UpstreamUnavailableError:
        return UpstreamUnavailableError(
            f"the upstream {self._endpoint} cannot be reached: {why}", grpc_code=GrpcCode.UNAVAILABLE
        )


async def _compressed(body: bytes) -> bytes:
    if len(body) < _COMPRESS_IN_THREAD:
        return gzip.compress(body, _COMPRESSION_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _COMPRESSION_LEVEL, mtime=0)
