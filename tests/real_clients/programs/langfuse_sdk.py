"""One trace of the Langfuse SDK, user and metadata known before it begins: python langfuse_sdk.py ENDPOINT."""

import sys

from langfuse import Langfuse, propagate_attributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

(endpoint,) = sys.argv[1:]
langfuse = Langfuse(
    public_key="pk-lf-test",
    secret_key="sk-lf-test",
    base_url=endpoint,
    tracer_provider=TracerProvider(),
    span_exporter=OTLPSpanExporter(f"{endpoint}/v1/traces"),
)
metadata = {"plan": "pro", "seats": 3, "company": {"size": 40}}
with (
    propagate_attributes(user_id="u_812", session_id="s_1", metadata=metadata),
    langfuse.start_as_current_observation(name="chat"),
    langfuse.start_as_current_observation(name="llm", as_type="generation"),
):
    pass
langfuse.shutdown()
