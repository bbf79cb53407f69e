"""An application that has OpenTelemetry already: it adds one span processor and keeps everything else.

    make run                                                # in one terminal
    .venv/bin/python examples/existing_opentelemetry.py     # in another

You see three traces: `nightly report` for `u_batch`, `login` for `u_late`, whose end user was known only inside, and
`health check` without an end user. The provider, its exporter and its tracers are the application's own.
"""

from __future__ import annotations

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import neatlogs_otel as neatlogs

# The setup that was there. The exporter's standard address is the processor's: localhost:4317.
provider = TracerProvider(resource=Resource.create({"service.name": "existing-service"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("existing")

# The one new line.
provider.add_span_processor(neatlogs.EndUserSpanProcessor())


def load(what: str) -> None:
    with tracer.start_as_current_span("load", attributes={"what": what}):
        pass


def main() -> int:
    # Roots that other code opens take the end user of the block that they are opened in.
    with (
        neatlogs.identify(end_user_id="u_batch", end_user_metadata={"plan": "pro"}),
        tracer.start_as_current_span("nightly report"),
    ):
        load("sales")

    # Known late: the root is open already, and takes the end user now.
    with tracer.start_as_current_span("login"):
        load("account")
        neatlogs.set_end_user("u_late")

    with tracer.start_as_current_span("health check"):
        pass

    # OpenTelemetry logs an error if an export fails; force_flush() does not tell.
    provider.shutdown()
    print("Traces of u_batch, of u_late, and one that serves nobody. An export error above means: first run make run.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
