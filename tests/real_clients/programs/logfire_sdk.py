"""Traces of Logfire, which writes baggage as attributes and scrubs some of it: python logfire_sdk.py ENDPOINT."""

import sys

import logfire
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

(endpoint,) = sys.argv[1:]
exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
logfire.configure(
    send_to_logfire=False,
    console=False,
    service_name="shop",
    additional_span_processors=[SimpleSpanProcessor(exporter)],
)
baggage = {"user_id": "u_812", "session_id": "s_1", "gen_ai.conversation.id": "s_1"}
with logfire.set_baggage(**baggage), logfire.span("chat"), logfire.span("llm"):
    pass
with logfire.set_baggage(user_id="auth0|812", session_id="s_1"), logfire.span("scrubbed"):
    pass
logfire.shutdown()
