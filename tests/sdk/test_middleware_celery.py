"""`celery_task()` with a real worker on an in-memory broker, with and without OpenTelemetry's instrumentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from opentelemetry.instrumentation.celery import CeleryInstrumentor

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel.middleware import TASK_HEADER, celery_task
from support.recording import Recording

GetEndUser = Callable[[Any, Any, Any], object]


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Signals are the process's: what celery_task() has connected is taken away. Workers leave logging alone."""

    def leave_logging(**_: object) -> None: ...

    signals.setup_logging.connect(leave_logging)
    yield
    signals.setup_logging.disconnect(leave_logging)
    signals.before_task_publish.disconnect(dispatch_uid="neatlogs_otel")


@contextmanager
def worker(
    recorded: Recording, get_end_user: GetEndUser | None = None, *, instrumented: bool = False, **instrumentation: Any
) -> Iterator[Any]:
    """A worker in a thread; yields a task of it, which opens a trace and returns its id and its end user's."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", task_cls=celery_task(get_end_user))

    @app.task(bind=True, shared=False)
    def answer(self: Any, customer: str | None = None) -> list[object]:
        with neatlogs.trace("answer"):
            end_user = neatlogs.current_end_user()
            return [self.request.id, end_user.id if end_user else None]

    instrumentor = CeleryInstrumentor()
    if instrumented:
        instrumentor.instrument(tracer_provider=recorded.provider, **instrumentation)
    try:
        with start_worker(app, perform_ping_check=False, pool="solo", shutdown_timeout=30):
            yield answer
    finally:
        if instrumented:
            instrumentor.uninstrument()
        app.close()


def of(result: Any) -> object:
    """Whom the task served; it was run with its own request."""
    task_id, end_user_id = result.get(timeout=60)
    assert task_id == result.id
    return end_user_id


def roots_by_user(recorded: Recording) -> list[tuple[str, object]]:
    return [(s.name, (s.attributes or {}).get(keys.END_USER_ID)) for s in recorded.spans if s.parent is None]


def test_the_publisher_s_end_user_travels_with_the_task(recorded, said) -> None:
    """The traces that a task opens have the end user, metadata and session of the request that published it."""
    with worker(recorded) as answer:
        with neatlogs.trace("request", end_user_id="u_1", end_user_metadata={"plan": "pro"}, session_id="s_1"):
            first = answer.delay()
        with neatlogs.identify(end_user_id="u_2"):
            second = answer.delay()
        third = answer.delay()
        assert [of(first), of(second), of(third)] == ["u_1", "u_2", None]
    root = next(span for span in recorded.spans if span.name == "answer")
    assert (root.attributes or {})[keys.END_USER_METADATA] == '{"plan":"pro"}'
    assert (root.attributes or {})[keys.SESSION_ID] == "s_1"
    assert said.nothing()


def test_a_task_with_a_trace_of_its_own_is_named(recorded, said) -> None:
    """Where the instrumentation links traces instead of continuing them, its root has the publisher's end user."""
    with worker(recorded, instrumented=True, use_span_links=True) as answer:
        with neatlogs.trace("request", end_user_id="u_1"):
            result = answer.delay()
        assert of(result) == "u_1"
    assert {user for name, user in roots_by_user(recorded)} == {"u_1"}
    assert {name.partition("/")[0] for name, _ in roots_by_user(recorded)} == {"request", "run"}
    assert said.nothing()


def test_a_continued_trace_has_the_end_user_of_its_root(recorded, said) -> None:
    """Where the publisher's trace goes on in the worker, its root keeps the end user, and nothing is said."""
    with worker(recorded, instrumented=True) as answer:
        with neatlogs.trace("request", end_user_id="u_1"):
            result = answer.delay()
        result.get(timeout=60)
    assert roots_by_user(recorded) == [("request", "u_1")]
    assert said.nothing()


def test_a_callable_names_the_end_user_from_the_arguments(recorded, said) -> None:
    """With get_end_user nothing travels, and each task has the end user that its own arguments say."""
    with worker(recorded, lambda task, args, kwargs: kwargs.get("customer")) as answer:
        with neatlogs.identify(end_user_id="somebody"):
            results = [answer.delay(customer=customer) for customer in ("u_1", None, "u_2")]
        assert [of(result) for result in results] == ["u_1", None, "u_2"]
    assert said.nothing()


def test_what_the_callable_does_wrong_never_reaches_the_task(recorded, default_user, said) -> None:
    """The task runs, its trace has no end user (not the default either), and one warning says why."""

    def failing(task: Any, args: Any, kwargs: Any) -> str:
        raise KeyError("a secret")

    default_user("by-init")
    with worker(recorded, failing) as answer:
        assert [of(answer.delay()), of(answer.delay())] == [None, None]
    assert said.once("celery_task(get_end_user=...)", "it raised KeyError")


def test_an_eager_task_and_a_direct_call_run_within_the_caller(recorded, said) -> None:
    """Nothing is published, so the end user of the caller's own trace stands."""
    with worker(recorded) as answer, neatlogs.trace("request", end_user_id="u_1"):
        assert answer.apply().get()[1] == "u_1"
        assert answer()[1] == "u_1"
    assert said.nothing()


def test_a_header_that_cannot_be_used_is_refused(recorded, said) -> None:
    """Whatever a publisher wrote there, the task runs without an end user, and one warning names the header."""
    with worker(recorded) as answer:
        for header in ("u_1", "[1]", "7", '{"id": "u_1"}', '{"end_user_id": true}'):
            assert of(answer.apply_async(headers={TASK_HEADER: header})) is None, header
    assert said.once(TASK_HEADER)


def test_a_publisher_may_write_the_header_itself(recorded, said) -> None:
    """A header that is there already is not replaced; a program without this package can send it."""
    with worker(recorded) as answer, neatlogs.identify(end_user_id="somebody"):
        header = json.dumps({"end_user_id": "u_1"})
        assert of(answer.apply_async(headers={TASK_HEADER: header})) == "u_1"
    assert said.nothing()
