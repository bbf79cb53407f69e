"""Where nobody may touch the application: the entry point by which OpenTelemetry adds `EndUserSpanProcessor` itself.

It has the shape of an instrumentor, because that is what both ways of setting OpenTelemetry up without code look for:
`opentelemetry-instrument` loads every instrumentor that is installed, and the declarative configuration file those that
its section `instrumentation/development` names. (Its list of span processors takes no plug-in components.)
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace as trace_api
from opentelemetry.trace import ProxyTracerProvider

from neatlogs_otel._otlp import span_processors
from neatlogs_otel._span_processor import EndUserSpanProcessor
from neatlogs_otel._warnings import shown, warn_once

NAME: Final = "neatlogs_otel"
"""The entry point's name: what `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` and the configuration file call it."""


class EndUserInstrumentor:
    """Adds an `EndUserSpanProcessor` to the provider in use, once. Never raises: it must not cost others their set-up.

    It does not derive from OpenTelemetry's `BaseInstrumentor`, whose package the shim does not need.
    """

    _instance: EndUserInstrumentor | None = None
    _added_to: Any = None

    def __new__(cls) -> EndUserInstrumentor:
        """The one of this process, as with OpenTelemetry's own."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it has been activated."""
        return self._added_to is not None

    def instrument(self, *, tracer_provider: Any = None, roots: str = "trace", **options: Any) -> None:
        """Add the span processor.

        Args:
            tracer_provider: Default: the global one.
            roots: As for `EndUserSpanProcessor`; the configuration file may say it.
            **options: `skip_dep_check`, which OpenTelemetry passes; any other costs a warning.
        """
        try:
            for option in sorted(options.keys() - {"skip_dep_check", "raise_exception_on_conflict"}):
                warn_once("zero_code", option, "The option %s of %s is not known; roots is.", shown(option), NAME)
            self._add(tracer_provider or trace_api.get_tracer_provider(), roots)
        except Exception as error:  # noqa: BLE001 - OpenTelemetry would stop setting up everything else
            warn_once("internal", type(error), "%s while adding EndUserSpanProcessor.", type(error).__name__)

    def uninstrument(self, **_: Any) -> None:
        """Nothing: OpenTelemetry cannot take a span processor away from a provider."""

    def _add(self, provider: Any, roots: str) -> None:
        if roots not in ("trace", "entry"):
            warn_once("zero_code", "roots", 'roots of %s is not "trace" or "entry"; "trace" is used.', NAME)
            roots = "trace"
        if isinstance(provider, ProxyTracerProvider) or not callable(getattr(provider, "add_span_processor", None)):
            warn_once(
                "zero_code",
                "provider",
                "Traces get no end user: there is no TracerProvider that takes span processors. Is "
                "opentelemetry-distro installed, and OTEL_SDK_DISABLED unset?",
            )
            return
        if not any(isinstance(processor, EndUserSpanProcessor) for processor in span_processors(provider)):
            provider.add_span_processor(EndUserSpanProcessor(roots="entry" if roots == "entry" else "trace"))
        self._added_to = provider
