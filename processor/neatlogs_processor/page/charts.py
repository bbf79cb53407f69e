"""Charts as inline SVG. Positions are attributes, because the Content-Security-Policy allows no inline style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from neatlogs_processor.page import shown
from neatlogs_processor.query.results import Bucket, SpanDetail
from neatlogs_processor.query.view import Period, View

_HEIGHT: Final = 44
_STEP: Final = 10
SCALE: Final = 1000
"""How many units wide a bar of the waterfall can be."""


def histogram(buckets: Sequence[Bucket], view: View, root: str, now: int) -> Markup:
    """Return traces over time; each bar is a link to its own period. Empty without buckets."""
    if not buckets:
        return Markup("")
    top = max(max(bucket.traces for bucket in buckets), 1)
    bars = []
    for place, bucket in enumerate(buckets):
        end = buckets[place + 1].start if place + 1 < len(buckets) else None
        height = _height(bucket.traces, top)
        errors = min(_height(bucket.errors, top), height)
        label = f"{shown.short_time(bucket.start, now)}: {shown.plural(bucket.traces, 'trace')}"
        label += f", {bucket.errors:,} with errors" if bucket.errors else ""
        inside = Markup('<rect class="hit" x="{x}" y="0" width="{w}" height="{h}"/>').format(
            x=place * _STEP, w=_STEP, h=_HEIGHT
        )
        for name, tall in (("bar", height), ("bar bad", errors)):
            if tall:
                inside += Markup(
                    '<rect class="{name}" x="{x}" y="{y:.2f}" width="{w}" height="{h:.2f}" rx="1"/>'
                ).format(name=name, x=place * _STEP + 1, y=_HEIGHT - tall, w=_STEP - 2, h=tall)
        href = root + view.during(Period(start=bucket.start, end=end)).url
        bars.append(
            Markup('<a href="{href}" tabindex="-1" aria-label="{label}"><title>{label}</title>{inside}</a>').format(
                href=href, label=label, inside=inside
            )
        )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="group"'
        ' aria-label="Traces over time">{bars}</svg>'
    ).format(w=len(buckets) * _STEP, h=_HEIGHT, bars=Markup("").join(bars))


def _height(count: int, top: int) -> float:
    return max(2.0, count / top * (_HEIGHT - 2)) if count else 0.0


def sparkline(counts: Sequence[int]) -> Markup:
    """Return a line of counts over time, as high as its own highest."""
    top = max(counts, default=0)
    if not top:
        return Markup("")
    step = 100 / max(len(counts) - 1, 1)
    points = " ".join(f"{place * step:.1f},{22 - count / top * 20:.1f}" for place, count in enumerate(counts))
    return Markup(
        '<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{label}">'
        '<polygon points="0,23 {points} 100,23"/><polyline points="{points}"/></svg>'
    ).format(label=f"Traces over time: {', '.join(map(str, counts))}", points=points)


def share_bar(parts: Sequence[tuple[str, int, str]]) -> Markup:
    """Return a bar in parts, each with its name (a class), its count and its label."""
    total = sum(count for _, count, _ in parts)
    if not total:
        return Markup("")
    x, rects = 0.0, []
    for name, count, label in parts:
        width = count / total * SCALE
        if count:
            rects.append(
                Markup(
                    '<rect class="{name}" x="{x:.1f}" y="0" width="{w:.1f}" height="8"><title>{t}</title></rect>'
                ).format(name=name, x=x, w=width, t=f"{label}: {count:,}")
            )
        x += width
    text = ", ".join(f"{label} {count:,}" for _, count, label in parts if count)
    return Markup(
        '<svg class="share" viewBox="0 0 1000 8" preserveAspectRatio="none" role="img" aria-label="{text}">'
        "{rects}</svg>"
    ).format(text=text, rects=Markup("").join(rects))


@dataclass(frozen=True)
class Bar:
    """Where a span stands in the waterfall, in units of `SCALE`."""

    x: float
    width: float


def bar(span: SpanDetail, start: int, duration: int) -> Bar:
    """Return the bar of a span in a trace that starts and lasts so; never too thin to be seen."""
    whole = max(duration, 1)
    x = min(max((span.start - start) / whole * SCALE, 0.0), SCALE - 4.0)
    return Bar(x, min(max(span.duration / whole * SCALE, 4.0), SCALE - x))


def waterfall_bar(span: SpanDetail, start: int, duration: int) -> Markup:
    """Return the bar of a span as SVG."""
    found = bar(span, start, duration)
    return Markup(
        '<svg class="bar kind-{kind}{bad}" viewBox="0 0 1000 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" x="0" y="5.5" width="1000" height="1"/>'
        '<rect class="own" x="{x:.1f}" y="1" width="{w:.1f}" height="10"/></svg>'
    ).format(
        kind=span.kind if span.kind in KINDS else "other",
        bad=Markup(" bad") if span.status == "error" else "",
        x=found.x,
        w=found.width,
    )


def ticks(duration: int) -> list[tuple[int, str]]:
    """Return the marks of the waterfall's time axis: where in percent, and what they say."""
    return [(quarter * 25, shown.duration(duration * quarter // 4) if quarter else "0") for quarter in range(5)]


KINDS: Final = ("workflow", "agent", "chain", "llm", "tool", "retriever", "embedding", "reranker", "guardrail")
"""Kinds of spans that have a colour of their own."""
