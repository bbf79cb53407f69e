"""The real processor as a process of its own, started the way a user starts it."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import grpc

WAIT_SECONDS = 60.0
"""Long enough for a busy machine: a processor that has not answered by then never will."""

_READY = re.compile(r"OTLP/gRPC on (127\.0\.0\.1:\d+)")
_READY_HTTP = re.compile(r"OTLP/HTTP on (127\.0\.0\.1:\d+)")
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class ProcessorProcess:
    """A running processor; made by `processor_process`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log: list[str] = []
        self._out: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(process.stderr, self._log, True), daemon=True),
            threading.Thread(target=self._read, args=(process.stdout, self._out, False), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.address, self._http_address = self._wait_until_ready()

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:PORT`, where it receives OTLP/gRPC."""
        return f"http://{self.address}"

    @property
    def http_endpoint(self) -> str:
        """`http://127.0.0.1:PORT`, where it receives OTLP/HTTP."""
        return f"http://{self._http_address}"

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return "".join(self._log)

    @property
    def out(self) -> str:
        """What it has written to stdout so far (with `--console`: a line per trace)."""
        return "".join(self._out)

    def export(self, body: bytes, *, compression: grpc.Compression = grpc.Compression.NoCompression) -> bytes:
        """Send the bytes of one OTLP trace request and return the bytes of the answer."""
        with grpc.insecure_channel(self.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                _EXPORT, request_serializer=None, response_deserializer=None
            )
            return call(body, timeout=WAIT_SECONDS, compression=compression, wait_for_ready=True)

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code. What it wrote is complete afterwards."""
        self._process.terminate()
        try:
            code = self._process.wait(WAIT_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join(WAIT_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return code

    def _read(self, stream: IO[str], kept: list[str], watched: bool) -> None:
        for line in stream:
            kept.append(line)
            if watched:
                self._lines.put(line)
        if watched:
            self._lines.put(None)

    def _wait_until_ready(self) -> tuple[str, str]:
        while (line := self._lines.get(timeout=WAIT_SECONDS)) is not None:
            if ready := _READY.search(line):
                http = _READY_HTTP.search(line)
                return ready.group(1), http.group(1) if http else ""
        raise AssertionError(f"the processor did not start:\n{self.log}")


@contextmanager
def processor_process(*flags: str, program: Sequence[str] = ()) -> Iterator[ProcessorProcess]:
    """Run the processor on a free loopback port until the block ends, and demand that it ends well.

    Args:
        flags: Its flags; free ports for the listeners are added.
        program: How it is started; `python -m neatlogs_processor` of this Python unless given.
    """
    program = program or (sys.executable, "-m", "neatlogs_processor")
    # Settings of whoever runs the tests must not reach the processor of a test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEATLOGS_")}
    process = subprocess.Popen(
        [*program, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--admin-listen", "none", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONUNBUFFERED": "1", "NEATLOGS_PROCESSOR_STORE": "none"},
    )
    try:
        running = ProcessorProcess(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    try:
        yield running
    finally:
        code = running.stop()
    assert code == 0, f"the processor ended with {code}:\n{running.log}"
