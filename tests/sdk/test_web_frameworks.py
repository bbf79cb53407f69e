"""FastAPI and Flask with their real instrumentations, behind real servers: the server span is the root."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import fastapi
import flask
import httpx
import pytest
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import ReadableSpan

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from support.recording import Recording
from support.web_servers import asgi_server, wsgi_server


@neatlogs.span(kind="WORKFLOW", end_user_id=lambda user: user, end_user_metadata=lambda user: {"of": user})
async def decorated_handler(user: str, turn: int = 1) -> dict[str, object]:
    """Answer."""
    await asyncio.sleep(0)
    return {"user": user, "turn": turn}


def fastapi_app(recorded: Recording) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/async/{user}")
    async def with_async(user: str) -> dict[str, str]:
        async with neatlogs.trace("chat", end_user_id=user, end_user_metadata={"of": user}):
            with recorded.tracer.start_as_current_span("model"):
                await asyncio.sleep(0)
        return {"user": user}

    @app.get("/sync/{user}")
    def with_sync(user: str) -> dict[str, str]:
        with neatlogs.trace("chat", end_user_id=user, end_user_metadata={"of": user}):
            return {"user": user}

    app.get("/decorated/{user}")(decorated_handler)

    @app.get("/late/{user}")
    async def late(user: str) -> dict[str, str]:
        await asyncio.sleep(0)
        neatlogs.set_end_user(user, {"of": user})
        return {"user": user}

    @app.get("/nobody/{user}")
    async def nobody(user: str) -> dict[str, str]:
        return {"user": user}

    @app.get("/background/{user}")
    async def background(user: str, tasks: fastapi.BackgroundTasks) -> dict[str, str]:
        neatlogs.set_end_user(user, {"of": user})
        tasks.add_task(after_the_response, recorded, user)
        return {"user": user}

    @app.get("/stream/{user}")
    async def stream(user: str) -> StreamingResponse:
        return StreamingResponse(streamed(recorded, user))

    @app.get("/stream-sync/{user}")
    def stream_sync(user: str) -> StreamingResponse:
        return StreamingResponse(streamed_sync(recorded, user))

    @app.get("/thread/{user}")
    async def thread(user: str) -> dict[str, str]:
        with neatlogs.trace("chat", end_user_id=user, end_user_metadata={"of": user}):
            work = threading.Thread(target=in_a_thread)
            work.start()
            await asyncio.get_running_loop().run_in_executor(None, work.join)
        return {"user": user}

    FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)
    return app


async def after_the_response(recorded: Recording, user: str) -> None:
    with neatlogs.trace("background", end_user_id=user), recorded.tracer.start_as_current_span("background work"):
        await asyncio.sleep(0)


@neatlogs.span("stream", end_user_id=lambda user: user, end_user_metadata=lambda user: {"of": user})
async def streamed(recorded: Recording, user: str) -> AsyncIterator[str]:
    for at in range(3):
        with recorded.tracer.start_as_current_span("part"):
            await asyncio.sleep(0)
        yield f"{user} {at}\n"


@neatlogs.span("stream", end_user_id=lambda user: user, end_user_metadata=lambda user: {"of": user})
def streamed_sync(recorded: Recording, user: str) -> Iterator[str]:
    for at in range(3):
        with neatlogs.trace("part"):
            yield f"{user} {at}\n"


def in_a_thread() -> None:
    with neatlogs.trace("thread work"):
        pass


@pytest.fixture
def fastapi_url(recorded) -> Iterator[str]:
    """A FastAPI application behind uvicorn."""
    with asgi_server(fastapi_app(recorded)) as url:
        yield url


def flask_app(recorded: Recording) -> flask.Flask:
    app = flask.Flask("shop")

    @app.get("/with/<user>")
    def with_trace(user: str) -> dict[str, str]:
        with neatlogs.trace("chat", end_user_id=user, end_user_metadata={"of": user}):
            return {"user": user}

    @app.get("/decorated/<user>")
    @neatlogs.span(end_user_id=lambda user: user, end_user_metadata=lambda user: {"of": user})
    def decorated(user: str) -> dict[str, str]:
        return {"user": user}

    @app.get("/late/<user>")
    def late(user: str) -> dict[str, str]:
        neatlogs.set_end_user(user, {"of": user})
        return {"user": user}

    @app.get("/stream/<user>")
    def stream(user: str) -> flask.Response:
        return flask.Response(streamed_sync(recorded, user))

    FlaskInstrumentor().instrument_app(app, tracer_provider=recorded.provider)
    return app


@pytest.fixture
def flask_url(recorded) -> Iterator[str]:
    """A Flask application behind werkzeug."""
    app = flask_app(recorded)
    with wsgi_server(app) as url:
        yield url
    FlaskInstrumentor().uninstrument_app(app)


def only_the_root_names(recorded: Recording, root: ReadableSpan, user: str) -> bool:
    """Whether the root carries the user and no other span of its trace carries anything."""
    attributes = root.attributes or {}
    assert attributes.get(keys.END_USER_ID) == user
    assert attributes.get(keys.END_USER_METADATA) == f'{{"of":"{user}"}}'
    for span in recorded.spans:
        if span.context.trace_id == root.context.trace_id and span is not root:
            assert not any(map(keys.is_identity_key, span.attributes or {})), span.name
    return True


@pytest.mark.parametrize("path", ["async", "sync", "decorated", "late", "thread"])
def test_fastapi_server_span_takes_the_user(recorded, fastapi_url, path, said) -> None:
    """What a FastAPI handler declares lands on the server span, which is the trace's root."""
    assert httpx.get(f"{fastapi_url}/{path}/alice").json()["user"] == "alice"
    # The handler's own thread has a root too, which ends first.
    roots = recorded.wait_for_roots(2 if path == "thread" else 1)
    server = next(root for root in roots if root.name.startswith("GET"))
    assert only_the_root_names(recorded, server, "alice")
    assert said.nothing()


def test_fastapi_default_is_replaced_as_one_unit(recorded, fastapi_url, default_user) -> None:
    """Over a process default, id, metadata and source of the server span are replaced together."""
    default_user("by-init", {"plan": "free"})
    httpx.get(f"{fastapi_url}/async/alice")
    httpx.get(f"{fastapi_url}/nobody/x")
    named, unnamed = recorded.wait_for_roots(2)
    assert only_the_root_names(recorded, named, "alice")
    assert (named.attributes or {})[keys.END_USER_SOURCE] == "trace"
    assert [(unnamed.attributes or {})[key] for key in (keys.END_USER_ID, keys.END_USER_METADATA)] == [
        "by-init",
        '{"plan":"free"}',
    ]


def test_fastapi_background_task(recorded, fastapi_url, said) -> None:
    """A background task is part of the request's trace; its own claim repeats the root's, so nothing is lost."""
    httpx.get(f"{fastapi_url}/background/alice")
    (server,) = recorded.wait_for_roots(1)
    # The server span ends with the response, the task after it.
    recorded.wait_for_span("background")
    assert only_the_root_names(recorded, server, "alice")
    assert recorded.named("background").context.trace_id == server.context.trace_id
    assert recorded.named("background work").parent == recorded.named("background").context
    assert said.nothing()


@pytest.mark.parametrize("path", ["stream", "stream-sync"])
def test_fastapi_streamed_body(recorded, fastapi_url, path, caplog) -> None:
    """A decorated generator as the body names the user while it streams, from whatever thread steps it."""
    assert httpx.get(f"{fastapi_url}/{path}/alice").text == "alice 0\nalice 1\nalice 2\n"
    (server,) = recorded.wait_for_roots(1)
    assert only_the_root_names(recorded, server, "alice")
    stream = recorded.named("stream")
    assert {s.parent.span_id for s in recorded.spans if s.name == "part"} == {stream.context.span_id}
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_fastapi_new_thread(recorded, fastapi_url) -> None:
    """A thread that the handler starts without the context has a trace of its own, and nobody's identity."""
    httpx.get(f"{fastapi_url}/thread/alice")
    recorded.wait_for_roots(2)
    assert recorded.named("thread work").parent is None
    assert recorded.id_of("thread work") is None


def test_fastapi_sees_the_handlers_own_parameters(recorded, fastapi_url) -> None:
    """FastAPI still reads the parameters of a decorated handler: path, query and their checks."""
    assert httpx.get(f"{fastapi_url}/decorated/alice", params={"turn": 7}).json() == {"user": "alice", "turn": 7}
    assert httpx.get(f"{fastapi_url}/decorated/alice", params={"turn": "x"}).status_code == 422


def test_fastapi_many_users_at_once(recorded, fastapi_url) -> None:
    """200 concurrent requests through a real server each have their own user."""

    async def all_requests() -> None:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=40), timeout=60) as client:
            paths = [f"/{('async', 'sync', 'decorated', 'late')[user % 4]}/u{user}" for user in range(200)]
            await asyncio.gather(*(client.get(fastapi_url + path) for path in paths))

    asyncio.run(all_requests())
    roots = recorded.wait_for_roots(200)
    assert {(root.attributes or {}).get(keys.END_USER_ID) for root in roots} == {f"u{user}" for user in range(200)}
    for root in roots:
        attributes = root.attributes or {}
        user = str(attributes[keys.END_USER_ID])
        assert attributes[keys.END_USER_METADATA] == f'{{"of":"{user}"}}'
        path = attributes.get("url.path") or attributes.get("http.target") or attributes.get("http.url")
        assert str(path).endswith(f"/{user}")


@pytest.mark.parametrize("path", ["with", "decorated", "late"])
def test_flask_server_span_takes_the_user(recorded, flask_url, path, said, default_user) -> None:
    """What a Flask view declares lands on the server span and replaces a default as one unit."""
    default_user("by-init", {"plan": "free"})
    assert httpx.get(f"{flask_url}/{path}/alice").status_code == 200
    # The handler's own thread has a root too, which ends first.
    roots = recorded.wait_for_roots(2 if path == "thread" else 1)
    server = next(root for root in roots if root.name.startswith("GET"))
    assert only_the_root_names(recorded, server, "alice")
    assert said.nothing()


def test_flask_streamed_body(recorded, flask_url, default_user) -> None:
    """Flask streams outside of the request's context: the decorated generator has a trace and a user of its own."""
    default_user("by-init")
    assert httpx.get(f"{flask_url}/stream/alice").text == "alice 0\nalice 1\nalice 2\n"
    recorded.wait_for_roots(2)
    assert recorded.identity("stream") == ("alice", {"of": "alice"}, "span")
    assert recorded.named("stream").parent is None


def test_flask_many_users_at_once(recorded, flask_url) -> None:
    """Concurrent requests in threads each have their own user."""

    async def all_requests() -> None:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=20), timeout=60) as client:
            paths = [f"/{('with', 'decorated', 'late')[user % 3]}/u{user}" for user in range(60)]
            await asyncio.gather(*(client.get(flask_url + path) for path in paths))

    asyncio.run(all_requests())
    roots = recorded.wait_for_roots(60)
    for root in roots:
        attributes = root.attributes or {}
        path = attributes.get("url.path") or attributes.get("http.target")
        assert str(path).endswith(f"/{attributes[keys.END_USER_ID]}")


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
@pytest.mark.parametrize("roots", ["trace", "entry"])
def test_requests_under_one_traceparent(record, framework, roots) -> None:
    """Concurrent requests under one traceparent: strictly nobody, with roots="entry" each its own user."""
    recorded = record(roots=roots)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    serve = asgi_server(fastapi_app(recorded)) if framework == "fastapi" else wsgi_server(flask_app(recorded))
    paths = ("async", "sync", "decorated") if framework == "fastapi" else ("with", "decorated", "late")

    async def all_requests(url: str) -> None:
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            await asyncio.gather(*(client.get(f"{url}/{paths[user % 3]}/u{user}") for user in range(20)))

    with serve as url:
        asyncio.run(all_requests(url))
        servers = recorded.wait_for_roots(20)
    for server in servers:
        attributes = server.attributes or {}
        path = attributes.get("url.path") or attributes.get("http.target") or attributes.get("http.url")
        expected = str(path).rsplit("/", 1)[-1] if roots == "entry" else None
        assert attributes.get(keys.END_USER_ID) == expected
