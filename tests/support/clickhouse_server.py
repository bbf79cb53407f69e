"""ClickHouse over HTTP, for tests: the real engine (chdb) behind as much of the HTTP interface as clients use.

The engine lives in a process of its own, because there can be one in each process, and because a test may want to kill
it. It is the engine that a server runs, of the version that chdb brings; what it has not got is a server's users,
replication and limits. `Faults` makes it fail the way a server fails.

    with clickhouse_server() as server:
        server.client().query("SELECT 1")
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import chdb
import clickhouse_connect
import lz4.frame
from clickhouse_connect.driver.client import Client

if TYPE_CHECKING:
    from support.certificates import Pair

WAIT_SECONDS = 60.0
REAL = os.environ.get("CLICKHOUSE", "")
"""The address of a real server, where there is one: `make interop-clickhouse`."""

# What clients put into the URL beside settings: https://clickhouse.com/docs/interfaces/http
_NO_SETTINGS = frozenset(
    {
        *("query", "database", "user", "password", "role", "quota_key", "default_format"),
        *("session_id", "session_timeout", "session_check", "query_id", "client_protocol_version"),
        *("compress", "decompress", "enable_http_compression", "wait_end_of_query", "buffer_size"),
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms"),
    }
)
_INSERT = re.compile(rb"\s*(INSERT\s+INTO\s+.+?)\s+FORMAT\s+(\w+)[ \t]*\r?\n?", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)")


def _connect(path: str) -> Any:
    return chdb.connect(path)  # type: ignore[no-untyped-call]  # ships no types for this


@dataclass
class _Fault:
    """Statements that contain a text fail so many times, before or after they were executed."""

    text: str
    code: int
    times: int
    after: bool


class _Engine:
    """One engine, at a path. Every request gets a connection of its own, so that its settings are its own."""

    def __init__(self, path: str, password: str) -> None:
        self._path = path
        self._anchor = _connect(path)
        self.password = password
        self.faults: list[_Fault] = []
        self.lock = threading.Lock()

    def run(self, said: dict[str, str], body: bytes) -> tuple[bytes, str]:
        connection = _connect(self._path)
        try:
            if database := said.get("database"):
                connection.query(f"USE `{database}`")
            parameters = {}
            for name, value in said.items():
                if name.startswith("param_"):
                    parameters[name.removeprefix("param_")] = value
                elif name not in _NO_SETTINGS:
                    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
                    connection.query(f"SET {name} = '{escaped}'")
            statement = said.get("query", "").encode()
            whole = statement + b"\n" + body if statement else body
            if found := _INSERT.match(whole):
                return self._insert(connection, found, whole[found.end() :]), ""
            text = whole.decode()
            wanted = _FORMAT.search(text)
            kind = wanted[1] if wanted else said.get("default_format", "TabSeparated")
            answer = connection.query(text, kind, params=parameters)
            return answer.bytes() or b"", kind
        finally:
            connection.close()

    @staticmethod
    def _insert(connection: Any, found: re.Match[bytes], data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".data") as file:
            file.write(data)
            file.flush()
            into, kind = found[1].decode(), found[2].decode()
            connection.query(f"{into} FROM INFILE '{file.name}' FORMAT {kind}")
        return b""

    def fault(self, statement: str, *, after: bool) -> int | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.after is after and fault.text in statement:
                    fault.times -= 1
                    return fault.code
        return None


def _handler(engine: _Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the end of an answer waits for the acknowledgement of its beginning.
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: tests read what programs say."""

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(_decompress(self._body(), self.headers.get("content-encoding", "")))

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, body: bytes) -> None:
            url = urlsplit(self.path)
            if url.path == "/ping":
                return self._send(200, b"Ok.\n")
            if url.path == "/faults":
                with engine.lock:
                    if body:
                        engine.faults = [_Fault(**fault) for fault in json.loads(body)]
                    return self._send(200, json.dumps(sum(fault.times for fault in engine.faults)).encode())
            said = dict(parse_qsl(url.query, keep_blank_values=True))
            kind = self.headers.get("content-type", "")
            if kind.startswith("multipart/form-data"):
                said, body = {**said, **_form(kind, body)}, b""
            if not self._is_known(said):
                return self._fail(516, "default: Authentication failed: password is incorrect")
            statement = said.get("query", "") + body[:2000].decode("utf-8", "replace")
            if code := engine.fault(statement, after=False):
                return self._fail(code, "made to fail")
            try:
                answer, kind = engine.run(said, body)
            except Exception as error:
                found = _CODE.search(str(error))
                return self._fail(int(found[1]) if found else 1002, str(error))
            if code := engine.fault(statement, after=True):
                return self._fail(code, "made to fail")
            return self._send(200, answer, {"X-ClickHouse-Format": kind} if kind else {})

        def _is_known(self, said: dict[str, str]) -> bool:
            kind, _, token = self.headers.get("authorization", "").partition(" ")
            given = said.get("password", "")
            if kind == "Basic":
                given = base64.b64decode(token).decode().partition(":")[2]
            return given == engine.password

        def _fail(self, code: int, message: str) -> None:
            text = message if message.startswith("Code:") else f"Code: {code}. DB::Exception: {message}"
            self._send(403 if code == 516 else 500, text.encode(), {"X-ClickHouse-Exception-Code": str(code)})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _form(kind: str, body: bytes) -> dict[str, str]:
    """Return the fields of a form: clients send parameters so that are too long for a URL."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    return {
        str(part.get_param("name", header="content-disposition")): bytes(part.get_payload(decode=True)).decode()
        for part in message.iter_parts()
    }


def _decompress(body: bytes, encoding: str) -> bytes:
    if encoding == "lz4":
        parts = []
        # Clients compress each block for itself.
        while body:
            frame = lz4.frame.LZ4FrameDecompressor()
            parts.append(frame.decompress(body))
            body = frame.unused_data or b""
        return b"".join(parts)
    assert encoding in ("", "identity"), encoding
    return body


@dataclass
class ClickHouseServer:
    """A running server.

    Attributes:
        port: Where it listens.
        path: The directory that holds what it stores.
        password: What clients must send; empty for none.
        host: This machine, or where a real server is.
        user: Who asks.
    """

    port: int
    path: Path
    password: str
    host: str = "127.0.0.1"
    user: str = "default"
    # None where it is somebody else's.
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Its process, where it is one of ours."""
        return None if self._process is None else self._process.pid

    def url(self, database: str = "default") -> str:
        """What `--store` is told."""
        return f"clickhouse://{self.user}@{self.host}:{self.port}/{database}"

    def client(self, database: str = "default") -> Client:
        """Return a client of this server."""
        return clickhouse_connect.get_client(
            host=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            database=database,
            autogenerate_session_id=False,
            compress="lz4",
            form_encode_query_params=True,
        )

    def fail(self, text: str, code: int, *, times: int = 1, after: bool = False) -> None:
        """Make statements that contain a text fail; with `after` they are executed all the same (a lost answer)."""
        self._ours()
        fault = {"text": text, "code": code, "times": times, "after": after}
        self._faults([fault])

    def recover(self) -> None:
        """Let everything succeed again."""
        if self._process is not None:
            self._faults([])

    @property
    def faults_left(self) -> int:
        """How many statements are still to fail."""
        return self._faults(None)

    def _faults(self, faults: list[dict[str, object]] | None) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/faults",
            data=b"" if faults is None else json.dumps(faults).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:  # noqa: S310  # our own server
            return int(answer.read())

    def kill(self) -> None:
        """End it as a loss of power does."""
        process = self._ours()
        process.kill()
        process.wait(WAIT_SECONDS)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _ours(self) -> subprocess.Popen[str]:
        if self._process is None:
            import pytest

            pytest.skip("a real server is neither killed nor made to fail")
        return self._process

    def restart(self) -> None:
        """Start it again, at the same port, with what it stored."""
        self._process, self.port = _start(self.path, self.port, self.password)


@contextlib.contextmanager
def clickhouse_server(*, password: str = "", tls: Pair | None = None) -> Iterator[ClickHouseServer]:
    """Run a server with nothing in it; what it stored is removed when it ends.

    `CLICKHOUSE=http://user:password@host:8123` takes a real one instead, unless a password or TLS is asked for.
    """
    if REAL and not password and tls is None:
        yield _real(REAL)
        return
    path = Path(tempfile.mkdtemp(prefix="clickhouse-"))
    process, port = _start(path, 0, password, tls)
    server = ClickHouseServer(port, path, password, _process=process)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(path, ignore_errors=True)


def _real(url: str) -> ClickHouseServer:
    parts = urlsplit(url)
    return ClickHouseServer(
        parts.port or 8123,
        Path("/"),
        unquote(parts.password or ""),
        host=parts.hostname or "127.0.0.1",
        user=unquote(parts.username or "default"),
    )


def _start(path: Path, port: int, password: str, tls: Pair | None = None) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [
            *(sys.executable, __file__, "--path", str(path), "--port", str(port), "--password", password),
            *(() if tls is None else ("--certificate", str(tls.certificate), "--key", str(tls.key))),
        ],
        # It ends when whoever started it does, however that ends.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("listening "):
        process.kill()
        raise RuntimeError(f"the ClickHouse server did not start: {line!r}")
    return process, int(line.split()[1])


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve until killed, or until nobody holds the other end of the standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--password", default="")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    given = parser.parse_args()
    engine = _Engine(given.path, given.password)
    with ThreadingHTTPServer(("127.0.0.1", given.port), _handler(engine)) as server:
        server.daemon_threads = True
        if given.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(given.certificate, given.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        print("listening", server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
