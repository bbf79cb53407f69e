"""Text from a payload, made safe to show on a terminal or in a log, and made ready for comparing."""

from __future__ import annotations

import unicodedata

MAX_SHOWN_CHARS = 100
"""Longer text is cut."""


def shown(text: str, *, limit: int = MAX_SHOWN_CHARS) -> str:
    r"""Return the text on one line: what does not print is escaped (`\n`, `\x1b`), and the end is cut after `limit`.

    Terminals obey escape sequences and bidirectional marks, and log readers split at line ends; neither may be
    written by whoever names a span.
    """
    cut = text[: limit + 1]
    escaped = "".join(
        character if character.isprintable() and character != "\\" else _escape(character) for character in cut
    )
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def _escape(character: str) -> str:
    return "\\\\" if character == "\\" else character.encode("unicode_escape").decode("ascii")


def fold(text: str) -> str:
    """Return the text as comparisons that ignore case see it: NFKC, case-folded (so that `STRASSE` is `straße`)."""
    if text.isascii():
        return text.lower()
    # Folding can undo the normal form, and normalising can bring capitals back.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
