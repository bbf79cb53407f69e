"""What the TypeScript package exports, beside the Python shim and the document that compares them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import neatlogs_otel
from neatlogs_otel import conventions

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "browser"
COLUMNS = {"Node": PACKAGE / "src/node/index.ts", "browser": PACKAGE / "src/browser/index.ts"}


def exported(path: Path) -> set[str]:
    """The names that a module of TypeScript exports, without its types."""
    text = path.read_text(encoding="utf-8")
    names = set(re.findall(r"^export \* as (\w+)", text, re.MULTILINE))
    for block in re.findall(r"^export \{(.*?)\}", text, re.MULTILINE | re.DOTALL):
        for item in filter(None, map(str.strip, block.split(","))):
            if not item.startswith("type ") and not item.endswith(" as default"):
                names.add(item.split(" as ")[-1])
    return names


def table() -> list[tuple[str, ...]]:
    """The rows of the table of names: Python, TypeScript, browser."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Names in Python and TypeScript\n")[2].partition("\n## ")[0]
    rows = [
        re.findall(r"[^|]+", line.strip()[1:-1])
        for line in section.splitlines()
        if line.startswith("| `") or "| |" in line
    ]
    return [tuple(cell.strip().strip("`") for cell in row) for row in rows]


def column(at: int) -> set[str]:
    return {row[at] for row in table() if row[at]}


def test_the_table_names_what_is_there() -> None:
    """The table of names has all that Python exports, all that TypeScript exports, and nothing else."""
    assert column(0) == set(neatlogs_otel.__all__)
    assert column(1) == exported(COLUMNS["Node"])
    assert column(2) == exported(COLUMNS["browser"])


def test_the_same_thing_has_the_same_name() -> None:
    """A name of Python is that of TypeScript in the spelling of its language."""
    for python, typescript, _ in table():
        if python and typescript:
            assert re.sub(r"_(\w)", lambda found: found[1].upper(), python) == typescript


@pytest.mark.parametrize(
    "name",
    sorted(
        re.findall(r"^([A-Z][A-Z_]+): Final", Path(str(conventions.__file__)).read_text(encoding="utf-8"), re.MULTILINE)
    ),
)
def test_the_keys_are_equal(name: str) -> None:
    """Each attribute key and each limit of the Python shim is the same in TypeScript."""
    text = (PACKAGE / "src/identity/conventions.ts").read_text(encoding="utf-8")
    found = re.search(rf"^export const {name} = (.+?)(?: as const)?;$", text, re.MULTILINE)
    assert found is not None
    expected = getattr(conventions, name)
    written = [expected] if isinstance(expected, str | int) else list(expected)
    value = eval(found[1]) if re.fullmatch(r"[\d *]+", found[1]) else json.loads(found[1])  # noqa: S307  # a product
    assert (value if isinstance(value, list) else [value]) == written


def test_both_packages_have_one_version() -> None:
    """The packages are published together, under one version."""
    version = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))["version"]
    assert f'version = "{version}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'VERSION = "{version}"' in (PACKAGE / "src/identity/version.ts").read_text(encoding="utf-8")


def test_the_lock_file_names_no_host() -> None:
    """Everybody installs from the registry that they use: the lock file says which version with which hash."""
    packages = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)


def test_the_lock_file_serves_every_machine() -> None:
    """Packages for other machines than the one that wrote the lock file are in it too, or `npm ci` refuses it there."""
    packages = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    there = {name.rpartition("node_modules/")[2] for name in packages}
    wanted = {name for package in packages.values() for name in package.get("optionalDependencies", ())}
    assert not wanted - there
