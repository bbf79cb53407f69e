"""Receives OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp), and plain traces beside it."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from neatlogs_processor.core.otlp_json import MAX_DEPTH
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import NotOtlpHttpError, ProcessorError, SlowRequestError
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.http_body import BodyLimits, HttpBody
from neatlogs_processor.receivers.http_forms import Form, OtlpForm, PlainTraceForm
from neatlogs_processor.receivers.http_protocol import ConnectionLimits
from neatlogs_processor.receivers.http_server import HttpServer
from neatlogs_processor.receivers.in_flight import BytesInFlight, Lease
from neatlogs_processor.receivers.security import Authenticate

PATHS: Final = {f"/v1/{signal.value}": signal for signal in Signal}

PLAIN_TRACE_PATH: Final = "/v1/trace"
"""Where the published `neatlogs/browser` client sends."""

ALLOWED_HEADERS: Final = (
    "authorization",
    "baggage",
    "content-encoding",
    "content-type",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-requested-with",
)
"""What a page of a listed origin may send."""

_PREFLIGHT_SECONDS = 600


@dataclass(frozen=True)
class HttpOptions:
    """What can be chosen about the receiver beside its address.

    Attributes:
        connections: The limits of connections.
        body: The limits of bodies.
        max_json_depth: How deeply a JSON request may nest.
        cors_origins: The origins whose pages may send; none unless named.
    """

    connections: ConnectionLimits
    body: BodyLimits
    max_json_depth: int = MAX_DEPTH
    cors_origins: Sequence[str] = ()


class OtlpHttpReceiver:
    """An OTLP/HTTP server.

    Args:
        handler: Answers the requests of every signal with a serialised response, or raises `ProcessorError`.
        options: See `HttpOptions`.
        bytes_in_flight: Where the bytes of requests are counted.
        authenticate: Says whether a client may send, before its body is read; without it everybody may.
        ssl: The TLS context; without it the receiver speaks plain HTTP.
        refused: Called with each request that the handler does not get to see, and why.
        http_refused: Called with a word for what is refused before its signal is known, see `BoundedProtocol`; and with
            `unknown_path`.
        failed: Called with each error that should not have happened.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[bytes]],
        *,
        options: HttpOptions,
        bytes_in_flight: BytesInFlight,
        authenticate: Authenticate | None = None,
        ssl: ssl_module.SSLContext | None = None,
        refused: Callable[[Signal, ProcessorError], None] = lambda _signal, _error: None,
        http_refused: Callable[[str], None] = lambda _: None,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._handler = handler
        self._options = options
        self._bytes_in_flight = bytes_in_flight
        self._authenticate = authenticate
        self._refused = refused
        self._http_refused = http_refused
        self._failed = failed
        self._app = Starlette(
            routes=[Route(path, self._export, methods=["POST"]) for path in (*PATHS, PLAIN_TRACE_PATH)],
            exception_handlers={HTTPException: self._no_route},  # type: ignore[dict-item]  # of HTTPException alone
            middleware=_cors(options.cors_origins),
        )
        self._app.router.redirect_slashes = False
        self._server = HttpServer(
            self._serve, flag="--http-listen", limits=options.connections, refused=http_refused, ssl=ssl
        )

    def bind(self, address: ListenAddress) -> ListenAddress:
        """Take the address and return the one taken, with the port that was chosen where 0 was asked for.

        Raises:
            ConfigError: The address is taken or cannot be used.
        """
        return self._server.bind(address)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return self._server.open_connections

    async def start(self) -> None:
        """Accept requests."""
        await self._server.start()

    def drain(self) -> None:
        """End each connection with its next answer, so that clients connect elsewhere; new ones are still accepted."""
        self._server.drain()

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests in flight finish for `grace` seconds, then cancel them."""
        await self._server.stop(grace)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self._failed(error)
            raise

    async def _export(self, http: HttpRequest) -> Response:
        form = self._form(http)
        body = HttpBody(http.receive, http.headers, self._options.body)
        try:
            with self._bytes_in_flight.lease() as lease:
                try:
                    request = await self._request(http, form, body, lease)
                except ProcessorError as error:
                    self._refused(form.signal, error)
                    raise
                response = await _unless_gone(self._handler(request), body)
        except ProcessorError as error:
            if not isinstance(error, SlowRequestError):
                await body.discard()
            return form.refused(error, close=not body.complete)
        except ClientDisconnect:
            # Nobody reads it.
            return Response(status_code=499)
        return form.accepted(response)

    def _form(self, http: HttpRequest) -> Form:
        depth, size = self._options.max_json_depth, self._options.body.size
        if http.url.path == PLAIN_TRACE_PATH:
            return PlainTraceForm(max_depth=depth, max_size=size)
        signal = PATHS.get(http.url.path, Signal.TRACES)
        return OtlpForm(signal, _media_type(http), max_depth=depth, max_size=size)

    async def _request(self, http: HttpRequest, form: Form, body: HttpBody, lease: Lease) -> Request:
        held_key = None if self._authenticate is None else self._authenticate(form.signal, _combined(http))
        if _media_type(http) not in form.media_types:
            raise NotOtlpHttpError(f"the content type has to be {' or '.join(form.media_types)}", http_status=415)
        content = await body.read(lease)
        if form.transcodes:
            content = await form.read(content)
            lease.end()
            lease.grow(len(content))
        return Request(signal=form.signal, body=content, headers=_metadata(http, without=held_key))

    async def _no_route(self, http: HttpRequest, error: HTTPException) -> Response:
        wrong: ProcessorError
        form = self._form(http)
        if error.status_code == 405:
            said = "OTLP is sent by POST"
            if http.method == "OPTIONS" and "access-control-request-method" in http.headers:
                # A browser tells the page nothing of this, so the log is where its developer finds the cause.
                said = "a web page asked to send, and no origin may: --cors-origins names those that may"
            wrong = NotOtlpHttpError(said, http_status=405, headers={"allow": "POST"})
            self._refused(form.signal, wrong)
        else:
            wrong = NotOtlpHttpError(f"there is nothing here; OTLP is sent to {', '.join(PATHS)}", http_status=404)
            self._http_refused("unknown_path")
        body = HttpBody(http.receive, http.headers, self._options.body)
        await body.discard()
        return form.refused(wrong, close=not body.complete)


def _cors(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["POST"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=["retry-after"],
            max_age=_PREFLIGHT_SECONDS,
        )
    ]


def _media_type(http: HttpRequest) -> str:
    return http.headers.get("content-type", "").partition(";")[0].strip().lower()


def _combined(http: HttpRequest) -> dict[str, str]:
    """The headers by name; several of one name are one with commas, which no key contains."""
    combined: dict[str, str] = {}
    for name, value in http.headers.items():
        combined[name] = f"{combined[name]}, {value}" if name in combined else value
    return combined


def _metadata(http: HttpRequest, *, without: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in http.headers.items() if name != without)


async def _unless_gone(work: Awaitable[bytes], body: HttpBody) -> bytes:
    """Return the outcome of the work, which is cancelled when the client goes away.

    Raises:
        ClientDisconnect: The client went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(body.gone())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
