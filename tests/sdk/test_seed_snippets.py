"""The first lines that users type, as they type them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import neatlogs_otel as neatlogs
from support.programs import run_program


def request_of(user_id: object, plan: str = "pro") -> SimpleNamespace:
    return SimpleNamespace(user=SimpleNamespace(id=user_id, plan=plan))


def test_trace_in_a_web_handler(recorded) -> None:
    """The per-request form names the end user and their metadata on the trace's root, for each request its own."""

    def handler(req: SimpleNamespace) -> str:
        with neatlogs.trace("chat", end_user_id=str(req.user.id), end_user_metadata={"plan": req.user.plan}):
            recorded.tracer.start_span("llm call").end()
            return "hello"

    for user_id, plan in ((812, "pro"), (813, "free")):
        assert handler(request_of(user_id, plan)) == "hello"
        assert recorded.identity("chat") == (str(user_id), {"plan": plan}, "trace")
        assert recorded.identity("llm call") == (None, None, None)
        recorded.exporter.clear()


async def test_trace_in_an_async_web_handler(recorded) -> None:
    """The same in asynchronous handlers that run at once."""

    async def handler(req: SimpleNamespace) -> None:
        with neatlogs.trace(f"chat {req.user.id}", end_user_id=str(req.user.id)):
            await asyncio.sleep(0)

    await asyncio.gather(*(handler(request_of(user)) for user in range(5)))
    assert [recorded.id_of(f"chat {user}") for user in range(5)] == ["0", "1", "2", "3", "4"]


def test_decorated_handler_with_a_callable(recorded, said) -> None:
    """A handler decorated at import time names each call's own end user."""

    @neatlogs.span(kind="WORKFLOW", end_user_id=lambda request: request.user.id)
    def handler(request: SimpleNamespace) -> str:
        return "hello"

    for user_id in ("u_1", "u_2"):
        handler(request_of(user_id))
        assert recorded.identity("handler") == (user_id, None, "span")
        assert (recorded.named("handler").attributes or {})["neatlogs.span.kind"] == "workflow"
        recorded.exporter.clear()
    assert said.nothing()


def test_decorated_handler_with_a_constant(recorded, said) -> None:
    """A constant serves every call; where trace() names others in the same process, that warns once."""

    @neatlogs.span(kind="WORKFLOW", end_user_id="u_812")
    def handler() -> None:
        pass

    handler()
    handler()
    assert said.nothing()
    with neatlogs.trace("chat", end_user_id="u_813"):
        pass
    handler()
    handler()
    assert {(s.attributes or {})["neatlogs.end_user.id"] for s in recorded.spans if s.name == "handler"} == {"u_812"}
    assert said.once("handler", "constant")


def test_init_in_a_single_user_process() -> None:
    """init(end_user_id=...) names the end user of every trace of the process, whoever opens it."""
    ran = run_program("""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        import neatlogs_otel as neatlogs

        neatlogs.init(api_key="key", workflow_name="batch-job", end_user_id="u_812", export=False)

        exporter = InMemorySpanExporter()
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        with trace.get_tracer("some.library").start_as_current_span("by a library"):
            pass
        with neatlogs.trace("by trace()"), neatlogs.trace("a child"):
            pass
        with neatlogs.trace("another user", end_user_id="u_813"):
            pass
        keys = ("neatlogs.end_user.id", "neatlogs.end_user.source")
        report({span.name: [span.attributes.get(key) for key in keys] for span in exporter.get_finished_spans()})
    """)
    assert ran.report == {
        "by a library": ["u_812", "init"],
        "a child": [None, None],
        "by trace()": ["u_812", "init"],
        "another user": ["u_813", "trace"],
    }
    assert ran.said == []
