"""One trace of OpenInference's instrumentation base: python openinference_sdk.py ENDPOINT."""

import sys

from openinference.instrumentation import TracerProvider, using_metadata, using_session, using_user
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

(endpoint,) = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
tracer = provider.get_tracer("chat")
with (
    using_user("u_812"),
    using_session("s_1"),
    using_metadata({"plan": "pro", "seats": 3, "company": {"size": 40}}),
    tracer.start_as_current_span("chat", openinference_span_kind="chain"),
    tracer.start_as_current_span("llm", openinference_span_kind="llm"),
):
    pass
provider.shutdown()
