"""Where nobody may touch the application: the entry points by which OpenTelemetry adds `EndUserSpanProcessor` itself.

One has the shape of an instrumentor, because that is what both ways of setting OpenTelemetry up without code look for:
`opentelemetry-instrument` loads every instrumentor that is installed, and the declarative configuration file those that
its section `instrumentation/development` names. (Its list of span processors takes no plug-in components.)

The other, `opentelemetry_pre_instrument`, is called by `opentelemetry-instrument` before all instrumentors: it gives up
at the first of them that raises, and whoever comes after that one is not loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace as trace_api
from opentelemetry.trace import ProxyTracerProvider

from neatlogs_otel._leaving import leaving
from neatlogs_otel._otlp import span_processors
from neatlogs_otel._span_processor import EndUserSpanProcessor
from neatlogs_otel._warnings import shown, warn_once

NAME: Final = "neatlogs_otel"
"""The entry point's name: what `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` and the configuration file call it."""

ROOTS_VARIABLE: Final = "NEATLOGS_ROOTS"
_DISABLED_VARIABLE: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def add_before_instrumentors() -> None:
    """Add the span processor before any instrumentor has its turn, unless it is switched off. Never raises."""
    disabled = {name.strip() for name in os.environ.get(_DISABLED_VARIABLE, "").split(",")}
    if not disabled & {NAME, "*"}:
        EndUserInstrumentor().instrument()


class EndUserInstrumentor:
    """Adds an `EndUserSpanProcessor` to the provider in use, once. Never raises: it must not cost others their set-up.

    It does not derive from OpenTelemetry's `BaseInstrumentor`, whose package the shim does not need.
    """

    _instance: EndUserInstrumentor | None = None
    _added_to: Any = None
    _added: EndUserSpanProcessor | None = None

    def __new__(cls) -> EndUserInstrumentor:
        """The one of this process, as with OpenTelemetry's own."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it has been activated."""
        return self._added_to is not None

    def instrument(self, *, tracer_provider: Any = None, roots: str | None = None, **options: Any) -> None:
        """Add the span processor; where it has been added, let it follow `roots`.

        Args:
            tracer_provider: Default: the global one.
            roots: As for `EndUserSpanProcessor`; the configuration file may say it. Default: `NEATLOGS_ROOTS`, else
                `"trace"`.
            **options: `skip_dep_check`, which OpenTelemetry passes; any other costs a warning.
        """
        try:
            for option in sorted(options.keys() - {"skip_dep_check", "raise_exception_on_conflict"}):
                warn_once("zero_code", option, "The option %s of %s is not known; roots is.", shown(option), NAME)
            self._add(tracer_provider or trace_api.get_tracer_provider(), roots)
        except Exception as error:  # noqa: BLE001  # OpenTelemetry would stop setting up everything else
            warn_once("internal", type(error), "%s while adding EndUserSpanProcessor.", type(error).__name__)

    def uninstrument(self, **_: Any) -> None:
        """Nothing: OpenTelemetry cannot take a span processor away from a provider."""

    def _add(self, provider: Any, roots: str | None) -> None:
        entry = _entry_counts(roots, os.environ)
        if isinstance(provider, ProxyTracerProvider) or not callable(getattr(provider, "add_span_processor", None)):
            warn_once(
                "zero_code",
                "provider",
                "Traces get no end user: there is no TracerProvider that takes span processors. Is "
                "opentelemetry-distro installed, and OTEL_SDK_DISABLED unset?",
            )
            return
        leaving()  # A key file that cannot be read is said at the start, not at the first request.
        if not any(isinstance(processor, EndUserSpanProcessor) for processor in span_processors(provider)):
            self._added = EndUserSpanProcessor(roots="entry" if entry else "trace")
            provider.add_span_processor(self._added)
        elif self._added is not None and roots is not None:
            self._added._entry = entry
        self._added_to = provider


def _entry_counts(roots: str | None, environ: Mapping[str, str]) -> bool:
    """Whether entry spans count as roots. What is not known costs a warning, and counts as `"trace"`."""
    named = f"roots of {NAME}"
    if roots is None:
        roots, named = environ.get(ROOTS_VARIABLE, "").strip().lower() or "trace", ROOTS_VARIABLE
    if roots not in ("trace", "entry"):
        warn_once("zero_code", named, '%s is neither "trace" nor "entry"; "trace" is used.', named)
    return roots == "entry"
