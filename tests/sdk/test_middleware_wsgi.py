"""`WSGIEndUserMiddleware` under Flask, behind a real server, with and without OpenTelemetry's instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import httpx
import pytest
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel.middleware import WSGIEndUserMiddleware
from support.recording import Recording
from support.web_servers import wsgi_server


def header(environ: Any) -> str | None:
    """What an application's own authentication would come to."""
    found = environ.get("HTTP_X_USER")
    return found if isinstance(found, str) else None


def application(recorded: Recording, get_end_user: Callable[[Any], object], *, instrumented: bool) -> flask.Flask:
    app = flask.Flask("shop")

    @app.get("/chat")
    def chat() -> dict[str, str]:
        with neatlogs.trace("answer"):
            return {}

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            for _ in range(2):
                with neatlogs.trace("part"):
                    yield "part"
            with neatlogs.identify(session_id="s_1"):
                yield "between"
                with neatlogs.trace("in a session"):
                    pass
            with neatlogs.trace("last"):
                yield "last"

        return flask.Response(parts())

    app.wsgi_app = WSGIEndUserMiddleware(app.wsgi_app, get_end_user)
    if instrumented:
        FlaskInstrumentor().instrument_app(app, tracer_provider=recorded.provider)
    return app


@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_requests_at_the_same_time_keep_their_users(recorded, said, instrumented: bool) -> None:
    """Twenty requests on a threaded server: each root has its own request's end user."""
    app = application(recorded, header, instrumented=instrumented)
    with wsgi_server(app) as url, ThreadPoolExecutor(5) as pool:
        users = [f"u{n}" for n in range(20)]
        answers = list(pool.map(lambda user: httpx.get(f"{url}/chat", headers={"x-user": user}), users))
        roots = recorded.wait_for_roots(20)
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(str((root.attributes or {}).get(keys.END_USER_ID)) for root in roots) == sorted(users)
    assert {root.name for root in roots} == {"GET /chat" if instrumented else "answer"}
    assert said.nothing()


def test_the_instrumentation_may_stand_inside(recorded, said) -> None:
    """Where the middleware is the outermost, the root that the instrumentation opens inside it is named."""
    inner = OpenTelemetryMiddleware(flask.Flask("shop").wsgi_app, tracer_provider=recorded.provider)
    with wsgi_server(WSGIEndUserMiddleware(inner, header)) as url:
        httpx.get(url, headers={"x-user": "u_1"})
        (root,) = recorded.wait_for_roots(1)
    assert (root.attributes or {})[keys.END_USER_ID] == "u_1"
    assert said.nothing()


def test_what_a_streamed_body_opens_is_named_too(recorded, said) -> None:
    """The traces that a generator opens while the server reads it have the request's end user; so do its own blocks."""
    with wsgi_server(application(recorded, header, instrumented=False)) as url:
        answer = httpx.get(f"{url}/stream", headers={"x-user": "u_1"})
        roots = recorded.wait_for_roots(4)
    assert answer.text == "partpartbetweenlast"
    found = {root.name: dict(root.attributes or {}) for root in roots}
    assert {name: attributes[keys.END_USER_ID] for name, attributes in found.items()} == dict.fromkeys(
        ("part", "in a session", "last"), "u_1"
    )
    assert found["in a session"][keys.SESSION_ID] == "s_1"
    assert keys.SESSION_ID not in found["last"]
    assert said.nothing()


def test_a_stream_that_is_closed_early_leaves_nothing_behind(recorded) -> None:
    """After a body was closed in the middle, the thread has no end user, and the generator was closed."""
    closed: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(True)

    body = WSGIEndUserMiddleware(app, lambda environ: "u_1")({}, None)
    assert next(iter(body)) == b"1"
    body.close()
    assert closed == [True]
    assert neatlogs.current_end_user() is None


async def asynchronous(environ: Any) -> str:
    return "u_1"


def failing(environ: Any) -> str:
    raise KeyError("a secret")


@pytest.mark.parametrize("get_end_user", [failing, asynchronous])
def test_what_get_end_user_does_wrong_never_reaches_the_request(
    recorded, default_user, said, get_end_user: Callable[[Any], object]
) -> None:
    """Each request is answered, its trace has no end user (not the default either), and one warning says why."""
    default_user("by-init")
    with wsgi_server(application(recorded, get_end_user, instrumented=True)) as url:
        assert [httpx.get(f"{url}/chat").status_code for _ in range(3)] == [200, 200, 200]
        roots = recorded.wait_for_roots(3)
    assert not any((root.attributes or {}).get(keys.END_USER_ID) for root in roots)
    assert said.once("WSGIEndUserMiddleware(get_end_user=...)", "refused")
    assert "secret" not in said.messages[0]
