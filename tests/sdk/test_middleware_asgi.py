"""`EndUserMiddleware` under FastAPI, behind a real server, with and without OpenTelemetry's instrumentation."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fastapi
import httpx
import pytest
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel.middleware import EndUserMiddleware
from support.programs import run_program
from support.recording import Recording
from support.web_servers import asgi_server


def header(scope: Any, name: bytes = b"x-user") -> str | None:
    """What an application's own authentication would come to."""
    found = dict(scope["headers"]).get(name)
    return found.decode() if found is not None else None


def application(recorded: Recording, get_end_user: Callable[[Any], object]) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/chat")
    async def chat() -> dict[str, str]:
        await asyncio.sleep(0)
        with neatlogs.trace("answer"):
            return {}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> Any:
            for _ in range(2):
                with neatlogs.trace("part"):
                    yield "part"

        return StreamingResponse(parts())

    app.add_middleware(EndUserMiddleware, get_end_user=get_end_user)
    return app


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    with asgi_server(app) as url, httpx.Client(base_url=url) as client:
        yield client


def identity(span: ReadableSpan) -> tuple[object, object, object]:
    found = span.attributes or {}
    return (found.get(keys.END_USER_ID), found.get(keys.END_USER_METADATA), found.get(keys.SESSION_ID))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("u_1", ("u_1", None, None)),
        (7, ("7", None, None)),
        (("u_1", {"plan": "pro"}), ("u_1", '{"plan":"pro"}', None)),
        ({"end_user_id": "u_1", "session_id": "s_1"}, ("u_1", None, "s_1")),
        ({"end_user_id": "u_1", "end_user_metadata": {"plan": "pro"}}, ("u_1", '{"plan":"pro"}', None)),
        ({"session_id": "s_1"}, (None, None, "s_1")),
        (None, (None, None, None)),
        ("", (None, None, None)),
    ],
)
@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_what_get_end_user_may_return(recorded, said, instrumented: bool, found: object, expected: object) -> None:
    """An id, an id with metadata, a mapping or None: the request's root carries it, whoever opens that root."""
    app = application(recorded, lambda scope: found)
    if instrumented:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)
    with served(app) as client:
        assert client.get("/chat").status_code == 200
        (root,) = recorded.wait_for_roots(1)
    assert root.name == ("GET /chat" if instrumented else "answer")
    assert identity(root) == expected
    assert said.nothing()


def test_the_instrumentation_may_stand_inside(recorded, said) -> None:
    """Where the middleware is the outermost, the root that the instrumentation opens inside it is named."""
    inner = OpenTelemetryMiddleware(fastapi.FastAPI(), tracer_provider=recorded.provider)
    with served(EndUserMiddleware(inner, get_end_user=header)) as client:
        client.get("/", headers={"x-user": "u_1"})
        (root,) = recorded.wait_for_roots(1)
    assert identity(root) == ("u_1", None, None)
    assert root.attributes[keys.END_USER_SOURCE] == "identify"
    assert said.nothing()


async def late(scope: Any) -> str | None:
    await asyncio.sleep(0.001)
    return header(scope)


@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_requests_at_the_same_time_keep_their_users(recorded, said, instrumented: bool) -> None:
    """Forty requests at once, with an asynchronous get_end_user: each root has its own request's end user."""
    app = application(recorded, late)
    if instrumented:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)

    async def visit(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as client:
            await asyncio.gather(
                *(client.get("/chat", params={"of": f"u{n}"}, headers={"x-user": f"u{n}"}) for n in range(40))
            )

    with asgi_server(app) as url:
        asyncio.run(visit(url))
        roots = recorded.wait_for_roots(40)
    assert sorted(str(identity(root)[0]) for root in roots) == sorted(f"u{n}" for n in range(40))
    if instrumented:
        for root in roots:
            assert f"of={identity(root)[0]}" in f"{root.attributes}"
    assert said.nothing()


def test_what_a_streamed_body_opens_is_named_too(recorded, said) -> None:
    """The traces that a streamed response opens while it is sent have the request's end user."""
    with served(application(recorded, header)) as client:
        client.get("/stream", headers={"x-user": "u_1"})
        roots = recorded.wait_for_roots(2)
    assert [identity(root)[0] for root in roots] == ["u_1", "u_1"]
    assert said.nothing()


def failing(scope: Any) -> str:
    raise KeyError("a secret")


async def failing_late(scope: Any) -> str:
    await asyncio.sleep(0)
    raise KeyError("a secret")


@pytest.mark.parametrize(
    ("get_end_user", "reason"),
    [
        (failing, "it raised KeyError"),
        (failing_late, "it raised KeyError"),
        (lambda scope: True, "refused"),
        (lambda scope: ("u_1", {}, "s_1"), "it has 3 parts"),
        (lambda scope: {"id": "u_1"}, "other keys than end_user_id, end_user_metadata, session_id"),
        (lambda scope: "u" * 1_025, "more than 1024"),
    ],
    ids=["raises", "raises later", "bool", "three parts", "other keys", "too long"],
)
@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_what_get_end_user_does_wrong_never_reaches_the_request(
    recorded, default_user, said, instrumented: bool, get_end_user: Callable[[Any], object], reason: str
) -> None:
    """Each request is answered, its trace has no end user (not the default either), and one warning says why."""
    default_user("by-init")
    app = application(recorded, get_end_user)
    if instrumented:
        FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)
    with served(app) as client:
        for _ in range(3):
            assert client.get("/chat").status_code == 200
        roots = recorded.wait_for_roots(3)
    assert [identity(root)[0] or None for root in roots] == [None] * 3
    assert said.once("EndUserMiddleware(get_end_user=...)", reason)
    assert "secret" not in said.messages[0]


def test_an_incoming_trace_is_owned_by_who_started_it(recorded, said) -> None:
    """Under a remote parent the claim has no effect, and the warning says what to do."""
    app = application(recorded, header)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)
    with served(app) as client:
        incoming = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-user": "u_1"}
        client.get("/chat", headers=incoming)
        (entry,) = recorded.wait_for_roots(1)
    assert identity(entry) == (None, None, None)
    assert said.once("EndUserMiddleware(get_end_user=...)", "started by another service", 'roots="entry"')


def test_behind_a_gateway_the_entry_span_is_named(record, said) -> None:
    """With roots="entry" the span under a remote parent carries the end user."""
    recorded = record(roots="entry")
    app = application(recorded, header)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=recorded.provider)
    with served(app) as client:
        client.get("/chat", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-user": "u_1"})
        (entry,) = recorded.wait_for_roots(1)
    assert identity(entry) == ("u_1", None, None)
    assert said.nothing()


async def test_what_is_no_request_passes() -> None:
    """A lifespan message goes to the application, and nobody is asked for an end user."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await EndUserMiddleware(app, get_end_user=failing)({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


def test_an_abandoned_request_is_closed_anywhere() -> None:
    """A request that nobody finishes is closed in another context without an error, and names nobody there."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    request = EndUserMiddleware(app, get_end_user=lambda scope: "u_1")({"type": "http"}, None, Never())
    contextvars.copy_context().run(request.send, None)
    request.close()
    assert neatlogs.current_end_user() is None


def test_get_end_user_has_to_be_callable() -> None:
    """What can never work is said at once."""
    with pytest.raises(TypeError, match="get_end_user must be callable, not str"):
        EndUserMiddleware(None, get_end_user="shop.users.end_user_of")


def test_no_framework_is_imported_before_its_helper_is_used() -> None:
    """Importing the helpers brings none of the frameworks, and importing the shim does not bring the helpers."""
    result = run_program("""
    import sys
    import neatlogs_otel
    report("neatlogs_otel.middleware" in sys.modules or "neatlogs_otel._zero_code" in sys.modules)
    import neatlogs_otel.middleware
    frameworks = {"asgiref", "celery", "django", "fastapi", "flask", "pytest", "starlette"}
    assert not frameworks & sys.modules.keys(), frameworks & sys.modules.keys()
    """)
    assert result.report is False
