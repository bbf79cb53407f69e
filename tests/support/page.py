"""A processor with its store and page, traces made for the page's tests, and the browser that looks at them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.processor_process import WAIT_SECONDS, ProcessorProcess, processor_process

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_PAGE = re.compile(r"the traces page: (http://\S+)/traces")
_SECOND = 1_000_000_000

ODD_USER = 'o|d:d,"\\ %&#+é 🙂 דנה'
"""An end user whose id holds everything that has a meaning somewhere on the way."""
SCRIPT = "<script>document.title='stolen'</script><img src=x onerror=\"document.title='stolen'\">"
"""A name that would run where it is not escaped."""


@dataclass
class PageUnderTest:
    """A running processor with a page.

    Attributes:
        url: Where the page is, without a slash at its end.
        processor: The processor.
    """

    url: str
    processor: ProcessorProcess

    def send(self, *traces: MadeTrace) -> None:
        """Send traces; they are stored when this returns."""
        request = ExportTraceServiceRequest()
        for trace in traces:
            request.MergeFrom(trace.request)
        self.processor.export(request.SerializeToString())


@contextmanager
def page_under_test(*flags: str) -> Iterator[PageUnderTest]:
    """Run a processor with a store of its own and the page on a free port.

    The store is a file; with `PAGE_ENGINE=clickhouse` in the environment it is a database of a ClickHouse server.
    """
    with _store() as store, processor_process("--admin-listen", "127.0.0.1:0", *store, *flags) as processor:
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := _PAGE.search(processor.log)) is None:
            assert time.monotonic() < deadline, processor.log
            time.sleep(0.01)
        yield PageUnderTest(found[1], processor)


@contextmanager
def _store() -> Iterator[tuple[str, ...]]:
    if os.environ.get("PAGE_ENGINE") == "clickhouse":
        # Only where it is asked for: the engine takes a while to load.
        from support.clickhouse_server import clickhouse_server

        with clickhouse_server() as server:
            command = [sys.executable, "-m", "neatlogs_processor", "store", "migrate", "--store", server.url()]
            subprocess.run(command, check=True, capture_output=True, timeout=WAIT_SECONDS)
            yield ("--store", server.url(), "--store-batch-time", "100ms")
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield ("--store", str(Path(folder, "traces.db")))


class MadeTrace:
    """One trace, made span by span.

    Args:
        number: Makes its ids.
        ago: Seconds before now at which it starts.
        service: Its `service.name`.
        workflow: Its workflow; none where empty.
    """

    def __init__(self, number: int, ago: float, *, service: str = "chat-api", workflow: str = "") -> None:
        self.trace_id = number.to_bytes(16, "big")
        self._start = time.time_ns() - round(ago * _SECOND)
        self._spans = 0
        self.request = ExportTraceServiceRequest()
        resource = self.request.resource_spans.add()
        _write(resource.resource.attributes, {"service.name": service})
        if workflow:
            _write(resource.resource.attributes, {"neatlogs.workflow_name": workflow})
        self._scope = resource.scope_spans.add()

    @property
    def hex(self) -> str:
        """Its id as addresses have it."""
        return self.trace_id.hex()

    def root(
        self,
        name: str,
        end_user: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        session: str | None = None,
        **attributes: Any,
    ) -> MadeTrace:
        """Add a root span."""
        identity: dict[str, Any] = {}
        if end_user is not None:
            identity |= {"neatlogs.end_user.id": end_user, "neatlogs.end_user.source": "trace"}
        if metadata is not None:
            identity["neatlogs.end_user.metadata"] = json.dumps(metadata)
        if session is not None:
            identity["neatlogs.session.id"] = session
        return self._add(name, b"", identity | attributes)

    def child(self, name: str, attributes: Mapping[str, Any] | None = None, error: str = "") -> MadeTrace:
        """Add a child of the span that was added first, or of one that never comes."""
        parent = self._scope.spans[0].span_id if self._scope.spans else b"\x99" * 8
        return self._add(name, parent, dict(attributes or {}), error)

    def failed(self, message: str) -> MadeTrace:
        """Let the span that was added last end in an error."""
        self._scope.spans[-1].status.code = Status.STATUS_CODE_ERROR
        self._scope.spans[-1].status.message = message
        return self

    def _add(self, name: str, parent: bytes, attributes: Mapping[str, Any], error: str = "") -> MadeTrace:
        self._spans += 1
        start = self._start + self._spans * 10_000_000
        span = Span(
            trace_id=self.trace_id,
            span_id=self.trace_id[-4:] + self._spans.to_bytes(4, "big"),
            parent_span_id=parent,
            name=name,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 200_000_000,
        )
        _write(span.attributes, attributes)
        self._scope.spans.append(span)
        return self.failed(error) if error else self


def _write(target: Any, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        one = target.add(key=key)
        if isinstance(value, int):
            one.value.int_value = value
        else:
            one.value.string_value = value


MODEL = {
    "openinference.span.kind": "LLM",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "Where is my order?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "It left this morning.",
    "gen_ai.usage.input_tokens": 900,
    "gen_ai.usage.output_tokens": 334,
}
"""Attributes of a model's span."""

PRO, FREE = {"plan": "pro", "company": {"size": 40}}, {"plan": "free"}


def usual_traces() -> list[MadeTrace]:
    """Return the traces that most tests of the page look at, the oldest first."""
    return [
        MadeTrace(1, 900, workflow="chat").root("POST /chat", "alice", PRO, "s-1").child("gpt", MODEL),
        MadeTrace(2, 840, workflow="chat").root("POST /chat", "alice", PRO, "s-1").child("gpt", MODEL),
        MadeTrace(3, 780, workflow="search").root("GET /search", "Ali", FREE),
        MadeTrace(4, 720, workflow="search").root("GET /search", "bob", {"plan": "pro", "seats": 3}),
        MadeTrace(5, 660, workflow="search").root("GET /search", ODD_USER, {"plan": 'p|"%&#'}, 'k|"%&#+'),
        MadeTrace(6, 600, service=SCRIPT).root(SCRIPT).child(SCRIPT, {SCRIPT: SCRIPT, "input.value": SCRIPT}),
        MadeTrace(7, 540, workflow="agent").root("agent", "bob").child("tool", {"neatlogs.end_user.id": "service"}),
        MadeTrace(8, 480, workflow="agent").child("step of nobody"),
        MadeTrace(9, 420, workflow="agent").root("first", "alice").root("second", "mallory"),
        MadeTrace(10, 360, workflow="chat")
        .root("POST /chat", "carol", FREE, "kiosk")
        .failed("no answer")
        .child("gpt", MODEL, error="429: too many requests"),
        MadeTrace(11, 300, workflow="chat").root("POST /chat", "bob", None, "kiosk").child("gpt", MODEL),
    ]


CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


NO_BROWSER = "no chromium: apt-get install -y chromium, or say where one is with CHROMIUM=/path"
"""Why a test that needs a browser is skipped, and what to do."""


def chromium() -> str | None:
    """Return the path of the system's chromium, or `None`."""
    named = os.environ.get("CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running_browser(path: str) -> Iterator[Browser]:
    """Run a browser with a fresh profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        try:
            yield browser
        finally:
            browser.close()
