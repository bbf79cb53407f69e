"""What every test of this project has to be, whatever it tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in TESTS.rglob("test_*.py") if path.relative_to(TESTS).parts[0] != "bench")

# Written so that this file does not find itself.
STAND_INS = re.compile(r"unittest\.mock|\bMagic" + r"Mock\b|\bmocker\b|monkeypatch\.set" + r"attr")


def of_file(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_says_in_a_sentence_what_it_demands(path: Path) -> None:
    """Each test function's docstring is one paragraph that ends as a sentence does."""
    for test in of_file(path):
        text = ast.get_docstring(test) or ""
        where = f"{path.name}:{test.lineno} {test.name}"
        assert text, f"{where} has no docstring"
        assert "\n\n" not in text, f"{where}: one paragraph is enough"
        assert text.endswith((".", "?", "!")), f"{where}: {text!r} is not a sentence"
        assert len(text.split()) > 2, f"{where}: {text!r} says too little"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_replaces_what_it_tests(path: Path) -> None:
    """Tests use real servers, real clients and in-memory exporters: nothing is patched."""
    found = STAND_INS.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{path.name} uses {found[0] if found else ''}"
