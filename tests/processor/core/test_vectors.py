"""The conformance vectors, run by the core."""

from __future__ import annotations

import runpy

import pytest

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.vectors import FOLDER, Vector, load_vectors

VECTORS = load_vectors()


def policy_of(vector: Vector) -> EndUserPolicy:
    """The policy that a vector asks for."""
    return EndUserPolicy(roots="entry" if vector.roots == "entry" else "trace", entry_services=vector.entry_services)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector) -> None:
    """Each vector becomes, byte for byte, what it has to become, with the counts and descriptions that it states."""
    if vector.expected is None:
        with pytest.raises(MalformedOtlpError):
            enforce_traces(vector.request, policy_of(vector))
        return
    enforced = enforce_traces(vector.request, policy_of(vector))
    assert enforced.body == vector.expected
    assert (enforced.body is vector.request) == (vector.expected == vector.request)
    counts = enforced.counts
    flat = {place.value: number for place, number in counts.overrides.items()} | {
        "spans": counts.spans,
        "roots": counts.roots,
        "roots_with_identity": counts.roots_with_identity,
        "defaults_moved": counts.defaults_moved,
        "invalid": counts.invalid,
    }
    assert {name: number for name, number in flat.items() if number} == vector.counts
    described = [(one.place.value, one.service, one.span_name, one.key) for one in enforced.overrides]
    assert described == vector.overrides


@pytest.mark.parametrize("vector", [one for one in VECTORS if one.expected is not None], ids=lambda vector: vector.name)
def test_vector_twice(vector: Vector) -> None:
    """What a vector becomes stays as it is when it is enforced again."""
    assert vector.expected is not None
    assert enforce_traces(vector.expected, policy_of(vector)).body is vector.expected


def test_files_are_what_their_source_makes() -> None:
    """The files say what `make.py` says: neither was changed without the other."""
    source = runpy.run_path(str(FOLDER / "make.py"))
    made = {name: source["render"](content) for name, content in source["CASES"].items()}
    assert made == {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
