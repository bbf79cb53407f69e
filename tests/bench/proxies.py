"""The proxies that the processor is measured against, and the sink behind them, each a process of its own.

`passthrough` is the least that a proxy can do in the processor's own libraries: one unary call or POST in, the same
bytes out, no limits. `decode` does the processor's job by decoding, editing and encoding. `sink` accepts everything.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import grpc
import grpc.aio
import uvicorn

from tests.bench.rivals import decode_edit_encode

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
NO_LIMITS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))

Export = Callable[[bytes], Awaitable[bytes]]


async def serve_grpc(kind: str, upstream: str | None) -> None:
    """Serve OTLP/gRPC on a free port, print it, and stop at SIGTERM."""
    channel = None if upstream is None else grpc.aio.insecure_channel(upstream, options=NO_LIMITS)
    send = None if channel is None else channel.unary_unary(f"/{SERVICE}/Export")

    async def export(body: bytes, _: object) -> bytes:
        if send is None:
            return b""
        answer: bytes = await send(decode_edit_encode(body) if kind == "decode" else body)
        return answer

    server = grpc.aio.server(options=NO_LIMITS)
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await server.stop(1)
    if channel is not None:
        await channel.close()


async def serve_http(kind: str, upstream: str | None) -> None:
    """Serve OTLP/HTTP on a free port, print it, and stop at SIGTERM."""
    session: aiohttp.ClientSession | None = None

    async def export(body: bytes) -> bytes:
        nonlocal session
        if upstream is None:
            return b""
        if session is None:
            session = aiohttp.ClientSession(auto_decompress=False)
        data = decode_edit_encode(body) if kind == "decode" else body
        headers = {"content-type": "application/x-protobuf"}
        async with session.post(f"http://{upstream}/v1/traces", data=data, headers=headers) as response:
            return await response.read()

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    # No lifespan, no log: only what answers requests.
    config = uvicorn.Config(_application(export), log_config=None, access_log=False, lifespan="off", http="h11")
    await uvicorn.Server(config).serve(sockets=[listener])
    if session is not None:
        await session.close()


def _application(export: Export) -> Callable[[Any, Any, Any], Awaitable[None]]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        parts: list[bytes] = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        answer = await export(b"".join(parts))
        headers = [(b"content-type", b"application/x-protobuf"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("passthrough", "decode", "sink"))
    parser.add_argument("--protocol", choices=("grpc", "http"), default="grpc")
    parser.add_argument("--upstream")
    arguments = parser.parse_args()
    serve = serve_grpc if arguments.protocol == "grpc" else serve_http
    asyncio.run(serve(arguments.kind, arguments.upstream))


if __name__ == "__main__":
    main()
