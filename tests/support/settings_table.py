"""The table of settings in the processor's README, made from the settings themselves.

`python -m support.settings_table` in the folder `tests` writes it anew, and the schema of the Helm chart's values.
"""

from __future__ import annotations

from pathlib import Path

from neatlogs_processor.settings import Entry, entries
from support import chart_schema

README = Path(__file__).parents[2] / "processor" / "README.md"
BEGIN = "<!-- settings: begin (tests/support/settings_table.py writes this) -->"
END = "<!-- settings: end -->"


def table() -> str:
    """Return the table in Markdown."""
    lines = []
    group = ""
    for entry in entries():
        if entry.meta.group != group:
            group = entry.meta.group
            lines += ["", f"### {group}", "", "| Flag | Default | What it is |", "|---|---|---|"]
        lines.append(f"| `{entry.flag}` | {_default(entry)} | {entry.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines).strip()


def current() -> str:
    """Return the table that stands in the README."""
    text = README.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Replace the table in the README."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _default(entry: Entry) -> str:
    shown = entry.show(entry.default)
    return f"`{shown}`" if shown else "none"


if __name__ == "__main__":
    write()
    # What else follows from the settings.
    chart_schema.write()
