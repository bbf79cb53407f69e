"""The TypeScript package in `browser/`, built, and its programs."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "browser"
PROGRAMS = PACKAGE / "test" / "programs"


class NodeMissingError(Exception):
    """The package cannot be built here; the message says what to do."""


@functools.cache
def built_package() -> str:
    """Build the package, unless it is built from these very sources.

    Returns:
        The program that runs Node.

    Raises:
        NodeMissingError: There is no Node here, or the packages that the build needs cannot be installed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NodeMissingError("Node and npm are not installed: apt-get install -y nodejs npm")
    cache = PACKAGE.parent / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (PACKAGE / "node_modules" / ".package-lock.json").exists():
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=PACKAGE,
                capture_output=True,
                text=True,
                timeout=500,
                check=False,
            )
            if done.returncode:
                raise NodeMissingError(f"npm could not install the packages of browser/: {done.stderr[-300:]}")
        stamp, wanted = cache / "browser.sources", _fingerprint()
        built = (PACKAGE / "dist" / "node" / "index.js").exists() and stamp.exists()
        if not built or stamp.read_text(encoding="utf-8") != wanted:
            done = subprocess.run(
                [npm, "run", "--silent", "build"], cwd=PACKAGE, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            stamp.write_text(wanted, encoding="utf-8")
    return node


def run_node_program(name: str, *arguments: str, variables: Mapping[str, str] | None = None, text: str = "") -> str:
    """Run a program until it ends by itself; returns what it printed.

    Programs are in `browser/test/programs`, and named from there. It starts without any `OTEL_*` or `NEATLOGS_*`
    variable but the given ones, and reads `text` from its standard input.
    """
    done = subprocess.run(
        [built_package(), str(PROGRAMS / name), *arguments],
        env=clean_environment() | dict(variables or {}),
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def node_service(*arguments: str) -> Iterator[str]:
    """Run the program `service.mjs` until the block ends, and demand that it ends well; yields its URL."""
    process = subprocess.Popen(
        [built_package(), str(PROGRAMS / "service.mjs"), *arguments],
        # Batches leave soon: some tests wait for them while the service runs.
        env=clean_environment() | {"OTEL_BSP_SCHEDULE_DELAY": "100"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port.isdigit(), "the service did not start"
        yield f"http://127.0.0.1:{port}"
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()


def clean_environment() -> dict[str, str]:
    """The environment without the settings of whoever runs the tests."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_"))}


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.glob("src/**/*.ts"), PACKAGE / "tsconfig.build.json", PACKAGE / "package-lock.json"]):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
