"""An application that uses the shim: one trace, whose nested claims have no effect.

Run as `python shim.py http://127.0.0.1:PORT`; `OTEL_EXPORTER_OTLP_PROTOCOL` says how it speaks.
"""

from __future__ import annotations

import sys

from opentelemetry import trace

import neatlogs_otel as neatlogs

neatlogs.init(workflow_name="support-bot", endpoint=sys.argv[1], tags=["interop"])
tracer = trace.get_tracer("tests")

with neatlogs.trace(
    "chat",
    end_user_id="u_812",
    end_user_metadata={"plan": "pro", "seats": 3, "company": {"size": 40}},
    session_id="session-1",
) as root:
    root.set_attribute("input.value", 'neatlogs.end_user.id is "u_quoted" 😀')
    # The shim ignores the first claim and says so; the second does not go through it and is the processor's to remove.
    with neatlogs.trace("plan", kind="AGENT", end_user_id="u_nested"):
        pass
    with tracer.start_as_current_span("tool", attributes={"neatlogs.end_user.id": "u_tool", "tool.name": "search"}):
        pass

if not neatlogs.flush(30):
    sys.exit("not everything was sent")
neatlogs.shutdown(30)
