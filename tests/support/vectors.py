"""The conformance vectors: what a request is, and what it has to become under the rule.

They are data, so that every implementation runs the same ones; `tests/data/vectors/make.py` is their source.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "vectors"


@dataclass(frozen=True)
class Vector:
    """One case.

    Attributes:
        name: The file's name.
        about: What the case states.
        roots: `"trace"` or `"entry"`.
        entry_services: The services whose entry spans own identity.
        request: The bytes that are sent.
        readable: The same as OTLP JSON, or None where nobody can read them.
        expected: The bytes that leave, or None where the request is refused.
        expected_readable: The same as OTLP JSON.
        counts: Those that are not zero, by the names of the operator's counters.
        overrides: Place, service, span or scope name, and key of each ignored override.
    """

    name: str
    about: str
    roots: str
    entry_services: frozenset[str]
    request: bytes
    readable: dict[str, Any] | None
    expected: bytes | None
    expected_readable: dict[str, Any] | None
    counts: dict[str, int]
    overrides: list[tuple[str, str, str, str]]


def load_vectors() -> list[Vector]:
    """Every case, by name."""
    return [_load(path) for path in sorted(FOLDER.glob("*.json"))]


def _load(path: Path) -> Vector:
    content = json.loads(path.read_text())
    expected = content["expected_bytes"]
    return Vector(
        name=path.stem,
        about=content["about"],
        roots=content["policy"]["roots"],
        entry_services=frozenset(content["policy"]["entry_services"]),
        request=base64.b64decode(content["request_bytes"]),
        readable=content["request"],
        expected=None if expected is None else base64.b64decode(expected),
        expected_readable=content["expected"],
        counts=content["counts"],
        overrides=[tuple(item) for item in content["overrides"]],
    )
