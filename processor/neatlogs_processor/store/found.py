"""What a store holds of one end user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Found:
    """What a store holds of an end user.

    Attributes:
        traces: Traces that are theirs.
        spans: How many spans those hold.
        mixed: Traces of others, or of nobody, in which a second root names them. They go too, whole: nobody can say
            which of their spans are whose.
    """

    traces: int
    spans: int
    mixed: int


NOTHING: Final = Found(0, 0, 0)
"""Nothing of them is here."""
