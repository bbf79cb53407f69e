"""The proxies that the processor is measured against, and the sink behind them, each a process of its own.

`passthrough` is the processor's own receiver and exporter with nothing in between: the floor that this gRPC stack sets.
`decode` does the processor's job by decoding, editing and encoding. `sink` accepts everything.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from dataclasses import replace

from neatlogs_processor.core.request import Request
from neatlogs_processor.exporters.otlp_grpc import OtlpGrpcExporter
from neatlogs_processor.formats import Endpoint, ListenAddress
from neatlogs_processor.receivers.otlp_grpc import OtlpGrpcReceiver
from tests.bench.rivals import decode_edit_encode

LARGEST = 64 * 2**20


async def serve(kind: str, upstream: str | None) -> None:
    """Serve on a free port, print it, and stop at SIGTERM."""
    exporter = None
    if upstream is not None:
        exporter = OtlpGrpcExporter(Endpoint.parse(upstream), headers={}, max_message_size=LARGEST)

    async def handle(request: Request) -> bytes:
        if exporter is None:
            return b""
        if kind == "decode":
            request = replace(request, body=decode_edit_encode(request.body))
        return await exporter.send(request)

    receiver = OtlpGrpcReceiver(handle, max_message_size=LARGEST)
    address = receiver.bind(ListenAddress("127.0.0.1", 0))
    await receiver.start()
    print(address.port, flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    await receiver.stop(1)
    if exporter is not None:
        await exporter.close()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("passthrough", "decode", "sink"))
    parser.add_argument("--upstream")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.kind, arguments.upstream))


if __name__ == "__main__":
    main()
