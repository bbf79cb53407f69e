"""Many requests of many users at once: each trace has its own user and no other."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel import _registry
from neatlogs_otel import conventions as keys
from support.recording import Recording

REQUESTS = 200


def assert_each_trace_has_its_own_user(recorded: Recording, children: int) -> None:
    """Every root is named after its user; only roots carry identity; every child is in its user's trace."""
    roots = {span.context.trace_id: span for span in recorded.spans if span.parent is None}
    assert len(roots) == REQUESTS
    for root in roots.values():
        attributes = root.attributes or {}
        assert root.name == f"request {attributes[keys.END_USER_ID]}"
        assert attributes[keys.END_USER_METADATA] == f'{{"of":"{attributes[keys.END_USER_ID]}"}}'
    others = [span for span in recorded.spans if span.parent is not None]
    assert len(others) == REQUESTS * children
    for span in others:
        assert keys.END_USER_ID not in (span.attributes or {})
        assert span.name.split()[-1] == roots[span.context.trace_id].name.split()[-1]
    assert len(_registry.registry) == 0


@pytest.mark.parametrize("way", ["trace", "set_end_user", "identify", "span"])
async def test_tasks(recorded, way, said) -> None:
    """200 concurrent asyncio requests, each with children in tasks of their own, never exchange users."""

    async def child(user: int) -> None:
        with recorded.tracer.start_as_current_span(f"child {user}"):
            await asyncio.sleep(0)
            current = neatlogs.current_end_user()
            assert current is not None
            assert current.id == str(user)

    async def work(user: int) -> None:
        for _ in range(user * 7919 % 5):
            await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.create_task(child(user)) for _ in range(3)))

    async def request(user: int) -> None:
        name, metadata = f"request {user}", {"of": str(user)}
        if way == "trace":
            async with neatlogs.trace(name, end_user_id=user, end_user_metadata=metadata):
                await work(user)
        elif way == "set_end_user":
            with recorded.tracer.start_as_current_span(name):
                await asyncio.sleep(0)
                assert neatlogs.set_end_user(user, metadata)
                await work(user)
        elif way == "identify":
            with (
                neatlogs.identify(end_user_id=user, end_user_metadata=metadata),
                recorded.tracer.start_as_current_span(name),
            ):
                await work(user)
        else:
            per_call = neatlogs.span(
                name, end_user_id=lambda user: user, end_user_metadata=lambda user: {"of": str(user)}
            )
            await per_call(work)(user)

    await asyncio.gather(*(request(user) for user in range(REQUESTS)))
    assert_each_trace_has_its_own_user(recorded, children=3)
    assert said.nothing()


def test_threads(recorded, said) -> None:
    """200 requests on 16 threads never exchange users."""
    start = threading.Barrier(16)

    def request(user: int) -> None:
        if user < 16:
            start.wait(timeout=30)
        name, metadata = f"request {user}", {"of": str(user)}
        with neatlogs.trace(name, end_user_id=user, end_user_metadata=metadata):
            for _ in range(3):
                with neatlogs.trace(f"child {user}"):
                    current = neatlogs.current_end_user()
                    assert current is not None
                    assert current.id == str(user)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(REQUESTS)))
    assert_each_trace_has_its_own_user(recorded, children=3)
    assert said.nothing()


@pytest.mark.parametrize("default", [None, "by-init"])
def test_a_new_thread_has_lost_the_context(recorded, default_user, default) -> None:
    """Work in a new thread without the context gets the default or nobody, never the user of the request."""
    default_user(default)

    def background() -> None:
        with neatlogs.trace("background"):
            pass

    with neatlogs.identify(end_user_id="alice"), neatlogs.trace("request", end_user_id="alice"):
        thread = threading.Thread(target=background)
        thread.start()
        thread.join()
    assert recorded.id_of("request") == "alice"
    assert recorded.id_of("background") == default


def test_a_thread_that_is_given_the_context(recorded) -> None:
    """Work in a thread that runs with the request's context is part of its trace."""

    def background() -> None:
        with neatlogs.trace("background"):
            current = neatlogs.current_end_user()
            assert current is not None
            assert current.id == "alice"

    with neatlogs.trace("request", end_user_id="alice"):
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(context.run, background).result()
    assert recorded.named("background").parent == recorded.named("request").context


async def test_a_task_that_outlives_its_request(recorded, said) -> None:
    """A task that goes on after its request has ended never takes the next request's user."""
    ended = asyncio.Event()

    async def background() -> None:
        await ended.wait()
        assert neatlogs.set_end_user("alice")  # That is who the trace has served.
        assert not neatlogs.set_end_user("carol")
        with neatlogs.trace("late", end_user_id="carol"):
            await asyncio.sleep(0)

    with neatlogs.trace("request", end_user_id="alice"):
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
    with neatlogs.trace("next", end_user_id="bob"):
        ended.set()
        await task
    assert recorded.id_of("request") == "alice"
    assert recorded.id_of("next") == "bob"
    assert recorded.id_of("late") is None
    assert len(said.messages) == 2


async def test_a_task_with_a_clean_context(recorded) -> None:
    """A task that starts with an empty context belongs to no request."""

    async def background() -> None:
        with neatlogs.trace("background"):
            pass

    with neatlogs.trace("request", end_user_id="alice"):
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: contextvars.Context().run(asyncio.run, background())
        )
    assert recorded.id_of("background") is None
    assert recorded.named("background").parent is None


def test_declarations_from_several_threads_on_one_root(recorded) -> None:
    """Of several threads that name the end user of one root at once, exactly one succeeds, and its unit is whole."""
    start = threading.Barrier(8)
    succeeded: list[int] = []

    def declare(root: trace_api.Span, user: int) -> None:
        with trace_api.use_span(root):
            start.wait(timeout=30)
            if neatlogs.set_end_user(user, {"of": str(user)}):
                succeeded.append(user)

    for turn in range(20):
        root = recorded.tracer.start_span(f"root {turn}")
        threads = [threading.Thread(target=declare, args=(root, user)) for user in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        root.end()
        assert len(succeeded) == 1
        user = str(succeeded.pop())
        assert recorded.identity(f"root {turn}") == (user, {"of": user}, "set_end_user")
