"""An HTTP server inside the event loop that is running: uvicorn's connections without its process management.

`uvicorn.Server` takes over the process's signals, logs and exits; a processor with several listeners keeps these.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Callable

from uvicorn.config import Config
from uvicorn.server import ServerState

from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.http_protocol import BoundedProtocol, ConnectionLimits
from neatlogs_processor.receivers.listening import Bound, bind

# Of uvicorn's type only what is said here; Starlette's applications are of it.
Application = Callable[..., object]


class HttpServer:
    """Serves one ASGI application on one address.

    Args:
        app: The application. It lets no exception out.
        flag: The flag that names the address, for messages.
        limits: What connections may cost.
        refused: Called with a word for each connection that broke a limit, see `BoundedProtocol`.
        ssl: The TLS context; without one it speaks plain HTTP. Whoever gave it may load new certificates into it:
            they count for connections from then on.
    """

    def __init__(
        self,
        app: Application,
        *,
        flag: str,
        limits: ConnectionLimits | None = None,
        refused: Callable[[str], None] = lambda _: None,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        self._flag = flag
        self._limits = limits or ConnectionLimits()
        self._refused = refused
        self._ssl = ssl
        self._config = Config(
            app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._limits.idle_time,  # type: ignore[arg-type]  # handed to call_later as it is
            h11_max_incomplete_event_size=self._limits.header_size,
        )
        self._config.load()
        self._state = ServerState()
        self._bound: Bound | None = None
        self._servers: list[asyncio.Server] = []
        self._draining = False

    def bind(self, address: ListenAddress) -> ListenAddress:
        """Take the address and return the one taken, with the port that was chosen where 0 was asked for.

        Raises:
            ConfigError: The address is taken or cannot be used.
        """
        self._bound = bind(self._flag, address)
        return self._bound.address

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Accept connections."""
        if self._bound is None:
            raise RuntimeError("bind() comes first")
        loop = asyncio.get_running_loop()
        for one in self._bound.sockets:
            server = await loop.create_server(
                lambda: BoundedProtocol(self._config, self._state, self._limits, self._refused, lambda: self._draining),
                sock=one,
                ssl=self._ssl,
                ssl_handshake_timeout=self._limits.header_time if self._ssl else None,
            )
            self._servers.append(server)

    def drain(self) -> None:
        """End each connection with its next answer, so that clients connect elsewhere; new ones are still accepted."""
        self._draining = True

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests in flight finish for `grace` seconds, then cancel them. May be called twice."""
        for server in self._servers:
            server.close()
        if self._bound is not None:
            self._bound.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        # What has been written leaves, unless the other end does not read.
        for connection in list(self._state.connections):
            connection.transport.close()
        await asyncio.sleep(0)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
