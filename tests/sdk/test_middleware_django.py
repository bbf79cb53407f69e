"""`DjangoEndUserMiddleware` under WSGI and ASGI, with and without OpenTelemetry's instrumentation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, JsonResponse
from django.test.utils import override_settings
from django.urls import path
from django.utils.asyncio import async_unsafe
from opentelemetry.instrumentation.django import DjangoInstrumentor

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel.middleware import DjangoEndUserMiddleware
from support.recording import Recording
from support.web_servers import asgi_server, wsgi_server


def chat(request: HttpRequest) -> JsonResponse:
    with neatlogs.trace("answer"):
        return JsonResponse({})


async def chat_async(request: HttpRequest) -> JsonResponse:
    await asyncio.sleep(0)
    with neatlogs.trace("answer"):
        return JsonResponse({})


# Django finds views and middleware by the name of a module.
SITE = ModuleType("django_site_of_the_tests")
SITE.__dict__.update(urlpatterns=[path("chat", chat), path("chat-async", chat_async)])


def authentication(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Stands for Django's own: a user whose data is only loaded when somebody asks for it, which blocks."""

    def middleware(request: Any) -> Any:
        name = request.headers.get("x-user")

        @async_unsafe
        def load(user: Any) -> str | None:
            return name

        user = type("User", (SimpleNamespace,), {"pk": property(load)})
        request.user = user(is_authenticated=name is not None)
        return get_response(request)

    return middleware


def failing(request: Any) -> str:
    raise KeyError("a secret")


async def asynchronous(request: Any) -> tuple[str, dict[str, str]]:
    await asyncio.sleep(0)
    return request.headers["x-user"], {"plan": "pro"}


SITE.__dict__.update(authentication=authentication, failing=failing, asynchronous=asynchronous)

MIDDLEWARE = [f"{SITE.__name__}.authentication", "neatlogs_otel.middleware.DjangoEndUserMiddleware"]


@pytest.fixture(scope="module", autouse=True)
def site() -> Iterator[None]:
    """One Django for this module: its settings are the process's."""
    import django

    sys.modules[SITE.__name__] = SITE
    settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of the tests", ROOT_URLCONF=SITE.__name__, LOGGING_CONFIG=None)
    django.setup()
    yield
    del sys.modules[SITE.__name__]


@contextmanager
def served(recorded: Recording, way: str, *, instrumented: bool, **more: Any) -> Iterator[str]:
    """A Django behind a real server: the base URL."""
    with override_settings(MIDDLEWARE=list(MIDDLEWARE), **more):
        instrumentor = DjangoInstrumentor()
        if instrumented:
            instrumentor.instrument(tracer_provider=recorded.provider)
        try:
            handler = wsgi_server(WSGIHandler()) if way == "wsgi" else asgi_server(ASGIHandler())
            with handler as url:
                yield url
        finally:
            if instrumented:
                instrumentor.uninstrument()


def users(recorded: Recording, count: int) -> list[object]:
    return [(root.attributes or {}).get(keys.END_USER_ID) or None for root in recorded.wait_for_roots(count)]


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
@pytest.mark.parametrize("view", ["chat", "chat-async"])
@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_the_signed_in_user_is_the_end_user(recorded, said, way: str, view: str, instrumented: bool) -> None:
    """Without a setting the root carries the primary key of who is signed in, and nothing where nobody is."""
    with served(recorded, way, instrumented=instrumented) as url:
        for user in ("u_1", "u_2"):
            assert httpx.get(f"{url}/{view}", headers={"x-user": user}).status_code == 200
        assert httpx.get(f"{url}/{view}").status_code == 200
        assert users(recorded, 3) == ["u_1", "u_2", None]
    assert said.messages == []


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_the_setting_names_who_is_asked(recorded, said, way: str) -> None:
    """`NEATLOGS_GET_END_USER` may be asynchronous under either server, and answers with metadata too."""
    asked = f"{SITE.__name__}.asynchronous"
    with served(recorded, way, instrumented=False, NEATLOGS_GET_END_USER=asked) as url:
        assert httpx.get(f"{url}/chat", headers={"x-user": "u_1"}).status_code == 200
        (root,) = recorded.wait_for_roots(1)
    assert (root.attributes or {})[keys.END_USER_ID] == "u_1"
    assert (root.attributes or {})[keys.END_USER_METADATA] == '{"plan":"pro"}'
    assert said.messages == []


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_what_it_does_wrong_never_reaches_the_request(
    recorded, default_user, said, way: str, instrumented: bool
) -> None:
    """Each request is answered, its trace has no end user (not the default either), and one warning says why."""
    default_user("by-init")
    with served(recorded, way, instrumented=instrumented, NEATLOGS_GET_END_USER=failing) as url:
        assert [httpx.get(f"{url}/chat").status_code for _ in range(2)] == [200, 200]
        assert users(recorded, 2) == [None, None]
    assert said.once("NEATLOGS_GET_END_USER", "it raised KeyError")
    assert "secret" not in said.messages[0]


def test_before_authentication_it_says_where_it_belongs(recorded, said) -> None:
    """A request without a user is answered, and the warning says behind what the middleware has to stand."""
    with (
        override_settings(MIDDLEWARE=MIDDLEWARE[1:]),
        wsgi_server(WSGIHandler()) as url,
    ):
        assert httpx.get(f"{url}/chat").status_code == 200
        recorded.wait_for_roots(1)
    assert said.once("the request has no user", "AuthenticationMiddleware")


def test_a_setting_that_names_nothing_stops_the_start() -> None:
    """What can never work is said when Django starts, as Django does it."""
    with override_settings(NEATLOGS_GET_END_USER="shop.users.nobody"), pytest.raises(ImportError):
        DjangoEndUserMiddleware(chat)
