"""What the documents promise is proven: every row of a table of promises names tests, and the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from neatlogs_processor.settings import entries

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "processor" / "README.md"]
HEADING = "Proven by"

# A test as pytest names it, or a program below tests/ that stands for itself.
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
LIMITS = {entry.flag for entry in entries() if entry.meta.group == "Limits"} | {"--upstream-max-response-size"}


def promises(path: Path) -> list[list[str]]:
    """The cells of each row of the tables whose last column says what proves it."""
    rows: list[list[str]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == HEADING:
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append(cells)
    return rows


ROWS = [
    pytest.param(row, id=f"{path.relative_to(REPOSITORY)}: {row[0][:60]}")
    for path in DOCUMENTS
    for row in promises(path)
]


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_names_tests_that_are_there(row: list[str]) -> None:
    """Each row names at least one test function, and each file and function that it names exists."""
    named = REFERENCE.findall(row[-1])
    assert any(function for _, function in named), f"no test is named: {row[-1]}"
    assert not re.sub(REFERENCE, "", row[-1]).strip(" ,"), f"more than tests is named: {row[-1]}"
    for file, function in named:
        assert (REPOSITORY / file).is_file(), file
        if function:
            tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert function in defined, f"{file} has no {function}"
            assert function.startswith("test_")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_each_readme_has_its_promises(path: Path) -> None:
    """Neither README makes its promises without a table that says what proves them."""
    assert len(promises(path)) >= 5


def test_every_limit_is_in_the_table_of_limits() -> None:
    """Each flag that limits what one client, or the upstream, can cost is named beside what happens past it."""
    named = {
        flag for row in promises(REPOSITORY / "processor" / "README.md") for flag in re.findall(r"`(--[\w-]+)`", row[1])
    }
    assert named >= LIMITS
