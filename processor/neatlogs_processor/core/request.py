"""What travels from a receiver through the pipeline to a sender."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from neatlogs_processor.core.policy import Enforced


class Signal(str, Enum):
    """The OpenTelemetry signals that OTLP exports."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


@dataclass(frozen=True)
class Request:
    """One OTLP export request.

    Attributes:
        signal: Which service was called.
        body: The serialised `Export…ServiceRequest`, uncompressed.
        headers: The request's metadata as it came, without the key that the processor itself asked for: lower-case
            names; over gRPC, `bytes` values for names that end in `-bin`.
        deadline: When the answer must be out, in seconds of the event loop's clock; `None` where the client set none.
        enforced: What the rule found; `None` before enforcement and for metrics and logs.
    """

    signal: Signal
    body: bytes
    headers: tuple[tuple[str, str | bytes], ...] = ()
    deadline: float | None = None
    enforced: Enforced | None = None
