"""nginx and HAProxy in front of processors, with the files of deploy/load-balancing and the addresses of the test."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.processor import LIMIT

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "load-balancing"
FILES = {"nginx": FOLDER / "nginx.conf", "haproxy": FOLDER / "haproxy.cfg"}

# Programs of daemons lie where a user's PATH may not lead.
_PATH = ":".join(("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"))


@dataclass(frozen=True)
class Behind:
    """Where one processor behind a proxy listens, as ports of 127.0.0.1."""

    grpc: int
    http: int
    admin: int


@dataclass(frozen=True)
class Proxy:
    """A running proxy, as ports of 127.0.0.1."""

    grpc: int
    http: int


def program_of(name: str) -> str | None:
    """Return the path of a proxy's program, `None` where it is not installed."""
    return shutil.which(name) or shutil.which(name, path=_PATH)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def configuration(name: str, behind: Sequence[Behind], proxy: Proxy, folder: Path) -> str:
    """Return a proxy's file with these addresses instead of those of the example, and files in a folder of the test.

    Nothing else is changed.
    """
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    found: list[str] = []
    for line in lines:
        server = re.match(r"\s+server \D*10\.0\.0\.(\d+):(4317|4318)", line)
        if line == "http {":
            # Where it was installed, root alone may write.
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            line += "".join(f" {kind}_temp_path {folder}/{kind};" for kind in kinds)
        if server is None:
            line = re.sub(r"(listen |bind :)4317\b", lambda match: f"{_loopback(match[1])}{proxy.grpc}", line)
            line = re.sub(r"(listen |bind :)4318\b", lambda match: f"{_loopback(match[1])}{proxy.http}", line)
            found.append(line)
            continue
        index = int(server[1]) - 11
        if index >= len(behind):
            continue
        port = behind[index].grpc if server[2] == "4317" else behind[index].http
        line = line.replace(f"10.0.0.{server[1]}:{server[2]}", f"127.0.0.1:{port}")
        # On one machine each processor has an admin port of its own, and a server's word wins over the default's.
        found.append(f"{line} port {behind[index].admin}" if name == "haproxy" and server[2] == "4318" else line)
    return "\n".join(found) + "\n"


def nginx(path: str, file: Path, folder: Path) -> list[str]:
    """Return the command that runs nginx with a file in the foreground, and lets it write into a folder alone."""
    own = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;"
    return [path, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log", "-g", own]


@contextlib.asynccontextmanager
async def proxy(name: str, behind: Sequence[Behind], folder: Path) -> AsyncIterator[Proxy]:
    """Run a proxy in front of processors until the block ends."""
    path = program_of(name)
    assert path is not None, f"{name} is not installed"
    grpc, http = free_ports(2)
    running = Proxy(grpc, http)
    file = folder / FILES[name].name
    file.write_text(configuration(name, behind, running, folder), encoding="utf-8")
    # Neither becomes a daemon.
    command = [path, "-db", "-f", str(file)] if name == "haproxy" else nginx(path, file, folder)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        await asyncio.wait_for(_listens(process, grpc, http), LIMIT)
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), LIMIT)


def _loopback(word: str) -> str:
    return word.replace("bind :", "bind 127.0.0.1:").replace("listen ", "listen 127.0.0.1:")


async def _listens(process: asyncio.subprocess.Process, *ports: int) -> None:
    for port in ports:
        while True:
            assert process.returncode is None, "the proxy did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            break
