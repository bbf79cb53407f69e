"""Line pictures as SVG: small, without scripts, readable on light and dark pages."""

from __future__ import annotations

from html import escape
from typing import Final

from tests.bench.growth import Growth

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 56, 44
_COLOURS: Final = ("#2563eb", "#c2410c", "#15803d", "#7e22ce")
_STYLE: Final = "text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:13px}"


def draw(growth: Growth) -> str:
    """Return the picture. Both axes are linear and begin at zero."""
    top_x = max(x for points in growth.lines.values() for x, _ in points)
    top_y = _nice(max(y for points in growth.lines.values() for _, y in points))

    def across(x: float) -> float:
        return _LEFT + x / top_x * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - y / top_y * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(growth.title)}</title><style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#fff"/>',
        f'<text x="16" y="22" class="t">{escape(growth.title)}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">{escape(growth.x)}</text>',
        f'<text x="16" y="{_HEIGHT - 8}">{escape(growth.y)}</text>',
    ]
    for step in range(5):
        y = top_y * step / 4
        parts.append(f'<path d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    parts += [
        f'<text x="{across(x):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
        for x in _ticks([x for x, _ in next(iter(growth.lines.values()))], top_x)
    ]
    legend = 16
    for at, (name, points) in enumerate(growth.lines.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        parts.append(f'<path d="M{legend} 38h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{legend + 20}" y="42">{escape(name)}</text>')
        legend += 36 + 7 * len(name)
    return "\n".join([*parts, "</svg>", ""])


def _nice(number: float) -> float:
    """The next number up that reads well as the end of an axis."""
    power = 1.0
    while power * 10 < number:
        power *= 10
    while power > number:
        power /= 10
    return next(power * step for step in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10) if power * step >= number)


def _ticks(points: list[float], top: float) -> list[float]:
    """Those of the points that have room for a label below them."""
    kept: list[float] = []
    for point in sorted(points, reverse=True):
        if not kept or kept[-1] - point >= top / 12:
            kept.append(point)
    return kept
