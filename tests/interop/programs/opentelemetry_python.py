"""An application with OpenTelemetry's own SDK for Python: one trace that claims end users wherever a span can.

Run as `python opentelemetry_python.py PROTOCOL http://127.0.0.1:PORT`.
"""

from __future__ import annotations

import importlib
import sys

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

protocol, endpoint = sys.argv[1:]
package = {"grpc": "grpc", "http/protobuf": "http"}[protocol]
exporters = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.trace_exporter")
exporter = exporters.OTLPSpanExporter(endpoint=endpoint if protocol == "grpc" else f"{endpoint}/v1/traces")

# The operator, who is nobody's end user.
provider = TracerProvider(resource=Resource({"service.name": "python-client", "user.id": "operator"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("tests", attributes={"neatlogs.end_user.id": "u_scope"})

claims = {"neatlogs.end_user.id": "u_7", "neatlogs.end_user.metadata": '{"plan":"free"}'}
root = tracer.start_span("checkout", attributes={**claims, "neatlogs.session.id": "session-7", "count": 7})
with trace.use_span(root, end_on_exit=True):
    claims = {"neatlogs.end_user.id": "u_child", "neatlogs.end_user.metadata": "{}"}
    # In the words of the backends, too: where the processor writes these, a child has no say in them.
    claims |= {"user.id": "u_child", "session.id": "session-child"}
    with tracer.start_as_current_span("pay", attributes={**claims, "amount": 12.5}) as pay:
        pay.add_event("step", {"neatlogs.end_user.id": "u_event", "number": 1})

if not provider.force_flush(30_000):
    sys.exit("not everything was sent")
provider.shutdown()
