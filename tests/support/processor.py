"""Runs the processor: inside the test's event loop, or as the program that people start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neatlogs_processor.service import Service
from neatlogs_processor.settings import load

LIMIT = 60
"""Seconds after which a wait is a failure."""

ANY_PORTS = {
    "NEATLOGS_PROCESSOR_GRPC_LISTEN": "127.0.0.1:0",
    "NEATLOGS_PROCESSOR_HTTP_LISTEN": "127.0.0.1:0",
    "NEATLOGS_PROCESSOR_ADMIN_LISTEN": "127.0.0.1:0",
    "NEATLOGS_PROCESSOR_STORE": "none",
}
"""Free ports for the listeners that a test does not speak of, and no store in the home of whoever runs the tests."""

_READY = re.compile(r"is ready: OTLP/gRPC on ([^\s,]+)")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nothing announces; fail after `LIMIT` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LIMIT
    while not condition():
        assert loop.time() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


def peak_resident(pid: int) -> int:
    """The most memory that a process has held so far, in bytes. Where there is no /proc, an error."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")


@dataclass
class Running:
    """A processor inside the test's event loop."""

    service: Service
    target: str
    http: str = ""
    admin: str = ""


@contextlib.asynccontextmanager
async def running(**flags: Any) -> AsyncIterator[Running]:
    """Run a processor on a free port with these settings, written as in a file."""
    listeners = ("grpc_listen", "http_listen", "admin_listen")
    loaded = load({**dict.fromkeys(listeners, "127.0.0.1:0"), "store": "none", **flags}, {})
    service = Service(loaded.settings)
    try:
        listening = await service.start()
        http, admin = (one.target if one else "" for one in (listening.http, listening.admin))
        yield Running(service, listening.grpc.target, http, admin)
    finally:
        await service.stop()


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    code: int
    stdout: str
    stderr: str


class Program:
    """A `neatlogs-processor` that runs in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stderr: list[str] = []
        self.stdout: list[str] = []
        self._changed = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.stdout)),
            asyncio.create_task(self._read(process.stderr, self.stderr)),
        ]

    async def ready(self) -> str:
        """Wait until it listens, and return its address."""
        line = await self.line(_READY.pattern)
        match = _READY.search(line)
        # Where there is none, what is said instead quotes the pattern.
        assert line in self.stderr, line
        assert match is not None
        return match[1]

    async def line(self, pattern: str, *, stdout: bool = False) -> str:
        """Wait for a line that matches and return it."""
        lines = self.stdout if stdout else self.stderr

        def found() -> bool:
            ended = all(reader.done() for reader in self._readers)
            return ended or any(re.search(pattern, line) for line in lines)

        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(found), LIMIT)
        return next((line for line in lines if re.search(pattern, line)), f"no line matches {pattern}: {lines}")

    def kill(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Close our end of its standard output."""
        transport = self.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]  # no public way
        transport.close()

    async def end(self) -> Finished:
        """Wait until it ends."""
        code = await asyncio.wait_for(self.process.wait(), LIMIT)
        await asyncio.gather(*self._readers)
        return Finished(code, "\n".join(self.stdout), "\n".join(self.stderr))

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        try:
            while line := await stream.readline():
                async with self._changed:
                    lines.append(line.decode().rstrip("\n"))
                    self._changed.notify_all()
        finally:
            # Whoever waits for a line must hear that there will be none; this task is done one step later.
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._ended()))

    async def _ended(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def program(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Any = None) -> AsyncIterator[Program]:
    """Start `python -m neatlogs_processor` with these arguments; it is killed on exit if it still runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NEATLOGS_", "OTEL_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "neatlogs_processor",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean, **ANY_PORTS, **(environ or {})},
        cwd=cwd,
    )
    running_program = Program(process)
    try:
        yield running_program
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await running_program.end()


async def run(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Any = None) -> Finished:
    """Run the program to its end."""
    async with program(*arguments, environ=environ, cwd=cwd) as started:
        return await started.end()
