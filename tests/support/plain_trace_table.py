"""The fields of a plain trace: the table in the processor's README, and the data file for clients in other languages.

`python -m support.plain_trace_table` in the folder `tests` writes both anew, from `core/plain_fields.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neatlogs_processor.core.plain_fields import (
    ERROR_WORDS,
    FIELDS,
    KIND_OF_CHILD,
    KIND_OF_ROOT,
    KINDS,
    OK_WORDS,
    UNSET_WORDS,
)
from support.settings_table import README

DATA = Path(__file__).parents[1] / "data" / "plain_trace_fields.json"
CASES = DATA.with_name("plain_trace_cases.json")
"""Spans with what becomes of them, written by hand."""
BEGIN = "<!-- plain trace: begin (tests/support/plain_trace_table.py writes this) -->"
END = "<!-- plain trace: end -->"


def table() -> str:
    """Return the tables in Markdown."""
    lines = ["| Field | On | Its value | Attributes | What else |", "|---|---|---|---|---|"]
    for one in FIELDS:
        names = ", ".join(f"`{name}`" for name in (one.name, *one.aliases))
        lines.append(
            f"| {names} | {one.on} | {one.value} | {', '.join(f'`{key}`' for key in one.attributes)} | {one.meaning} |"
        )
    lines += ["", "| A span without `kind` that has | is |", "|---|---|"]
    for fields, kind in KINDS:
        lines.append(f"| {' or '.join(f'`{name}`' for name in fields)} | `{kind}` |")
    lines.append(f"| none of them | `{KIND_OF_ROOT}` if it is the root, else `{KIND_OF_CHILD}` |")
    return "\n".join(lines)


def data() -> dict[str, Any]:
    """Return what the data file holds."""
    return {
        "about": "The fields of a plain trace and what they become. Made from core/plain_fields.py of the processor.",
        "fields": [
            {
                "name": one.name,
                "aliases": list(one.aliases),
                "on": one.on,
                "value": one.value,
                "attributes": list(one.attributes),
                "meaning": one.meaning,
            }
            for one in FIELDS
        ],
        "kinds": [{"has": list(fields), "kind": kind} for fields, kind in KINDS],
        "kind_of_root": KIND_OF_ROOT,
        "kind_of_child": KIND_OF_CHILD,
        "status_words": {"error": sorted(ERROR_WORDS), "ok": sorted(OK_WORDS), "unset": sorted(UNSET_WORDS)},
    }


def cases() -> list[dict[str, Any]]:
    """Return the cases: each has a name, a root span's fields, its attributes and its status."""
    found: list[dict[str, Any]] = json.loads(CASES.read_text(encoding="utf-8"))["cases"]
    return found


def current() -> str:
    """Return the tables that stand in the README."""
    return README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Replace the tables in the README, and the data file."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    DATA.write_text(json.dumps(data(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
