"""Whose a trace is and why, in words: for the card beside a trace, with the likely cause and the fix where it is open.

What is said here follows the rule: one end user for each trace, and the root span owns it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neatlogs_processor.query.results import OverrideRow, SpanDetail, TraceDetail

SOURCES: Final = {
    "trace": "set by trace() where the work began",
    "span": "set by the @span decorator where the work began",
    "set_end_user": "set by set_end_user() while the root span was open",
    "identify": "taken from the identify() block that the root span began in",
    "init": "the default of the process, given to init()",
    "resource": "the default of the process, from its resource attributes",
}
"""What each `neatlogs.end_user.source` means."""

_NEVER: Final = 1 << 63
"""Later than every start: a span that does not say when it started comes last."""

PLACES: Final = {
    "child": "on a child span",
    "event": "on a span event",
    "link": "on a span link",
    "scope": "on an instrumentation scope",
}
"""What each place of an override means."""


@dataclass(frozen=True)
class Finding:
    """Something that a person should know about a trace's identity.

    Attributes:
        about: `root`, `nobody`, `conflict` or `overrides`.
        level: `note` or `warning`.
        title: What is the case, in a few words.
        cause: Why, most likely.
        fix: What to do about it; may be empty.
        spans: Spans to look at.
    """

    about: str
    level: str
    title: str
    cause: str
    fix: str = ""
    spans: tuple[SpanDetail, ...] = ()


def speaker(detail: TraceDetail) -> SpanDetail | None:
    """Return the span that says whose the trace is, as the store picks it; `None` where it has not arrived.

    An entry span of a listed service comes before a root span, then the earliest counts, then the smaller span id.
    """
    owners = (span for span in detail.spans if span.owns_identity)
    return min(owners, key=lambda span: (not span.parent_id, span.start or _NEVER, span.span_id), default=None)


def source_sentence(source: str | None) -> str:
    """Return where an identity came from, in words."""
    if not source:
        return "written on the root span by the application; it does not say how"
    return SOURCES.get(source, f"said under {source}, by the application or another SDK")


def findings(detail: TraceDetail) -> tuple[Finding, ...]:
    """Return what is worth knowing about a trace's identity, the most important first."""
    trace, found = detail.trace, []
    head = speaker(detail)
    owners = tuple(sorted((span for span in detail.spans if span.owns_identity), key=lambda span: span is not head))
    if not trace.root_received:
        found.append(
            Finding(
                "root",
                "warning",
                "Root not received",
                "The root span of this trace has not arrived, so nobody can say whose it is. A root span ends last: the"
                " work may still run, its process may have been killed before it sent its last spans, or the trace"
                " began in a service (a gateway, a browser) that sends somewhere else.",
                "Let the application call shutdown() before it exits, and let the service that begins the trace send"
                " here too. If a gateway begins your traces, run the processor with --roots entry and"
                " --entry-services.",
            )
        )
    elif trace.end_user is None:
        found.append(
            Finding(
                "nobody",
                "warning",
                "No end user",
                "The root span arrived and names nobody: no source gave an identity by the time it ended.",
                'Pass end_user_id to trace() or @span where the work begins, or call set_end_user("…") as soon as you'
                " know who it is." + (" The overrides below show where somebody tried." if detail.overrides else ""),
                owners[:1],
            )
        )
    if trace.roots > 1:
        found.append(
            Finding(
                "conflict",
                "warning",
                f"Conflict: {trace.roots} root spans",
                "Several spans of this trace have no parent. The one that started first speaks for the trace.",
                "Two programs use the same trace id, or a service lost its parent context: propagate traceparent.",
                owners,
            )
        )
    if detail.overrides:
        found.append(_overrides(detail))
    return tuple(found)


def _overrides(detail: TraceDetail) -> Finding:
    ids = {override.span_id for override in detail.overrides}
    spans = tuple(span for span in detail.spans if span.span_id in ids)
    count = detail.trace.overrides
    return Finding(
        "overrides",
        "note",
        "1 override ignored" if count == 1 else f"{count} overrides ignored",
        "Identity stood anywhere but on the root span. It was removed, because one trace has one end user and its root"
        " owns it.",
        "Set the end user where the trace begins, or call set_end_user(): it addresses the open root span.",
        spans,
    )


def override_place(override: OverrideRow) -> str:
    """Return where an override stood, in words."""
    return PLACES.get(override.place, override.place)
