"""The cases of `tests/data/pseudonyms.json`, which the shims of both languages and the processor share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

DATA: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "pseudonyms.json").read_text(encoding="utf-8")
)
KEYS: Final[str] = DATA["keys"]
"""A file of keys: h2 writes, h1 is known."""


def cases(name: str) -> Any:
    """Each case of a list of the file as one set of parameters, named after what it is about."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["about"]) for case in DATA[name]])
