"""Web pages that hold the browser client: where they are served, what they send to, and the tab that shows them."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from support.page import PageUnderTest
from support.processor_process import WAIT_SECONDS
from support.typescript_package import PACKAGE, built_package
from support.web_servers import asgi_server

KEY = "nlw_browser_key"
"""The browser key of every test."""

_PAGE = '<!doctype html><html lang="en"><title>A page</title><script type="module" src="/app.js"></script></html>'
_APP = b"""import { Neatlogs } from "/neatlogs.min.js";
window.Neatlogs = Neatlogs;
window.told = [];
window.client = (options) => (window.nl = new Neatlogs({
  onError: (error) => window.told.push([error.reason, error.message, error.spansLost]),
  ...options,
}));
document.title = "ready";
"""


@functools.cache
def bundle() -> bytes:
    """Return the one file that a page loads, built.

    Raises:
        NodeMissingError: There is no Node here, or the packages that the build needs cannot be installed.
    """
    built_package()
    return (PACKAGE / "dist" / "browser" / "neatlogs.min.js").read_bytes()


def bundled(source: str) -> bytes:
    """Bundle a module that a page loads; it may import the packages of `browser/` and, as `neatlogs`, the client."""
    built_package()
    command = ["node_modules/.bin/esbuild", "--bundle", "--format=esm", "--platform=browser", "--log-level=warning"]
    command += [f"--alias:neatlogs={PACKAGE / 'src' / 'browser' / 'index.ts'}"]
    done = subprocess.run(command, input=source.encode(), cwd=PACKAGE, check=True, timeout=120, stdout=subprocess.PIPE)
    return done.stdout


def script(content: bytes) -> Callable[[Request], Response]:
    """Return a handler that serves a script."""
    return lambda _: Response(content, media_type="text/javascript")


@contextmanager
def web_site(routes: Sequence[BaseRoute] = (), *, headers: Callable[[], dict[str, str]] = dict) -> Iterator[str]:
    """Serve a page that has loaded the client; yields its origin.

    Args:
        routes: What the site serves besides.
        headers: Headers of the page, asked for each time it is loaded.
    """
    client = bundle()

    def page(_: Request) -> Response:
        return HTMLResponse(_PAGE, headers=headers())

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/app.js", script(_APP)),
            Route("/neatlogs.min.js", script(client)),
            Route("/elsewhere", lambda _: HTMLResponse("<!doctype html><title>elsewhere</title>")),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
            *routes,
        ]
    )
    with asgi_server(app) as origin:
        yield origin


def browser_keys(folder: Path, *origins: str) -> Path:
    """Write a file with the browser key `KEY` for these origins."""
    file = folder / "browser-keys"
    file.write_text(f"test {KEY} {','.join(origins)}\n", encoding="utf-8")
    file.chmod(0o600)
    return file


@dataclass
class Received:
    """One request that a `Receiver` got.

    Attributes:
        body: The OTLP request.
        size: Bytes of it.
        headers: Its headers.
    """

    body: dict[str, Any]
    size: int
    headers: dict[str, str]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Its spans."""
        return [
            span for group in self.body["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]
        ]


@dataclass
class Receiver:
    """Takes OTLP/HTTP from pages of every origin, and answers what a test wants.

    Attributes:
        url: Its endpoint.
        received: What came, in order.
        answers: What it answers next, status and headers; 200 when there is no more.
        gate: Requests are answered while it is set; those that come meanwhile wait for it.
    """

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def spans(self) -> list[dict[str, Any]]:
        """All spans that came, one twice as often as it came."""
        return [span for request in self.received for span in request.spans]

    def wait_for(self, wanted: Callable[[Receiver], bool]) -> None:
        """Wait until it is so."""
        eventually(lambda: wanted(self), lambda: f"{len(self.received)} requests, {len(self.spans())} spans")

    def answer(self, text: bytes, headers: dict[str, str]) -> Response:
        """Keep a request and answer it."""
        self.received.append(Received(json.loads(text), len(text), headers))
        self.gate.wait(WAIT_SECONDS)
        status, more = self.answers.pop(0) if self.answers else (200, {})
        return JSONResponse({} if status == 200 else {"message": "as the test wants"}, status, headers=more)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a `Receiver`."""
    from starlette.concurrency import run_in_threadpool

    running = Receiver()
    running.gate.set()

    async def take(request: Request) -> Response:
        return await run_in_threadpool(running.answer, await request.body(), dict(request.headers))

    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
    )
    with asgi_server(Starlette(routes=[Route("/v1/traces", take, methods=["POST"])], middleware=[cors])) as url:
        running.url = url
        try:
            yield running
        finally:
            running.gate.set()


def eventually(true: Callable[[], bool], describe: Callable[[], str] = lambda: "it never was so") -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.02)


def ask(site: PageUnderTest, path: str) -> Any:
    """Ask the page's API."""
    with urlopen(f"{site.url}/api/{path}", timeout=WAIT_SECONDS) as answer:  # noqa: S310  # our own page
        return json.loads(answer.read())


def stored_trace(site: PageUnderTest, trace_id: str) -> dict[str, Any]:
    """Return a trace as the page's API tells it, once it is there with its root."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        try:
            found[:] = [ask(site, f"traces/{trace_id}")]
        except OSError:
            return False
        return bool(found[0]["spans"])

    eventually(there, lambda: f"trace {trace_id} did not arrive")
    return found[0]
