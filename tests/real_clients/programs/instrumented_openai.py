"""A program whose OpenAI calls are traced by an instrumentation, named in the first argument.

    python instrumented_openai.py openinference|genai|openai-v2 http://127.0.0.1:MODEL/v1 http://127.0.0.1:WITNESS

Run with the standard OTEL_EXPORTER_OTLP_* variables; it sends its traces there, the same to the witness, and ends.
"""

import sys

import openai
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import neatlogs_otel as neatlogs

provider = TracerProvider()
provider.add_span_processor(neatlogs.EndUserSpanProcessor())
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[3])))
if sys.argv[1] == "openinference":
    from openinference.instrumentation.openai import OpenAIInstrumentor
elif sys.argv[1] == "genai":
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
else:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
OpenAIInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("program")

with openai.OpenAI(base_url=sys.argv[2], api_key="none", max_retries=0) as client:

    def ask(question: str, *, stream: bool = False) -> None:
        messages = [{"role": "user", "content": question}]
        answer = client.chat.completions.create(model="gpt-test", messages=messages, stream=stream)
        if stream:
            for _ in answer:
                pass

    # The call itself is the root: identify() names the user of roots that others open.
    with neatlogs.identify(end_user_id="u_identified", end_user_metadata={"plan": "pro"}):
        ask("Who am I?")
    # The call is a child, and its question quotes the key.
    with neatlogs.identify(end_user_id="u_request"), tracer.start_as_current_span("request"):
        ask('Is "neatlogs.end_user.id" a key?', stream=True)
        with tracer.start_as_current_span("tool", attributes={"neatlogs.end_user.id": "u_forged"}):
            pass
    # Nobody named a user.
    ask("Anyone there?")

provider.shutdown()
