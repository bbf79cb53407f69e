"""@span on functions, methods and coroutines: identity per call, what stays of the function, captured content."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import operator
from types import SimpleNamespace

import pytest
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys


def request_of(user: object) -> SimpleNamespace:
    return SimpleNamespace(user=SimpleNamespace(id=user, plan="pro"), conversation=f"c-{user}")


def test_bare(recorded) -> None:
    """Bare, it opens a span named after the function, of kind chain."""

    @neatlogs.span
    def answer(question: str) -> str:
        return question.upper()

    assert answer("why") == "WHY"
    attributes = recorded.named("answer").attributes or {}
    assert attributes[keys.SPAN_KIND] == "chain"
    assert attributes[keys.OPENINFERENCE_SPAN_KIND] == "CHAIN"


@pytest.mark.parametrize("decorator", [neatlogs.span("named"), neatlogs.span(name="named", kind="TOOL")])
def test_called(recorded, decorator) -> None:
    """Called, it takes a name and a kind."""
    assert decorator(lambda: 1)() == 1
    assert recorded.named("named")


def test_end_user_per_call(recorded) -> None:
    """A callable gets each call's arguments, so that a decorator at import time serves every tenant."""

    @neatlogs.span(
        kind="WORKFLOW",
        end_user_id=lambda request: request.user.id,
        end_user_metadata=lambda request: {"plan": request.user.plan},
        session_id=lambda request: request.conversation,
    )
    def chat(request) -> None:
        recorded.tracer.start_span("child").end()

    for user in ("alice", "bob"):
        chat(request_of(user))
        assert recorded.identity("chat") == (user, {"plan": "pro"}, "span")
        assert recorded.session_of("chat") == f"c-{user}"
        assert recorded.id_of("child") is None
        recorded.exporter.clear()


@pytest.mark.parametrize(
    "end_user_id",
    [
        lambda request: request.user.id,
        lambda *, request: request.user.id,
        lambda body, request: request.user.id,
        lambda r, b: r.user.id,
        lambda *args: args[0].user.id,
        lambda r, *_, **__: r.user.id,
        lambda: "alice",
    ],
)
def test_arguments_of_the_callable(recorded, end_user_id) -> None:
    """The callable gets the arguments that it names, or all of them where its names are its own."""

    @neatlogs.span(end_user_id=end_user_id)
    def chat(request, body="hello") -> None:
        pass

    chat(request_of("alice"), "hi")
    assert recorded.id_of("chat") == "alice"


def test_arguments_by_keyword_and_default(recorded) -> None:
    """Names are matched however the call passes them, defaults included."""

    @neatlogs.span(end_user_id=lambda user: user, session_id=lambda conversation: conversation)
    def chat(body, *, user, conversation="c0") -> None:
        pass

    chat("hi", user="alice")
    assert (recorded.id_of("chat"), recorded.session_of("chat")) == ("alice", "c0")


def test_a_callable_without_a_signature(recorded) -> None:
    """A callable that does not say what it takes gets all arguments."""

    @neatlogs.span(end_user_id=operator.attrgetter("user.id"))
    def chat(request) -> None:
        pass

    chat(request_of("alice"))
    assert recorded.id_of("chat") == "alice"


def test_a_callable_that_raises(recorded, default_user, said) -> None:
    """A callable that raises is a refused id: the call goes on, the trace has no end user, and not the default's."""
    default_user("by-init")

    @neatlogs.span(end_user_id=lambda request: request.user.id)
    def chat(request) -> str:
        return "done"

    assert chat(None) == "done"
    assert not recorded.id_of("chat")
    assert said.once("AttributeError", "chat")


def test_a_wrong_call_fails_as_without_the_decorator(recorded) -> None:
    """A call with wrong arguments raises the function's own TypeError."""

    @neatlogs.span(end_user_id=lambda request: request.user.id, capture_input=True)
    def chat(request) -> None:
        pass

    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        chat(nonsense=1)


def test_methods(recorded) -> None:
    """On methods the callable names what it needs; static and class methods work in either order of decorators."""

    class Bot:
        tenant = "t1"

        @neatlogs.span(end_user_id=lambda self, user: f"{self.tenant}-{user}", capture_input=True)
        def method(self, user: str) -> str:
            return user

        @neatlogs.span(end_user_id=lambda user: user)
        @staticmethod
        def static(user: str) -> str:
            return user

        @classmethod
        @neatlogs.span(end_user_id=lambda user: user)
        def inner_class(cls, user: str) -> str:
            return cls.tenant

        @neatlogs.span(end_user_id=lambda user: user)
        @classmethod
        def outer_class(cls, user: str) -> str:
            return cls.tenant

    assert (Bot().method("a"), Bot().static("b"), Bot.inner_class("c"), Bot().outer_class("d")) == (
        "a",
        "b",
        "t1",
        "t1",
    )
    assert [recorded.id_of(f"Bot.{name}") for name in ("method", "static", "inner_class", "outer_class")] == [
        "t1-a",
        "b",
        "c",
        "d",
    ]
    assert json.loads(str((recorded.named("Bot.method").attributes or {})["input.value"])) == {"user": "a"}


def test_what_stays_of_the_function() -> None:
    """Name, documentation, signature and kind of function stay what they were."""

    def function(a: int, *, b: str = "x") -> str:
        """Say it."""
        return b

    async def coroutine() -> None: ...

    def generator():
        yield

    async def async_generator():
        yield

    decorated = neatlogs.span(function)
    assert decorated.__name__ == "function"
    assert decorated.__doc__ == "Say it."
    assert inspect.signature(decorated) == inspect.signature(function)
    assert inspect.iscoroutinefunction(neatlogs.span(coroutine))
    assert inspect.isgeneratorfunction(neatlogs.span(generator))
    assert inspect.isasyncgenfunction(neatlogs.span(async_generator))


class Tool:
    async def __call__(self, user: str) -> str:
        return user


async def test_other_callables(recorded) -> None:
    """Partials and objects that can be called are decorated by what calling them does."""

    async def chat(user: str, body: str) -> str:
        return body

    assert await neatlogs.span("partial", end_user_id=lambda user: user)(functools.partial(chat, "alice"))("hi") == "hi"
    assert await neatlogs.span(end_user_id=lambda user: user)(Tool())("bob") == "bob"
    assert recorded.id_of("Tool") == "bob"
    assert recorded.named("partial").status.status_code is trace_api.StatusCode.UNSET


@pytest.mark.parametrize("thing", [Tool, 5, "text"], ids=str)
def test_what_cannot_be_decorated_stays(said, thing) -> None:
    """A class, and what cannot be called, is left as it is with a warning."""
    assert neatlogs.span("x")(thing) is thing
    assert said.once("@span cannot decorate")


def test_bad_arguments_do_not_raise(recorded, said) -> None:
    """A bad kind or name is a warning at decoration time."""

    @neatlogs.span(7, kind=123)
    def chat() -> int:
        return 1

    assert chat() == 1
    assert len(said.messages) == 2


def test_a_constant_in_a_multi_tenant_process(recorded, said) -> None:
    """A constant that serves many calls, where trace() names others, warns once."""

    @neatlogs.span(end_user_id="constant")
    def chat() -> None:
        pass

    for user in ("constant", "alice", "bob"):
        with neatlogs.trace("other", end_user_id=user):
            pass
    chat()
    assert said.nothing()
    chat()
    chat()
    assert said.once("chat", "constant end user", "lambda request")


def test_a_constant_in_a_single_user_process(recorded, said) -> None:
    """A constant is right where the process serves one end user."""

    @neatlogs.span(end_user_id="alice")
    def chat() -> None:
        pass

    with neatlogs.trace("other", end_user_id="alice"):
        pass
    for _ in range(3):
        chat()
    assert said.nothing()


def test_a_refused_constant_warns_once(recorded, said) -> None:
    """A constant that cannot be used warns at decoration and refuses at every call."""

    @neatlogs.span(end_user_id=True, session_id=True)
    def chat() -> None:
        pass

    chat()
    chat()
    assert len(said.messages) == 2
    assert {(s.attributes or {}).get(keys.END_USER_ID) for s in recorded.spans} == {None}


def test_nested_decorators(recorded, said) -> None:
    """Inside an open @span another end user has no effect and warns."""

    @neatlogs.span(end_user_id="bob")
    def inner() -> None:
        pass

    @neatlogs.span(end_user_id="alice")
    def outer() -> None:
        inner()

    outer()
    assert recorded.id_of("outer") == "alice"
    assert recorded.id_of("inner") is None
    assert said.once("@span", "inner", "outer")


def test_errors_pass_unchanged(recorded) -> None:
    """An exception is recorded and passes as the same object."""
    error = LookupError("gone")

    @neatlogs.span(end_user_id="alice")
    def chat() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        chat()
    assert caught.value is error
    assert recorded.named("chat").status.description == ("LookupError: gone")


async def test_coroutines(recorded) -> None:
    """A coroutine's span lasts until it has finished and is the parent of what it starts."""

    @neatlogs.span(end_user_id=lambda user: user)
    async def chat(user: str) -> str:
        await asyncio.sleep(0)
        with recorded.tracer.start_as_current_span("child"):
            await asyncio.sleep(0)
        return user

    assert await asyncio.gather(chat("alice"), chat("bob")) == ["alice", "bob"]
    roots = {s.context.span_id: s for s in recorded.spans if s.name == "chat"}
    children = [s for s in recorded.spans if s.name == "child"]
    assert {(s.attributes or {})[keys.END_USER_ID] for s in roots.values()} == {"alice", "bob"}
    assert {s.parent.span_id for s in children} == set(roots)


async def test_a_cancelled_coroutine(recorded) -> None:
    """Cancellation ends the span and is no error."""
    started = asyncio.Event()

    @neatlogs.span
    async def chat() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(chat())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET


def test_captured_input_and_output(recorded) -> None:
    """Arguments and result are captured on request, as JSON by name, as plain text where the result is text."""

    @neatlogs.span(capture_input=True, capture_output=True)
    def chat(messages: list[dict[str, str]], *rest: int, model: str = "m", **options: float) -> str:
        return "hello"

    @neatlogs.span(capture_output=True)
    def search() -> list[object]:
        return [1, {"a": object}]

    chat([{"role": "user"}], 1, 2, temperature=0.5)
    search()
    chatted = recorded.named("chat").attributes or {}
    assert json.loads(str(chatted["input.value"])) == {
        "messages": [{"role": "user"}],
        "rest": [1, 2],
        "options": {"temperature": 0.5},
    }
    assert chatted["input.mime_type"] == "application/json"
    assert (chatted["output.value"], chatted["output.mime_type"]) == ("hello", "text/plain")
    searched = recorded.named("search").attributes or {}
    assert json.loads(str(searched["output.value"]))[0] == 1
    assert "input.value" not in searched


def test_nothing_is_captured_unasked(recorded) -> None:
    """Without a request no content reaches a span."""

    @neatlogs.span
    def chat(secret: str) -> str:
        return secret

    chat("s3cret")
    assert not any("s3cret" in str(value) for value in (recorded.named("chat").attributes or {}).values())


def test_content_that_cannot_be_captured(recorded, said) -> None:
    """Content that cannot be encoded is left out with a warning; the call goes on."""
    endless: list[object] = []
    endless.append(endless)

    @neatlogs.span(capture_output=True)
    def chat() -> list[object]:
        return endless

    assert chat() is endless
    assert "output.value" not in (recorded.named("chat").attributes or {})
    assert said.once("output.value", "nested")


def hide(attributes: dict[str, object]) -> dict[str, object]:
    return {key: "***" if key.endswith(".value") else value for key, value in attributes.items()}


def test_mask_covers_what_is_captured(recorded) -> None:
    """A mask runs at the moment of capture, so that no exporter sees what it removes; identity never passes it."""
    seen: list[set[str]] = []

    def mask(attributes: dict[str, object]) -> dict[str, object]:
        seen.append(set(attributes))
        return hide(attributes)

    @neatlogs.span(end_user_id="alice", capture_input=True, capture_output=True, mask=mask)
    def chat(body: str) -> str:
        return body

    assert chat("s3cret") == "s3cret"
    attributes = recorded.named("chat").attributes or {}
    assert attributes["input.value"] == attributes["output.value"] == "***"
    assert recorded.id_of("chat") == "alice"
    assert seen == [{"input.value", "input.mime_type"}, {"output.value", "output.mime_type"}]


def test_mask_of_an_enclosing_trace(recorded) -> None:
    """The mask of a trace() covers its own attributes and what @span captures inside; inner masks run first."""
    order: list[str] = []

    @neatlogs.span(capture_output=True, mask=lambda a: order.append("inner") or a)
    def inner() -> str:
        return "s3cret"

    with neatlogs.trace("outer", mask=lambda a: order.append("outer") or hide(a), **{"prompt.value": "s3cret"}):
        inner()
    assert (recorded.named("outer").attributes or {})["prompt.value"] == "***"
    assert (recorded.named("inner").attributes or {})["output.value"] == "***"
    assert order == ["outer", "inner", "outer"]


@pytest.mark.parametrize("mask", [lambda a: 1 / 0, lambda a: 5, "no mask"], ids=["raises", "returns an int", "text"])
def test_a_mask_that_fails_drops_content(recorded, said, mask) -> None:
    """Where a mask fails, content is dropped and identity kept."""

    @neatlogs.span(end_user_id="alice", capture_output=True, mask=mask)
    def chat() -> str:
        return "s3cret"

    chat()
    assert "output.value" not in (recorded.named("chat").attributes or {})
    assert recorded.id_of("chat") == "alice"
    assert said.once("mask")
