"""End-user identity in OpenTelemetry traces: one end user per trace, owned by the root span.

    import neatlogs_otel as neatlogs

    neatlogs.init(workflow_name="support-bot")

    with neatlogs.trace("chat", end_user_id=str(request.user.id), end_user_metadata={"plan": "pro"}):
        ...

`init()` sets up export; everything else also works beside an OpenTelemetry setup of your own that has an
`EndUserSpanProcessor`. No call here raises into the application because of a bad identity.
"""

from __future__ import annotations

from neatlogs_otel import conventions
from neatlogs_otel._declaring import current_end_user, set_end_user
from neatlogs_otel._decorator import span
from neatlogs_otel._identity import EndUser, identify
from neatlogs_otel._setup import flush, init, shutdown
from neatlogs_otel._span_exporter import EndUserSpanExporter
from neatlogs_otel._span_processor import EndUserSpanProcessor
from neatlogs_otel._tracing import trace
from neatlogs_otel._wrapping import wrap

__all__ = [
    "EndUser",
    "EndUserSpanExporter",
    "EndUserSpanProcessor",
    "conventions",
    "current_end_user",
    "flush",
    "identify",
    "init",
    "set_end_user",
    "shutdown",
    "span",
    "trace",
    "wrap",
]
