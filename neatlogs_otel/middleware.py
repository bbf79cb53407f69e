"""The end user of each request or task, named in one place: for ASGI, WSGI, Django and Celery.

    app.add_middleware(EndUserMiddleware, get_end_user=lambda scope: scope["user"].identity)

Each helper asks `get_end_user` who is being served. Where an instrumentation has opened the request's trace already,
the end user goes to that trace's root, as by `set_end_user()`; else to the traces that are opened while the request is
handled, as by `identify()`. So the order of this middleware and the instrumentation's does not matter; its order behind
whatever authenticates does.

`get_end_user` returns an id; or an id and metadata; or a mapping with some of the keys `end_user_id`,
`end_user_metadata` and `session_id`; or `None` where nobody is known. What it raises, or returns and cannot be used, is
warned about once and never reaches the request: then the trace has no end user, and no other source stands in.

No framework is imported before its helper is used.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from opentelemetry import trace as trace_api

from neatlogs_otel._declaring import current_identity, name_here
from neatlogs_otel._identity import EndUser, Served, Source, encode_session, finished
from neatlogs_otel._leaving import leaving
from neatlogs_otel._open_root import Declaration
from neatlogs_otel._warnings import warn_once
from neatlogs_otel.conventions import RefusedError

__all__ = ["TASK_HEADER", "DjangoEndUserMiddleware", "EndUserMiddleware", "WSGIEndUserMiddleware", "celery_task"]

TASK_HEADER: Final = "neatlogs_end_user"
"""The header of a Celery message in which `celery_task()` carries the end user: a JSON object."""

_KEYS: Final = frozenset({"end_user_id", "end_user_metadata", "session_id"})


class EndUserMiddleware:
    """ASGI middleware (FastAPI, Starlette, Quart, ...): names the end user of each request and each WebSocket.

    Args:
        app: The application around which it stands.
        get_end_user: Called with the connection's scope; may be asynchronous. It must not block the event loop.

    Raises:
        TypeError: `get_end_user` cannot be called.
    """

    def __init__(self, app: Any, get_end_user: Callable[[Any], object]) -> None:
        self._app = app
        self._get_end_user = _checked(get_end_user)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with await _naming_async(self._get_end_user, scope, by="EndUserMiddleware(get_end_user=...)"):
            await self._app(scope, receive, send)


class WSGIEndUserMiddleware:
    """WSGI middleware (Flask, Bottle, ...): names the end user of each request, its streamed body included.

        app.wsgi_app = WSGIEndUserMiddleware(app.wsgi_app, get_end_user=lambda environ: environ.get("REMOTE_USER"))

    Args:
        app: The application around which it stands.
        get_end_user: Called with the request's environ.

    Raises:
        TypeError: `get_end_user` cannot be called.
    """

    def __init__(self, app: Any, get_end_user: Callable[[Any], object]) -> None:
        self._app = app
        self._get_end_user = _checked(get_end_user)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        by = "WSGIEndUserMiddleware(get_end_user=...)"
        block = _naming(lambda: finished(self._get_end_user(environ)), by=by)
        with block:
            body: Iterable[bytes] = self._app(environ, start_response)
        # What is there already opens no more traces; the server may look at its length.
        return body if isinstance(body, (list, tuple)) or not isinstance(block, Served) else _Body(body, block)


class DjangoEndUserMiddleware:
    """Django middleware, synchronous and asynchronous: names the end user of each request.

        MIDDLEWARE = [
            ...,
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "neatlogs_otel.middleware.DjangoEndUserMiddleware",
        ]
        NEATLOGS_GET_END_USER = "shop.users.end_user_of"  # called with the request; may be asynchronous

    Without the setting `NEATLOGS_GET_END_USER` (a callable, or where to import one from) the end user is the primary
    key of the user who is signed in. Traces that a streamed body opens after the response was returned are not reached.

    Raises:
        ImportError: The setting names what is not there.
        TypeError: It names what cannot be called.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction
        from django.conf import settings
        from django.utils.module_loading import import_string

        named = getattr(settings, "NEATLOGS_GET_END_USER", None) or _signed_in
        self._get_end_user = _checked(import_string(named) if isinstance(named, str) else named)
        self._get_response = get_response
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request; an awaitable where Django is asynchronous here."""
        if self._asynchronous:
            return self._serve(request)
        with _naming(lambda: self._ask(request), by="NEATLOGS_GET_END_USER"):
            return self._get_response(request)

    async def _serve(self, request: Any) -> Any:
        with await _naming_async(self._ask_async, request, by="NEATLOGS_GET_END_USER"):
            return await self._get_response(request)

    def _ask(self, request: Any) -> object:
        from asgiref.sync import async_to_sync, iscoroutinefunction

        ask: Any = self._get_end_user
        return async_to_sync(ask)(request) if iscoroutinefunction(ask) else finished(ask(request))

    async def _ask_async(self, request: Any) -> object:
        from asgiref.sync import iscoroutinefunction, sync_to_async

        ask: Any = self._get_end_user
        # A synchronous callable may ask the database, which Django forbids in the event loop.
        return await (ask(request) if iscoroutinefunction(ask) else sync_to_async(ask)(request))


def celery_task(get_end_user: Callable[[Any, Any, Any], object] | None = None) -> type[Any]:
    """A base class of Celery tasks that names the end user of each task that a worker runs.

        app = Celery("shop", task_cls=celery_task())
        app = Celery("shop", task_cls=celery_task(lambda task, args, kwargs: kwargs.get("customer")))

    A worker's task of which the publisher's trace goes on (OpenTelemetry's instrumentation does that) has the end user
    of that trace's root. This is for tasks that open traces of their own. A task with a `base` of its own derives that
    from this class.

    Args:
        get_end_user: Called with the task, its arguments and its keyword arguments. Default: the end user who is served
            where the task is published (in any process that has called this function) travels in the message, in the
            header `TASK_HEADER`: so it is stored where your messages are (as a pseudonym, where those are asked for).

    Raises:
        TypeError: `get_end_user` cannot be called.
    """
    from celery import Task, signals

    if get_end_user is None:
        signals.before_task_publish.connect(_carry, weak=False, dispatch_uid="neatlogs_otel")
    else:
        _checked(get_end_user)

    class EndUserTask(Task):  # type: ignore[misc]  # celery has no types
        """Names its end user while it runs."""

        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run the task."""
            if self.request.called_directly:
                return super().__call__(*args, **kwargs)
            if get_end_user is None:
                header = self.request.get(TASK_HEADER)
                naming = _naming(lambda: _carried(header), by=f"the header {TASK_HEADER}", carried=True)
            else:
                by = "celery_task(get_end_user=...)"
                naming = _naming(lambda: finished(get_end_user(self, args, kwargs)), by=by)
            with naming:
                # As a worker does it; the base class would hide the task's request behind an empty one.
                return self.run(*args, **kwargs)

    return EndUserTask


# Who is served ------------------------------------------------------------------------------------------------------


def _checked(get_end_user: Callable[..., object]) -> Callable[..., object]:
    if not callable(get_end_user):
        raise TypeError(f"get_end_user must be callable, not {type(get_end_user).__name__}")
    return get_end_user


def _naming(ask: Callable[[], object], *, by: str, carried: bool = False) -> AbstractContextManager[object]:
    try:
        return _named(ask(), by=by, carried=carried)
    except Exception as error:  # noqa: BLE001  # the application's callable; its request must go on
        return _named(error, by=by, carried=carried)


async def _naming_async(ask: Callable[[Any], object], about: Any, *, by: str) -> AbstractContextManager[object]:
    try:
        found = ask(about)
        return _named(await found if isinstance(found, Awaitable) else found, by=by)
    except Exception as error:  # noqa: BLE001  # as above
        return _named(error, by=by)


def _named(found: object, *, by: str, carried: bool = False) -> AbstractContextManager[object]:
    """The block in which to handle the request: a trace that is open here has got its end user by then."""
    try:
        span = trace_api.get_current_span()
        in_trace = span.is_recording() and span.get_span_context().is_valid
        declared = _declaration(found, "set_end_user" if in_trace else "identify", by)
        if in_trace and not declared.is_empty:
            name_here(declared, by=by, carried=carried)
        elif not declared.is_empty:
            return Served(declared.end_user, declared.session_id)
    except Exception as error:  # noqa: BLE001  # an error of ours must not reach the application
        warn_once("internal", type(error), "%s in %s.", type(error).__name__, by)
    return nullcontext()


def _declaration(found: object, source: Source, by: str) -> Declaration:
    if isinstance(found, Exception):
        return Declaration(EndUser.refuse(source, "The end user", found, place=by))
    end_user_id, metadata, session_id = found, None, None
    if isinstance(found, Mapping):
        if not _KEYS.issuperset(found):
            wanted = ", ".join(sorted(_KEYS))
            return _declaration(RefusedError(f"it is a mapping with other keys than {wanted}"), source, by)
        end_user_id, metadata, session_id = (found.get(key) for key in sorted(_KEYS))
    elif isinstance(found, (tuple, list)):
        if len(found) != 2:
            return _declaration(RefusedError(f"it has {len(found)} parts; an id and metadata are two"), source, by)
        end_user_id, metadata = found
    return Declaration(
        EndUser.of(source, end_user_id, metadata, place=by),
        encode_session(session_id, place=by),
    )


def _signed_in(request: Any) -> object:
    user = getattr(request, "user", None)
    if user is None:
        raise RefusedError("the request has no user; put the middleware behind Django's AuthenticationMiddleware")
    return user.pk if user.is_authenticated else None


# What runs later, or elsewhere --------------------------------------------------------------------------------------


class _Body:
    """A response's body that is made while the server reads it."""

    def __init__(self, body: Iterable[bytes], block: AbstractContextManager[object]) -> None:
        self._body = body
        self._block = block
        self._items: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._block:
            if self._items is None:
                self._items = iter(self._body)
            return next(self._items)

    def close(self) -> None:
        """Close the body, as the server demands."""
        close = getattr(self._body, "close", None)
        if callable(close):
            with self._block:
                close()


def _carry(headers: Any = None, **_: Any) -> None:
    """Put the end user of the publisher into a message, unless somebody has done so. Never raises."""
    try:
        end_user, session_id = current_identity()
        if not isinstance(headers, dict) or TASK_HEADER in headers or (end_user is None and session_id is None):
            return
        carried: dict[str, object] = {}
        allowed = None if end_user is None else leaving().of(end_user)
        if allowed is not None and allowed.id is not None:
            carried["end_user_id"] = allowed.id
            carried["end_user_metadata"] = allowed.metadata or None
        if session_id is not None:
            carried["session_id"] = session_id
        if carried:
            headers[TASK_HEADER] = json.dumps(carried)
    except Exception as error:  # noqa: BLE001  # an error of ours must not cost the application its message
        warn_once("internal", type(error), "%s while a task is published.", type(error).__name__)


def _carried(header: object) -> object:
    if header is None:
        return None
    if not isinstance(header, str):
        raise RefusedError("it is no text")
    try:
        found = json.loads(header)
    except ValueError:
        raise RefusedError("it is no JSON") from None
    if not isinstance(found, dict):
        raise RefusedError("it is no JSON object")
    return found
