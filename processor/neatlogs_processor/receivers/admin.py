"""The admin port: whether the process lives, whether it takes requests, and its metrics.

Probes of an orchestrator carry no token and name the host as they like, so `/healthz` and `/readyz` look at neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.http_protocol import ConnectionLimits
from neatlogs_processor.receivers.http_server import HttpServer

_FRESH = {"cache-control": "no-store"}


class AdminServer:
    """Serves the admin port.

    Args:
        not_ready: Returns why the processor takes no requests at the moment; empty where it does.
        metrics: Renders the metrics for a scraper's `Accept` header: body and content type.
        limits: What connections may cost.
        refused: Called with a word for each connection that broke a limit, see `BoundedProtocol`.
        failed: Called with each error that should not have happened.
        routes: What else is served here.
    """

    def __init__(
        self,
        *,
        not_ready: Callable[[], str],
        metrics: Callable[[str], tuple[bytes, str]],
        limits: ConnectionLimits | None = None,
        refused: Callable[[str], None] = lambda _: None,
        failed: Callable[[Exception], None] = lambda _: None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._not_ready = not_ready
        self._metrics = metrics
        self._failed = failed
        self._app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._scrape),
                *routes,
            ]
        )
        self._server = HttpServer(self._serve, flag="--admin-listen", limits=limits, refused=refused)

    def bind(self, address: ListenAddress) -> ListenAddress:
        """Take the address and return the one taken, with the port that was chosen where 0 was asked for.

        Raises:
            ConfigError: The address is taken or cannot be used.
        """
        return self._server.bind(address)

    async def start(self) -> None:
        """Accept connections."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop accepting, let answers finish for `grace` seconds, then cancel them."""
        await self._server.stop(grace)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self._failed(error)
            raise

    async def _healthz(self, _: HttpRequest) -> Response:
        return PlainTextResponse("ok\n", headers=_FRESH)

    async def _readyz(self, _: HttpRequest) -> Response:
        reason = self._not_ready()
        if reason:
            return PlainTextResponse(f"not ready: {reason}\n", status_code=503, headers=_FRESH)
        return PlainTextResponse("ready\n", headers=_FRESH)

    async def _scrape(self, http: HttpRequest) -> Response:
        body, content_type = self._metrics(http.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **_FRESH})
