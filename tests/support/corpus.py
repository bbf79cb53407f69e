"""Where fuzzing starts: the conformance vectors, and the committed corpus beside them."""

from __future__ import annotations

import json
from pathlib import Path

from support.vectors import load_vectors

FOLDER = Path(__file__).parents[1] / "data" / "corpus"


def core_corpus() -> dict[str, bytes]:
    """Trace requests by name, in a fixed order."""
    seeds = {f"vector-{vector.name}": vector.request for vector in load_vectors()}
    seeds |= {path.name: path.read_bytes() for path in sorted((FOLDER / "core").iterdir())}
    return seeds


def json_corpus() -> dict[str, bytes]:
    """OTLP/JSON requests of every signal by name, in a fixed order."""
    seeds = {
        f"vector-{vector.name}": json.dumps(vector.readable, ensure_ascii=False).encode()
        for vector in load_vectors()
        if vector.readable is not None
    }
    seeds |= {path.name: path.read_bytes() for path in sorted((FOLDER / "json").iterdir())}
    return seeds
