"""`EndUserSpanProcessor`: gives each local root its end user, and keeps the registry of open local roots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from neatlogs_otel import _registry
from neatlogs_otel._declaring import declaration_in
from neatlogs_otel._identity import identified
from neatlogs_otel._leaving import leaving
from neatlogs_otel._process_default import process_default
from neatlogs_otel._warnings import shown, warn_once

witnesses: Final[list[Callable[[ReadableSpan], object]]] = []
"""Called with each root span (and entry span that may carry identity) that ends, in any thread; for tests."""


class EndUserSpanProcessor(SpanProcessor):
    """Adds the end user to the local roots of a `TracerProvider`; exports nothing and changes nothing else.

    Add it to any provider that is already set up:

        provider.add_span_processor(neatlogs.EndUserSpanProcessor())

    A root span opened by anyone (FastAPI's instrumentation, say) then carries the end user of `identify()` or
    `init()` from its start, and `trace()`, `@span` and `set_end_user()` can find it while it is open. For a child span
    both hooks return at once.

    Args:
        roots: `"trace"`: only root spans carry identity. `"entry"`: also entry spans (children whose parent is remote),
            for a service behind a gateway that starts the traces; the processor then needs the same setting.

    Raises:
        ValueError: `roots` is something else.
    """

    def __init__(self, *, roots: Literal["trace", "entry"] = "trace") -> None:
        if roots not in ("trace", "entry"):
            raise ValueError('roots must be "trace" or "entry"')
        self._entry = roots == "entry"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Settle the identity of a local root."""
        parent = span.parent
        if parent is not None and not parent.is_remote:
            return
        try:
            self._open(span, parent_context, is_root=parent is None)
        except Exception as error:  # noqa: BLE001  # an error of ours must not cost the application its span
            warn_once("internal", type(error), "%s while naming the end user of a root span.", type(error).__name__)

    def on_end(self, span: ReadableSpan) -> None:
        """Take a local root out of the registry, and say so if its identity was lost on the way."""
        parent = span.parent
        if parent is not None and not parent.is_remote:
            return
        context = span.context
        root = _registry.registry.close(context) if context is not None else None
        if root is None:
            return
        if root.takes_identity:
            for witness in tuple(witnesses):
                witness(span)
            _warn_of_raw_identity(span)
        if root.missing(span.attributes or {}):
            warn_once(
                "identity_evicted",
                span.name,
                "Span %s lost its end user: it has more attributes than the provider's limit "
                "(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT), and the SDK drops the oldest. Raise the limit, or call "
                "set_end_user() late.",
                shown(span.name),
            )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  # the SDK says the signature
        """Nothing is held back, so there is nothing to flush. (The base class of older SDKs would report a failure.)"""
        return True

    def _open(self, span: Span, parent_context: Context | None, *, is_root: bool) -> None:
        root, new = _registry.registry.open(span, is_root=is_root, takes_identity=is_root or self._entry)
        if not new:
            # Another of our span processors has seen the span; the more permissive setting of the two holds.
            if root.takes_identity or not self._entry:
                return
            root.takes_identity = True
        block = identified(parent_context)
        if not root.takes_identity:
            if block is not None and (block.end_user is not None or block.session_id is not None):
                warn_once(
                    "entry_span",
                    span.name,
                    "identify() has no effect on span %s: its trace was started by another service, which owns the "
                    'end user. Name it there, or use EndUserSpanProcessor(roots="entry").',
                    shown(span.name),
                )
            return
        if block is not None:
            block.take()
        root.start(declaration_in(parent_context), block, process_default())


def _warn_of_raw_identity(span: ReadableSpan) -> None:
    """Say so where a span has ended with identity that may not leave: an attribute set by hand since its start."""
    attributes = span.attributes or {}
    try:
        as_it_may_leave = leaving().attributes(attributes)
    except Exception as error:  # noqa: BLE001  # what others wrote on the span must not cost the application its span
        warn_once("internal", type(error), "%s while looking at a span that has ended.", type(error).__name__)
        return
    if as_it_may_leave is not attributes:
        warn_once(
            "raw_identity",
            span.name,
            "Span %s has identity attributes that were set by hand and may not leave like this. Exporters of "
            "neatlogs_otel and the processor see to it; another exporter sends them as they are. Call set_end_user() "
            "instead.",
            shown(span.name),
        )
