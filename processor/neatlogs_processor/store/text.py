"""Text as the store's columns hold it: folded, in sets, and metadata as strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from neatlogs_processor.core.text import fold

MAX_METADATA_CHARS: Final = 64 * 1024
"""Longer metadata stays with its span and cannot be filtered by: every list shows that of each of its rows."""
MAX_METADATA_DEPTH: Final = 64
"""Deeper metadata stays with its span and cannot be filtered by: SQLite's JSON has a limit of its own."""


def fold_or_none(text: str | None) -> str | None:
    """`fold`, with `None` as it is."""
    return None if text is None else fold(text)


def write_set(members: Iterable[str]) -> str:
    """Write a set as text in which every member stands between line feeds; see `schema.sql`."""
    lines = sorted({line for member in members if (line := member.replace("\n", " "))})
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def read_set(text: str) -> set[str]:
    """Return what `write_set` wrote."""
    return {line for line in text.split("\n") if line}


def split_tags(text: str | None) -> list[str]:
    """Return the tags of a comma-separated list."""
    return [tag for part in (text or "").split(",") if (tag := part.strip())]


def filterable_metadata(text: str | None) -> str | None:
    """Return metadata as JSON that SQLite reads as we do, or `None` where it is no JSON object or too large.

    Duplicate keys are gone (the last one counts), numbers that JSON does not know are text, and so is half a
    surrogate pair. Key order stays.
    """
    if text is None or len(text) > MAX_METADATA_CHARS:
        return None
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            return None
        return json.dumps(_clean(value, MAX_METADATA_DEPTH), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None


def fold_metadata(text: str | None) -> str | None:
    """Return filterable metadata with every text value folded; keys stay."""
    if text is None:
        return None
    return json.dumps(_folded(json.loads(text)), ensure_ascii=False, separators=(",", ":"))


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if _has_surrogate(value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, (dict, list)):
        return value
    if not depth:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value]
    return {_clean(key, 0): _clean(item, depth - 1) for key, item in value.items()}


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return fold(value)
    if isinstance(value, list):
        return [_folded(item) for item in value]
    if isinstance(value, dict):
        return {key: _folded(item) for key, item in value.items()}
    return value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
