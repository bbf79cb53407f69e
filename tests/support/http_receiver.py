"""The OTLP/HTTP receiver by itself, inside the test's event loop, with a handler that keeps what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import httpx

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.http_body import BodyLimits
from neatlogs_processor.receivers.http_protocol import ConnectionLimits
from neatlogs_processor.receivers.in_flight import BytesInFlight
from neatlogs_processor.receivers.otlp_http import HttpOptions, OtlpHttpReceiver
from neatlogs_processor.receivers.security import Authenticate

LIMIT = 30
"""Seconds after which a wait is a failure."""

PATIENT = HttpOptions(
    # Longer than any test waits, so that a limit is met only where a test asks for it.
    connections=ConnectionLimits(header_time=600, header_size=16 * 1024, idle_time=600, connections=100),
    body=BodyLimits(size=2**20, time=600, rate=0),
)


@dataclass
class Received:
    """A receiver, what its handler was given, and what it refused."""

    address: ListenAddress
    receiver: OtlpHttpReceiver
    bytes_in_flight: BytesInFlight
    client: httpx.AsyncClient
    requests: list[Request] = field(default_factory=list)
    refused: list[tuple[Signal, str]] = field(default_factory=list)
    http_refused: list[str] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a bare connection; it is closed with the receiver at the latest."""
        if self.address.path:
            opened = await asyncio.open_unix_connection(self.address.path)
        else:
            opened = await asyncio.open_connection(self.address.host, self.address.port)
        self.writers.append(opened[1])
        return opened


async def accept(_: Request) -> bytes:
    """Accept every request."""
    return b""


@contextlib.asynccontextmanager
async def http_receiver(
    handler: Callable[[Request], Awaitable[bytes]] = accept,
    *,
    options: HttpOptions = PATIENT,
    authenticate: Authenticate | None = None,
    bytes_in_flight: int = 2**30,
    listen: str = "127.0.0.1:0",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Received]:
    """Run a receiver on a free port."""
    budget = BytesInFlight(bytes_in_flight, max_message_size=options.body.size, chance=lambda: 0.5)
    found: Received

    async def keep(request: Request) -> bytes:
        found.requests.append(request)
        return await handler(request)

    def refuse(signal: Signal, error: ProcessorError) -> None:
        found.refused.append((signal, error.reason))

    receiver = OtlpHttpReceiver(
        keep,
        options=options,
        bytes_in_flight=budget,
        authenticate=authenticate,
        ssl=tls,
        refused=refuse,
        http_refused=lambda reason: found.http_refused.append(reason),
        failed=lambda error: found.failed.append(error),
    )
    address = receiver.bind(ListenAddress.parse(listen))
    try:
        await receiver.start()
        transport = httpx.AsyncHTTPTransport(uds=address.path) if address.path else None
        scheme = "https" if tls else "http"
        base = f"{scheme}://localhost" if address.path else f"{scheme}://{address}"
        async with httpx.AsyncClient(base_url=base, transport=transport, timeout=LIMIT, trust_env=False) as client:
            found = Received(address, receiver, budget, client)
            try:
                yield found
            finally:
                for writer in found.writers:
                    writer.transport.abort()
                for writer in found.writers:
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
    finally:
        await receiver.stop(0)
    assert not found.failed
    assert budget.held == 0


def with_limits(
    connections: ConnectionLimits | None = None, body: BodyLimits | None = None, **options: object
) -> HttpOptions:
    """The patient options, but for these."""
    return replace(
        PATIENT,
        connections=connections or PATIENT.connections,
        body=body or PATIENT.body,
        **options,  # type: ignore[arg-type]  # options by name, of any type
    )


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What the receiver still sends before it closes the connection."""
    try:
        return await asyncio.wait_for(reader.read(-1), LIMIT)
    except ConnectionResetError:
        return b""


def status_of(answer: bytes) -> int:
    """The status of the first response in bytes of HTTP/1.1; 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
