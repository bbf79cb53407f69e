"""The Python shim and the TypeScript shim encode the same values to the same text, whatever the values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from neatlogs_otel import conventions
from support.typescript_package import NodeMissingError, built_package, run_node_program

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

# Letters, white space of every kind, controls, two to four bytes of UTF-8, half a surrogate pair, a comma for tags.
ALPHABET = 'ab,  \t\n\u001c\u0085\u00a0\u2003\u3000\ufeff\u200b"\\/\u0000\u001f\u007fäß名\uffee\uffff😀👩\u200d🚀\ud800'


def text(chance: random.Random) -> str:
    return "".join(chance.choice(ALPHABET) for _ in range(chance.choice((0, 1, 2, 5, 20, 400))))


def value(chance: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.random() < 0.5,
        lambda: chance.randint(-(2**53) + 1, 2**53 - 1),
        lambda: chance.randint(-3, 300) + 0.5,
        lambda: text(chance),
    ]
    if depth < 4:
        kinds += [
            lambda: [value(chance, depth + 1) for _ in range(chance.randint(0, 4))],
            *[lambda: {text(chance): value(chance, depth + 1) for _ in range(chance.randint(0, 5))}] * 2,
        ]
    return chance.choice(kinds)()


def attempt(encode: Callable[[object], str | None], given: object) -> Any:
    try:
        return encode(given)
    except conventions.RefusedError:
        return {"refused": True}


def encoded(given: object) -> dict[str, Any]:
    return {
        "id": attempt(conventions.encode_id, given),
        "metadata": attempt(conventions.encode_metadata, given),
        "tags": attempt(conventions.encode_tags, given),
    }


def test_encoded_to_the_byte() -> None:
    """Of values made by chance both make the same ids, metadata and tags, or both refuse them."""
    try:
        built_package()
    except NodeMissingError as error:
        pytest.skip(str(error))
    chance = random.Random(20_261_121)  # noqa: S311  # the same values each time
    values = [value(chance) for _ in range(2_000)]
    printed = run_node_program("encode.mjs", text="".join(f"{json.dumps(given)}\n" for given in values))
    # Not splitlines(): other characters end a line for Python, and stand as they are in JSON.
    found = [json.loads(line) for line in printed.rstrip("\n").split("\n")]
    assert len(found) == len(values)
    for given, there in zip(values, found, strict=True):
        assert there == encoded(given), repr(given)
