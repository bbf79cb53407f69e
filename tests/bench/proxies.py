"""The proxies that the processor is measured against, and the sink behind them, each a process of its own.

`passthrough` is the least that a proxy can do in this gRPC stack: one unary call in, the same bytes out, no limits.
`decode` does the processor's job by decoding, editing and encoding. `sink` accepts everything.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

import grpc
import grpc.aio

from tests.bench.rivals import decode_edit_encode

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
NO_LIMITS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))


async def serve(kind: str, upstream: str | None) -> None:
    """Serve on a free port, print it, and stop at SIGTERM."""
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


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("passthrough", "decode", "sink"))
    parser.add_argument("--upstream")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.kind, arguments.upstream))


if __name__ == "__main__":
    main()
