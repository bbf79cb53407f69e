"""One trace through two services, of which the second claims another end user. The root's end user stands.

    make run                                                  # in one terminal
    .venv/bin/python examples/distributed_two_services.py     # in another

You see two traces for `u_ada` and `u_grace`, each with spans of both services: the shop, which opens the root, and the
stock, a process of its own that knows nothing of end users' rules. It writes the attribute by hand, as code in any
language can. What it claims never gets past the processor, whose log names the span.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import neatlogs_otel as neatlogs


def stock() -> None:
    """The second service: plain OpenTelemetry, no shim. It ends when its standard input does."""
    provider = TracerProvider(resource=Resource.create({"service.name": "stock"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("stock")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # HTTP ignores the case of header names, the propagator of a plain dictionary does not.
            context = propagate.extract({name.lower(): value for name, value in self.headers.items()})
            with tracer.start_as_current_span("reserve", context=context, kind=trace.SpanKind.SERVER) as span:
                span.set_attribute("neatlogs.end_user.id", "u_whoever_stock_thinks_it_is")
                self.send_response(204)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """No access log."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        for _ in sys.stdin:  # a line for each request to come
            server.handle_request()
    provider.shutdown()


@contextmanager
def running_stock() -> Iterator[subprocess.Popen[str]]:
    """Run the second service until the block ends."""
    command = [sys.executable, __file__, "stock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # this very program
        yield process


def shop() -> int:
    """The first service, where the traces begin."""
    neatlogs.init(workflow_name="shop")
    tracer = trace.get_tracer("shop")
    with running_stock() as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the second service was started without pipes")
        port = int(process.stdout.readline())
        for end_user_id in ("u_ada", "u_grace"):
            with (
                neatlogs.trace("checkout", end_user_id=end_user_id),
                tracer.start_as_current_span("GET /reserve", kind=trace.SpanKind.CLIENT),
            ):
                headers: dict[str, str] = {}
                propagate.inject(headers)
                print("request", file=process.stdin, flush=True)
                request = urllib.request.Request(f"http://127.0.0.1:{port}/reserve", headers=headers)
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # an http URL of our own
                    print(f"checkout of {end_user_id}: stock answers {answer.status}")
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print("Sent 2 traces through 2 services; the processor ignored what the second service claimed.")
    return 0


def main() -> int:
    if sys.argv[1:] == ["stock"]:
        stock()
        return 0
    return shop()


if __name__ == "__main__":
    sys.exit(main())
