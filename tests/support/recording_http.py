"""An HTTP server that keeps what OTLP/HTTP clients send to it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class RecordedRequest:
    """One POST as it arrived; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> bytes:
        """The body after its content encoding is undone."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body


@dataclass
class RecordingServer:
    """Where it listens, and what has arrived so far, in order of arrival."""

    url: str
    requests: list[RecordedRequest] = field(default_factory=list)

    def bodies(self, path: str) -> list[bytes]:
        """The decoded bodies of the requests to one path."""
        return [request.content for request in self.requests if request.path == path]


@contextmanager
def recording_http_server() -> Iterator[RecordingServer]:
    """A server on a free loopback port that answers every POST with an empty OTLP success, until the block ends."""
    recorded: RecordingServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                body = b"".join(iter(self._chunk, b""))
            else:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorded.requests.append(RecordedRequest(self.path, headers, body))
            self.send_response(200)
            # An empty protobuf message is an empty body: "everything accepted".
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def _chunk(self) -> bytes:
            size = int(self.rfile.readline().split(b";")[0], 16)
            data = self.rfile.read(size)
            self.rfile.readline()
            return data

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest's output belongs to the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    recorded = RecordingServer(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, name="recording-http", daemon=True)
    thread.start()
    try:
        yield recorded
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
