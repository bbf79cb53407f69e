"""Programs in processes of their own, for what is one per process: the global provider, patched classes, exits, forks.

    result = run_program('''
        import neatlogs_otel as neatlogs
        ...
        report({"roots": [...]})
    ''')
    assert result.report == {"roots": [...]}

A program starts without any `OTEL_*` or `NEATLOGS_*` variable and with warnings as errors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

_PRELUDE = """
import json, logging, sys
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
def report(value):
    print("REPORT " + json.dumps(value), flush=True)
"""


@dataclass(frozen=True)
class Result:
    """What a program that ended by itself with exit code 0 has left.

    Attributes:
        report: What it gave to `report(...)`; the last one counts.
        said: The messages of the shim's logger, in order.
        stderr: Everything on standard error.
    """

    report: Any
    said: list[str]
    stderr: str


def run_program(
    source: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    site_packages: Path | None = None,
    strict: bool = True,
) -> Result:
    """Run a program and return what it reported; fail with its output if it did not exit with 0.

    Args:
        source: The program; indentation that all its lines share is taken away. `report(value)` is defined.
        *arguments: Its `sys.argv[1:]`.
        env: Environment variables to set.
        site_packages: What is installed, in place of the packages that the tests have.
        strict: Turn warnings into errors; a foreign library may need it off.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_"))}
    path = [REPOSITORY / "tests", REPOSITORY]
    flags = ["-W", "error"] if strict else []
    if site_packages is not None:
        path.append(site_packages)
        flags.append("-S")
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    environment.update(env or {})
    done = subprocess.run(
        [sys.executable, *flags, "-c", _PRELUDE + textwrap.dedent(source), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    reports = [line.removeprefix("REPORT ") for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    said = [line.split(" ", 2)[2] for line in done.stderr.splitlines() if line.startswith("neatlogs_otel ")]
    return Result(json.loads(reports[-1]) if reports else None, said, done.stderr)


def installed_without(target: Path, *hidden: str) -> Path:
    """Make a folder that holds what is installed for the tests, as links, except some packages.

    Args:
        target: An empty folder.
        hidden: What to leave out: the beginning of paths below site-packages, with `/` between folders.

    Returns:
        The folder, for `run_program(site_packages=...)`.
    """
    source = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    _link(source, target, "", hidden)
    return target


def _link(source: Path, target: Path, inside: str, hidden: tuple[str, ...]) -> None:
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        name = f"{inside}{entry.name}"
        if entry.name == "__pycache__" or name.startswith(hidden):
            continue
        if entry.is_dir() and any(path.startswith(f"{name}/") for path in hidden):
            _link(entry, target / entry.name, f"{name}/", hidden)
        else:
            (target / entry.name).symlink_to(entry)
