"""The table of metrics in the processor's README, made from the instruments themselves.

`python -m support.metrics_table` in the folder `tests` writes it anew.
"""

from __future__ import annotations

from neatlogs_processor.exposition import described
from neatlogs_processor.telemetry import Telemetry
from support.settings_table import README

BEGIN = "<!-- metrics: begin (tests/support/metrics_table.py writes this) -->"
END = "<!-- metrics: end -->"


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| Metric | Kind | Labels | What it is |", "|---|---|---|---|"]
    for metric in described(Telemetry()):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.description} |")
    return "\n".join(lines)


def current() -> str:
    """Return the table that stands in the README."""
    return README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Replace the table in the README."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write()
