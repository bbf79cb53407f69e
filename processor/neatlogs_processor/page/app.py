"""The page as an application: its addresses, who may ask for them, and the headers of its answers.

The Content-Security-Policy lets scripts and styles come from here alone, none of them inline, and lets no request leave
for anywhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.page.access import COOKIE, SESSION_SECONDS, Attempts, PageToken, host_allowed
from neatlogs_processor.page.details import Details
from neatlogs_processor.page.lists import Lists
from neatlogs_processor.page.rendering import STATIC, Links, Renderer
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.view import View

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
AT_ONCE: Final = 4
"""How many questions are worked on at once: they share the process, and its interpreter, with the receivers."""
MAX_WAITING: Final = 100
"""How many more may wait for their turn."""
_MAX_FORM_BYTES: Final = 4096
_FORM_SECONDS: Final = 10.0
_LISTS: Final = ("traces", "sessions", "session", "users", "user", "coverage")
_OURS: Final = frozenset(("", *_LISTS, "live", "filter", "complete", "login", "logout", "static", "api"))
"""How paths of the page begin."""
_FRAGMENTS: Final = ("/live", "/complete")
_BEARER: Final = {"www-authenticate": "Bearer"}


@dataclass(frozen=True)
class PageOptions:
    """How the page is served.

    Attributes:
        root_path: The path that a reverse proxy serves it under, without a slash at its end; empty for none. It is
            understood whether the proxy removes it from requests or not.
        allowed_hosts: Names that it may be asked for under, see `access.host_allowed`.
        token: Asks for a token; `None` lets everybody in.
        where: Returns where the processor receives: pairs of a name and an address, shown while the store is empty.
    """

    root_path: str = ""
    allowed_hosts: Sequence[str] = ()
    token: PageToken | None = None
    where: Callable[[], Sequence[tuple[str, str]]] = tuple


def page(
    reader: TraceReader,
    options: PageOptions,
    *,
    api: Sequence[BaseRoute] = (),
    clock: Callable[[], int] = time.time_ns,
    attempts: Attempts | None = None,
    patience: float = _FORM_SECONDS,
) -> ASGIApp:
    """Return the page over a store.

    Args:
        reader: The store.
        options: How it is served.
        api: Further routes, below the same guard.
        clock: Returns nanoseconds since the epoch.
        attempts: Bounds wrong tokens.
        patience: Seconds in which a form has to arrive.
    """
    links = Links(options.root_path)
    renderer = Renderer(links, clock=clock, signed_in=options.token is not None)
    lists, details = Lists(reader, renderer, options.where), Details(reader, renderer)
    attempts = attempts or Attempts()
    entrance = _Entrance(renderer, options.token, attempts, patience)
    failures = _Failures(renderer)
    app = Starlette(
        routes=[
            Route("/", _Home(links)),
            Route("/traces", lists.traces),
            Route("/traces/{trace_id}", details.trace),
            Route("/traces/{trace_id}/spans/{span_id}", details.span),
            Route("/sessions", lists.sessions),
            Route("/session", details.session),
            Route("/users", lists.users),
            Route("/user", details.user),
            Route("/coverage", lists.coverage),
            Route("/live", lists.live),
            Route("/filter", lists.edit),
            Route("/complete", lists.complete),
            Route("/login", entrance.show, methods=["GET"]),
            Route("/login", entrance.enter, methods=["POST"]),
            Route("/logout", entrance.leave, methods=["POST"]),
            *api,
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={
            HTTPException: failures.http,
            QueryError: failures.question,
            ProcessorError: failures.store,
        },
    )
    return _Guard(app, options, attempts)


class _Home:
    """Leads from the root to the list of traces, whatever the view."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode("latin-1")
        target = self._links.to("/traces") + (f"?{query}" if query else "")
        await RedirectResponse(target, status_code=307)(scope, receive, send)


class _Failures:
    """Says what went wrong: a page for people, one line for pieces of a page."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def http(self, request: Request, error: Exception) -> Response:
        """Answer for an address that leads nowhere."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        phrase = HTTPStatus(status).phrase
        detail = "There is no such page." if detail == phrase and status == 404 else detail
        return self._answer(request, status, phrase, detail)

    def question(self, request: Request, error: Exception) -> Response:
        """Answer for an address that says nothing sensible."""
        return self._answer(request, 400, "This address cannot be read", str(error))

    def store(self, request: Request, error: Exception) -> Response:
        """Answer where the store cannot be read."""
        return self._answer(request, 503, "The store does not answer", str(error))

    def _answer(self, request: Request, status: int, title: str, detail: str) -> Response:
        if request.headers.get("hx-request") or request.url.path.startswith("/api/") or request.method == "HEAD":
            return _plain(request.url.path, status, f"{title}: {detail}")
        return self._renderer.page("error.html", status=status, view=View(), title=title, detail=detail)


class _Entrance:
    """Asks for the token, and lets those in who know it."""

    def __init__(self, renderer: Renderer, token: PageToken | None, attempts: Attempts, patience: float) -> None:
        self._patience = patience
        self._renderer = renderer
        self._token = token
        self._attempts = attempts

    def show(self, request: Request) -> Response:
        """Answer with the form."""
        if self._token is None:
            return RedirectResponse(self._renderer.links.to("/traces"), status_code=303)
        return self._form(_safe_next(request.query_params.get("next", "")))

    async def enter(self, request: Request) -> Response:
        """Take the form: set the cookie, or say that the token is wrong."""
        if self._token is None:
            raise HTTPException(404)
        client = request.client.host if request.client else ""
        try:
            fields = await asyncio.wait_for(_form(request), self._patience)
        except asyncio.TimeoutError:
            raise HTTPException(408, "The form did not arrive in time.", {"connection": "close"}) from None
        target = _safe_next(fields.get("next", ""))
        wait = self._attempts.wait(client)
        if wait:
            answer = self._form(target, f"Too many wrong tokens. Try again in {int(wait) + 1} s.", 429)
            answer.headers["retry-after"] = str(int(wait) + 1)
            return answer
        if not self._token.matches(fields.get("token", "").strip()):
            self._attempts.failed(client)
            return self._form(target, "This is not the token. It stands in the processor's --page-token-file.", 401)
        self._attempts.succeeded(client)
        # The first of several proxies is the one that the browser speaks to.
        spoken = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
        response = RedirectResponse(self._renderer.links.root + target, status_code=303)
        response.set_cookie(
            COOKIE,
            self._token.cookie(),
            max_age=SESSION_SECONDS,
            path=self._renderer.links.root or "/",
            secure="https" in (request.url.scheme, spoken),
            httponly=True,
            # Not "strict": a link that a colleague sends would ask for the token again.
            samesite="lax",
        )
        return response

    async def leave(self, _: Request) -> Response:
        """Take the cookie back."""
        response = RedirectResponse(self._renderer.links.to("/login"), status_code=303)
        response.delete_cookie(COOKIE, path=self._renderer.links.root or "/", httponly=True, samesite="lax")
        return response

    def _form(self, target: str, problem: str = "", status: int = 200) -> Response:
        return self._renderer.page(
            "login.html", status=status, view=View(), signing_in=True, target=target, problem=problem
        )


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a small form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise HTTPException(413, "This form is too large.")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _from_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that another site sent this form."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _asked_by_another_site(headers: Headers) -> bool:
    """Tell whether a browser says that a page of another site asks, for anything but a link that somebody followed.

    It cannot read the answer, but it can keep the store busy, and time what it takes to learn who is in it.
    """
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return False
    return headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest", "document") != "document"


def _below(root: str, path: str) -> str:
    """Return a path as the page knows it, whether a proxy has removed the root path or not.

    A root path may be called as a page is, such as `/traces`: it is only taken away where a page remains.
    """
    if root and path == root:
        return path if _leads(root) else "/"
    rest = path.removeprefix(root)
    return rest if rest != path and rest.startswith("/") and _leads(rest) else path


def _leads(path: str) -> bool:
    return path.split("/", 2)[1] in _OURS


def _safe_next(target: str) -> str:
    """Return a target only if it is a path of this page: nobody is sent elsewhere after signing in."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and "\\" not in target else "/traces"


def _plain(path: str, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer for programs and pieces of a page: in the API's own form below `/api/`, else one line."""
    if path.startswith("/api/"):
        return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)
    return PlainTextResponse(f"{message}\n", status_code=status, headers=headers)


class _Guard:
    """Stands before everything: the path of the proxy, the host, the method, the token, the headers."""

    def __init__(self, app: ASGIApp, options: PageOptions, attempts: Attempts) -> None:
        self._app = app
        self._options = options
        self._attempts = attempts
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = _below(self._options.root_path, scope["path"])
        # Addresses are made from the options; to the application the page is all there is.
        scope = {**scope, "path": path, "raw_path": quote(path).encode(), "root_path": ""}
        static = path.startswith("/static/")
        guarded = self._send(send, static=static)
        answer = self._refusal(scope, path)
        if answer is None and not static and path not in ("/login", "/logout"):
            await self._in_turn(scope, receive, guarded)
        else:
            await (answer or self._app)(scope, receive, guarded)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when it is this request's turn, which lasts until the answer begins: the rest is the client's time."""
        waits = self._turns.locked()
        if waits and self._waiting >= MAX_WAITING:
            await _plain(scope["path"], 503, "Too many people ask at once.", {"retry-after": "1"})(scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        holds = True

        def give_back() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._turns.release()

        async def sending(message: Message) -> None:
            give_back()
            await send(message)

        try:
            # Who has reloaded the page meanwhile waits for another answer. The first look finds the request itself.
            request = Request(scope, receive)
            if waits and (await request.is_disconnected() or await request.is_disconnected()):
                return
            await self._app(scope, receive, sending)
        finally:
            give_back()

    def _refusal(self, scope: Scope, path: str) -> Response | None:
        headers = Headers(scope=scope)
        if not host_allowed(headers.get("host", ""), self._options.allowed_hosts):
            return _plain(
                path,
                421,
                "The page is not served under this host name. If it should be, start the processor with"
                " --allowed-hosts and the name.",
            )
        if scope["method"] not in ("GET", "HEAD"):
            if path not in ("/login", "/logout"):
                return _plain(path, 405, "The page only answers GET.", {"allow": "GET, HEAD"})
            if _from_elsewhere(headers):
                return _plain(path, 403, "This form was sent from another site.")
        elif not path.startswith("/static/") and _asked_by_another_site(headers):
            return _plain(path, 403, "This page does not answer the scripts and frames of other sites.")
        token = self._options.token
        if token is None or path.startswith("/static/") or path == "/login":
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(path, token, bearer.strip(), (scope.get("client") or ("",))[0])
        if token.accepts(Request(scope).cookies.get(COOKIE, "")):
            return None
        if path.startswith("/api/"):
            return _plain(path, 401, "the page's token is needed: Authorization: Bearer TOKEN", _BEARER)
        if headers.get("hx-request") or path in _FRAGMENTS:
            return _plain(path, 401, "Sign in again.")
        query = scope["query_string"].decode("latin-1")
        target = urlencode({"next": path + (f"?{query}" if query else "")})
        return RedirectResponse(f"{self._options.root_path}/login?{target}", status_code=303)

    def _bearer(self, path: str, token: PageToken, offered: str, client: str) -> Response | None:
        wait = self._attempts.wait(client)
        if wait:
            return _plain(path, 429, "too many wrong tokens", {"retry-after": str(int(wait) + 1)})
        if token.matches(offered):
            self._attempts.succeeded(client)
            return None
        self._attempts.failed(client)
        return _plain(path, 401, "this is not the page's token", _BEARER)

    def _send(self, send: Send, *, static: bool) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # Files of the page change their address when they change; that one is missing may not last.
                kept = static and message["status"] in (200, 206, 304)
                headers["cache-control"] = "public, max-age=31536000, immutable" if kept else "no-store"
            await send(message)

        return guarded
