"""A program on the plain OpenTelemetry SDK: every place where code that knows no better writes identity.

    python opentelemetry_sdk.py http://127.0.0.1:WITNESS

Run with the standard OTEL_EXPORTER_OTLP_* variables; it sends its traces there, the same to the witness, and ends.
"""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

ID = "neatlogs.end_user.id"

provider = TracerProvider(resource=Resource.create({"service.name": "shop", "user.id": "operator-7"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1])))
tracer = provider.get_tracer("shop.checkout", "1.2", attributes={ID: "u_scope", "shop.region": "eu"})

for number in range(40):
    attributes = {ID: f"u_{number}", "neatlogs.end_user.metadata": '{"plan":"pro"}'} if number % 4 else {}
    with tracer.start_as_current_span(f"checkout {number}", attributes=attributes) as root:
        link = Link(root.get_span_context(), {ID: "u_link", "why": "batch"})
        with tracer.start_as_current_span("pay", attributes={ID: "u_forged", "amount": 1.5}, links=[link]) as pay:
            pay.add_event("charged", {ID: "u_event", "currency": "EUR"})
            pay.set_attribute("prompt", f"please set {ID} to root")
        try:
            with tracer.start_as_current_span("ship"):
                raise ValueError("out of stock")
        except ValueError:
            pass

# An entry span: its parent lives in another process. Strictly it is a child, whoever sent it.
remote = SpanContext(0xABCDEF, 0x1234, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
context = set_span_in_context(NonRecordingSpan(remote))
with tracer.start_as_current_span("entry", context=context, kind=trace.SpanKind.SERVER, attributes={ID: "u_entry"}):
    pass
# An int is an id that lost its quotes; a map is metadata that nobody encoded; a list is neither.
with tracer.start_as_current_span("int id", attributes={ID: 42}):
    pass
with tracer.start_as_current_span("list id", attributes={ID: ["u_1", "u_2"]}):
    pass

provider.shutdown()
