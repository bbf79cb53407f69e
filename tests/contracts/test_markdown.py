"""What the documents say is there: links, commands, flags, variables, and the Python in their examples."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import neatlogs_otel
from neatlogs_processor.cli import build_parser
from neatlogs_processor.settings import CONFIG_VARIABLE, ENV_PREFIX, entries
from neatlogs_processor.store_command import NAMES, parser_of

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(REPOSITORY).parts)
]
FLAGS = {flag for action in build_parser()._actions for flag in action.option_strings}
VARIABLES = {entry.variable for entry in entries()} | {CONFIG_VARIABLE}
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


def code(path: Path, *languages: str) -> Iterator[str]:
    """The fenced code blocks of a document in these languages."""
    text = path.read_text(encoding="utf-8")
    for block in re.finditer(r"^([ ]*)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        if block[2] in languages:
            yield textwrap.dedent(block[3])


def anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower()).replace(" ", "-")


def flags_of_command(words: list[str]) -> set[str]:
    """The flags that a command has beside those of the processor."""
    if words[:1] == ["pseudonym"]:
        return {"--end-user"}
    if words[:1] != ["store"] or words[1:2] == [] or words[1] not in NAMES:
        return set()
    return {flag for action in parser_of(words[1])._actions for flag in action.option_strings}


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of a document names a file of the repository, and its anchor a heading of that file."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name} links to {target}"
        if fragment and found.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, f"{path.name} links to {target}"


@each_document
def test_commands_exist(path: Path) -> None:
    """Each `make` target that a document names is the Makefile's; each flag and variable is the processor's."""
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(rf"{ENV_PREFIX}[A-Z_]+", text)) - {ENV_PREFIX} <= VARIABLES
    for line in shell(path):
        if target := re.match(r"(?:\$ )?make ([a-z][a-z-]*)", line):
            assert target[1] in TARGETS, f"{path.name}: {line}"
        words = line.split()
        if "neatlogs-processor" in words:
            ours = words[words.index("neatlogs-processor") + 1 :]
            given = {word.partition("=")[0] for word in ours if word.startswith("--")}
            assert given <= FLAGS | flags_of_command(ours), f"{path.name}: {line}"


def shell(path: Path) -> list[str]:
    """The lines of a document's shell blocks, continued lines joined, and its inline code."""
    blocks = "\n".join(code(path, "sh", "console", "bash", "shell")).replace("\\\n", " ")
    return blocks.splitlines() + re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))


@each_document
def test_python_uses_what_is_there(path: Path) -> None:
    """Each Python block compiles, and calls only public names of the shim, with arguments that they take."""
    for block in code(path, "python", "py"):
        tree = compile(block, str(path), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            name = public_name(node.func) if isinstance(node, ast.Call) else public_name(node)
            if name is None:
                continue
            assert name in (*neatlogs_otel.__all__, "testing"), f"{path.name}: neatlogs.{name}"
            if isinstance(node, ast.Call):
                takes = inspect.signature(getattr(neatlogs_otel, name)).parameters
                takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                assert takes_any or given <= takes.keys(), f"{path.name}: neatlogs.{name}({', '.join(given)})"


def public_name(node: ast.AST) -> str | None:
    """`x` of an expression `neatlogs.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id in ("neatlogs", "neatlogs_otel") else None
    return None
