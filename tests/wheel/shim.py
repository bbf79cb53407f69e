"""Tries the shim as installed: identity lands on the root and nowhere else.

python shim.py ENVIRONMENT
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import neatlogs_otel as neatlogs

environment = Path(sys.argv[1]).resolve()
assert Path(neatlogs.__file__).resolve().is_relative_to(environment), neatlogs.__file__
# The extra's own libraries do not come with the shim.
assert importlib.util.find_spec("pydantic") is None, "the base installation brings pydantic"

kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(neatlogs.EndUserSpanProcessor())
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)


@neatlogs.span(kind="TOOL")
def tool() -> int:
    return 42


with neatlogs.trace("chat", end_user_id="u_1", end_user_metadata={"plan": "pro"}):
    assert tool() == 42

child, root = kept.get_finished_spans()
assert root.attributes["neatlogs.end_user.id"] == "u_1", root.attributes
assert root.attributes["neatlogs.end_user.metadata"] == '{"plan":"pro"}', root.attributes
assert not [key for key in child.attributes if key.startswith("neatlogs.end_user")], child.attributes
print("The shim names the end user on the root alone")
