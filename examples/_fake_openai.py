"""A stand-in for OpenAI's chat completions, so that the example runs without a key and without a network."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_WORDS = ["It", " depends", "."]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            parts = [_chunk({"role": "assistant", "content": word}) for word in _WORDS] + [_chunk({}, reason="stop")]
            events = [json.dumps(part) for part in parts] + ["[DONE]"]
            self._answer("text/event-stream", "".join(f"data: {event}\n\n" for event in events))
        else:
            message = {"role": "assistant", "content": "".join(_WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
            whole = _base("chat.completion") | {"choices": [choice], "usage": usage}
            self._answer("application/json", json.dumps(whole))

    def _answer(self, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No access log."""


def _base(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "gpt-example"}


def _chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return _base("chat.completion.chunk") | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@contextmanager
def fake_openai() -> Iterator[str]:
    """Serve on a free loopback port until the block ends; gives the base URL for OpenAI's client."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
