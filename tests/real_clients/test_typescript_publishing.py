"""The TypeScript package as it would be published, installed where its sources are absent."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.typescript_package import PACKAGE, NodeMissingError, built_package, clean_environment

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

USE = "n.init({ export: false }); console.log(n.trace({ name: 'chat', endUserId: 'u' }, () => n.currentEndUser().id));"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, with what it needs."""
    try:
        built_package()
    except NodeMissingError as error:
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("consumer")
    subprocess.run(
        [shutil.which("npm") or "npm", "pack", "--ignore-scripts", "--pack-destination", str(home)],
        cwd=PACKAGE,
        check=True,
        timeout=100,
        capture_output=True,
    )
    (archive,) = home.glob("*.tgz")
    packages = home / "node_modules"
    packages.mkdir()
    for package in (PACKAGE / "node_modules").iterdir():
        (packages / package.name).symlink_to(package)
    with tarfile.open(archive) as opened:
        opened.extractall(home, filter="data")
    (home / "package").rename(packages / "neatlogs-otel")
    return home


def run(home: Path, *command: str) -> str:
    """Run a command there; returns what it printed."""
    done = subprocess.run(
        command, cwd=home, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_imported(installed: Path) -> None:
    """An application imports the package by its name, and the browser entry besides."""
    program = f"import * as n from 'neatlogs-otel'; import {{ Neatlogs }} from 'neatlogs-otel/browser'; {USE}"
    assert run(installed, built_package(), "--input-type=module", "-e", program) == "u\n"


def test_its_types_are_found(installed: Path) -> None:
    """A project in TypeScript compiles against what was published."""
    consumer = installed / "consumer.ts"
    consumer.write_text((PACKAGE / "test" / "types.ts").read_text(encoding="utf-8"), encoding="utf-8")
    (installed / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--module", "NodeNext", "--target", "ES2022")
    run(
        installed,
        str(PACKAGE / "node_modules" / ".bin" / "tsc"),
        *flags,
        "--lib",
        "ES2023,DOM,DOM.Iterable",
        consumer.name,
    )


def test_it_holds_what_a_user_needs_and_no_more(installed: Path) -> None:
    """Compiled code, its types, the README and the license; no sources, tests or tools."""
    package = installed / "node_modules" / "neatlogs-otel"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    beside = {file for file in files if not file.startswith("dist/")}
    assert beside == {"package.json", "README.md", "LICENSE"}
    assert all(file.endswith((".js", ".d.ts")) for file in files - beside)
    assert (package / "LICENSE").read_bytes() == (PACKAGE.parent / "LICENSE").read_bytes()
