"""Which TracerProvider the shim's own spans come from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from opentelemetry import trace as trace_api
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, Tracer, TracerProvider

from neatlogs_otel._warnings import warn_once

SCOPE_NAME = "neatlogs_otel"

try:
    SCOPE_VERSION = version("neatlogs-otel")
except PackageNotFoundError:  # Run from a source tree that was never installed.
    SCOPE_VERSION = "0"

_NOTHING: Final = NoOpTracerProvider()

_chosen: TracerProvider | None = None
_cached: tuple[TracerProvider, Tracer] | None = None


def use_tracer_provider(provider: TracerProvider | None) -> TracerProvider | None:
    """Take the shim's own spans from `provider`; `None` means the global one again.

    Returns:
        What was chosen before, so that a test can put it back.
    """
    global _chosen  # One choice per process, as with the global provider itself.
    before, _chosen = _chosen, provider
    return before


def tracer_provider() -> TracerProvider:
    """The provider in use: the chosen one, else the global one; one that records nothing where that cannot be made."""
    if _chosen is not None:
        return _chosen
    try:
        return trace_api.get_tracer_provider()
    except Exception as error:  # noqa: BLE001  # OpenTelemetry loads what a variable names, and raises if it cannot
        warn_once(
            "no_provider",
            type(error),
            "Nothing is recorded: OpenTelemetry cannot make its TracerProvider (%s). Is OTEL_PYTHON_TRACER_PROVIDER "
            "right?",
            type(error).__name__,
        )
        return _NOTHING


def records_nothing(provider: TracerProvider) -> bool:
    """Whether this stands in for a provider that there is not, or not yet."""
    return provider is _NOTHING or isinstance(provider, ProxyTracerProvider)


def is_set_up() -> bool:
    """Whether there is a provider at all. Says once where there is none, so that nothing will be recorded."""
    if not isinstance(tracer_provider(), ProxyTracerProvider):
        return True
    warn_once(
        "no_provider",
        None,
        "No TracerProvider is set, so nothing is recorded: call neatlogs_otel.init() at the start of the program, "
        "or set up OpenTelemetry and add neatlogs_otel.EndUserSpanProcessor() to its TracerProvider.",
    )
    return False


def tracer() -> Tracer:
    """The tracer of the shim's own spans."""
    global _cached  # Asking the SDK for a tracer takes its lock and touches the warning filters.
    provider = tracer_provider()
    cached = _cached
    if cached is not None and cached[0] is provider:
        return cached[1]
    if not is_set_up():
        return provider.get_tracer(SCOPE_NAME, SCOPE_VERSION)
    made = provider.get_tracer(SCOPE_NAME, SCOPE_VERSION)
    _cached = (provider, made)
    return made
