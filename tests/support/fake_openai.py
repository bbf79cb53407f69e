"""A local server that answers as the APIs of OpenAI and Anthropic do, as far as their official clients look.

    with FakeOpenAI() as server:
        client = OpenAI(base_url=server.openai_url, api_key="test", max_retries=0)

Speaks chat completions and responses, each whole or as server-sent events, the model list, and Anthropic's messages.
The model's name steers the answer: `model="fail-429"` answers with that status, `model="endless"` streams until the
client hangs up, `model="broken"` cuts a stream in the middle.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

WORDS = ("The", " answer", " is", " 42.")
"""What every model says."""

Json = dict[str, Any]


class FakeOpenAI:
    """Starts on entry, stops on exit. `requests` keeps (path, body) of every request in order."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Json]] = []
        self.hung_up = threading.Event()
        """Set once a client has closed a stream before its end."""
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`: the base URL for Anthropic's client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """The base URL for OpenAI's client."""
        return f"{self.url}/v1"

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], fake: FakeOpenAI) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up while the server waits for its next request is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typed by an unpublished alias


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fake: FakeOpenAI = self.server.fake  # type: ignore[attr-defined]  # typed as the base server
        path = self.path.partition("?")[0]
        fake.requests.append((path, {}))
        if path == "/v1/models":
            model = {"id": "gpt-test", "object": "model", "created": 1, "owned_by": "tests"}
            self._answer(200, {"object": "list", "data": [model]})
        else:
            self._answer(404, _error(404))

    def do_POST(self) -> None:
        fake: FakeOpenAI = self.server.fake  # type: ignore[attr-defined]  # typed as the base server
        body: Json = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        fake.requests.append((self.path, body))
        model = str(body.get("model", ""))
        if model.startswith("fail-"):
            status = int(model.removeprefix("fail-"))
            self._answer(status, _error(status))
            return
        whole, events = _ANSWERS.get(self.path, (None, None))
        if whole is None or events is None:
            self._answer(404, _error(404))
        elif body.get("stream"):
            self._stream(model, events(model))
        else:
            self._answer(200, whole(model))

    def _answer(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, model: str, events: Iterable[tuple[str | None, Json | None]]) -> None:
        fake: FakeOpenAI = self.server.fake  # type: ignore[attr-defined]  # typed as the base server
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        script = list(events)
        try:
            if model == "broken":
                self._send_event(*script[0])
                # Neither the last event nor the chunk that ends the body: the client sees a broken connection.
                self.close_connection = True
                return
            if model == "endless":
                while not fake._stopping.is_set():
                    self._send_event(*script[min(1, len(script) - 1)])
                return
            for event in script:
                self._send_event(*event)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            fake.hung_up.set()
            self.close_connection = True

    def _send_event(self, name: str | None, data: Json | None) -> None:
        text = (f"event: {name}\n" if name else "") + f"data: {json.dumps(data) if data else '[DONE]'}\n\n"
        block = text.encode()
        self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the test's own output matters."""


def _error(status: int) -> Json:
    return {"type": "error", "error": {"message": "the test asked for this", "type": f"status_{status}", "code": None}}


_CHAT_USAGE: Json = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def _chat(model: str) -> Json:
    message = {"role": "assistant", "content": "".join(WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    base = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    return {**base, "choices": [choice], "usage": _CHAT_USAGE}


def _chat_events(model: str) -> Iterator[tuple[str | None, Json | None]]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    for word in WORDS:
        choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
        yield None, {**base, "choices": [choice]}
    yield None, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield None, None


def _response(model: str, status: str = "completed") -> Json:
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"type": "message", "id": "msg-1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp-1",
        "object": "response",
        "created_at": 1,
        "model": model,
        "status": status,
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 9,
        },
    }


def _response_events(model: str) -> Iterator[tuple[str | None, Json | None]]:
    created = "response.created"
    yield created, {"type": created, "sequence_number": 0, "response": _response(model, "in_progress")}
    place = {"item_id": "msg-1", "output_index": 0, "content_index": 0}
    item = "response.output_item.added"
    message = {"type": "message", "id": "msg-1", "role": "assistant", "status": "in_progress", "content": []}
    yield item, {"type": item, "sequence_number": 1, "output_index": 0, "item": message}
    part = "response.content_part.added"
    empty = {"type": "output_text", "text": "", "annotations": []}
    yield part, {"type": part, "sequence_number": 2, **place, "part": empty}
    delta = "response.output_text.delta"
    for number, word in enumerate(WORDS, start=3):
        yield delta, {"type": delta, "sequence_number": number, "delta": word, "logprobs": [], **place}
    completed = "response.completed"
    yield completed, {"type": completed, "sequence_number": 9, "response": _response(model)}


def _message(model: str, *, whole: bool = True) -> Json:
    return {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "".join(WORDS)}] if whole else [],
        "stop_reason": "end_turn" if whole else None,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 4},
    }


def _message_events(model: str) -> Iterator[tuple[str | None, Json | None]]:
    def event(kind: str, **fields: object) -> tuple[str, Json]:
        return kind, {"type": kind, **fields}

    yield event("message_start", message=_message(model, whole=False))
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in WORDS:
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=end, usage={"output_tokens": 4})
    yield event("message_stop")


_ANSWERS = {
    "/v1/chat/completions": (_chat, _chat_events),
    "/v1/responses": (_response, _response_events),
    "/v1/messages": (_message, _message_events),
}
