"""Folders with the Node packages of a client, made once under `.peers/` from a committed package.json and lock file."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from support.peer_environments import PEERS, PeerUnavailableError

SOURCES = Path(__file__).parents[1] / "real_clients" / "node"


def node_environment(name: str) -> Path:
    """Return the folder in which the packages of `tests/real_clients/node/NAME` are installed, and its programs are.

    Raises:
        PeerUnavailableError: There is no Node here, or the packages cannot be installed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise PeerUnavailableError("Node and npm are not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    source, home = SOURCES / name, PEERS / f"node-{name}"
    stamp = home / "stamp.txt"
    wanted = version + (source / "package-lock.json").read_text(encoding="utf-8")
    PEERS.mkdir(exist_ok=True)
    with (PEERS / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            # Without a stamp an earlier attempt was cut short: begin again.
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for file in ("package.json", "package-lock.json"):
                shutil.copy(source / file, home)
            _install(npm, home)
            stamp.write_text(wanted, encoding="utf-8")
        for program in source.glob("*.cjs"):
            # Node looks for packages beside the program.
            shutil.copy(program, home)
    return home


def _install(npm: str, home: Path) -> None:
    # Scripts of packages do not run: none of these needs one.
    command = [npm, "ci", "--ignore-scripts", "--omit=optional", "--omit=peer", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise PeerUnavailableError(f"npm could not install {home.name}: {last[0]}")
