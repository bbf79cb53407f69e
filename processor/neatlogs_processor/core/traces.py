"""The rule on the bytes of an OTLP trace request."""

from __future__ import annotations

from neatlogs_processor.core.policy import Counts, EndUserPolicy, Enforced


def enforce_traces(body: bytes, policy: EndUserPolicy) -> Enforced:
    """Skeleton only: to be replaced."""
    return Enforced(body, Counts())
