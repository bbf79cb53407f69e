"""Text from payloads, made safe to show and ready for comparing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.core.text import fold, shown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("Grüße, 世界", "Grüße, 世界"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("right\u202eleft", "right\\u202eleft"),
        ("back\\slash", "back\\\\slash"),
        ("", ""),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_what_does_not_print_is_escaped(text: str, safe: str) -> None:
    """Control characters and bidirectional marks are escaped, long text is cut, other text stays."""
    assert shown(text) == safe


@given(st.text(st.characters(), max_size=300))
def test_shown_text_is_one_printable_line_of_bounded_length(text: str) -> None:
    """Whatever the text, the result is printable and no longer than the limit."""
    result = shown(text)
    assert result.isprintable()
    assert len(result) <= 100


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ali", "ALI"), ("straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("é", "E\u0301"), ("ﬁne", "FINE"), ("Å", "\u212b")],
)
def test_text_that_differs_in_case_or_form_folds_to_the_same(one: str, other: str) -> None:
    """Comparisons that ignore case ignore it in every script, and with it how characters are composed."""
    assert fold(one) == fold(other)
    assert fold(fold(one)) == fold(one)
