"""Writes the hypothesis-made part of the core's start corpus: python tests/data/corpus/make.py

Requests of `support.wire_forms`, drawn without chance, so that the files change only with the strategies or with
hypothesis itself. Files that a fuzzer found are put beside them by hand, under a name that says what they show.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

from support.wire_forms import requests  # noqa: E402  # found only through the line above

COUNT = 60
MAX_SIZE = 1500


def main() -> None:
    """Write the files anew."""
    drawn: list[bytes] = []

    @settings(
        max_examples=2000,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(requests(groups=True))
    def draw(body: bytes) -> None:
        if 60 < len(body) <= MAX_SIZE and b"neatlogs.end_user" in body:
            drawn.append(body)

    draw()
    for old in (FOLDER / "core").glob("drawn-*"):
        old.unlink()
    step = max(1, len(drawn) // COUNT)
    for body in drawn[::step][:COUNT]:
        (FOLDER / "core" / f"drawn-{hashlib.sha256(body).hexdigest()[:12]}").write_bytes(body)


if __name__ == "__main__":
    main()
