"""OpenTelemetry itself behaves as before with our span processor added: sampling, limits, flushing, providers."""

from __future__ import annotations

import json
import threading

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

import neatlogs_otel as neatlogs
from neatlogs_otel import _registry, _warnings
from neatlogs_otel.testing import FixedIds
from support.recording import Recording, remote_parent


def run_a_program(provider: TracerProvider) -> None:
    """A program that knows nothing of this package."""
    tracer = provider.get_tracer("program")
    for at in range(20):
        with tracer.start_as_current_span(f"root {at}", attributes={"at": at}) as root:
            root.add_event("event", {"x": 1})
            with tracer.start_as_current_span("child", links=[trace_api.Link(root.get_span_context())]) as child:
                for key in range(12):
                    child.set_attribute(f"k{key}", "v" * 30)
    with tracer.start_as_current_span("entry", context=remote_parent(sampled=at % 2 == 0)):
        pass


@pytest.mark.parametrize(
    "sampler",
    [ALWAYS_ON, ALWAYS_OFF, ParentBased(TraceIdRatioBased(0.5)), TraceIdRatioBased(0.3)],
    ids=["always on", "always off", "half of all, by parent", "three in ten"],
)
@pytest.mark.parametrize(
    "limits",
    [SpanLimits(), SpanLimits(max_span_attributes=5, max_attribute_length=7)],
    ids=["usual limits", "tight limits"],
)
def test_spans_are_the_same(sampler, limits) -> None:
    """Without any identity, the spans of a program are the same with and without our span processor."""
    seen = []
    for ours in (False, True):
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, span_limits=limits, id_generator=FixedIds(), shutdown_on_exit=False)
        if ours:
            provider.add_span_processor(neatlogs.EndUserSpanProcessor(roots="entry"))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        run_a_program(provider)
        spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
        for span in spans:
            del span["start_time"], span["end_time"]
            for event in span["events"]:
                del event["timestamp"]
        seen.append(spans)
    assert seen[0] == seen[1]


def test_the_sampler_sees_what_it_saw(record) -> None:
    """trace() asks the sampler as any tracer does: same parent, the span's attributes, no identity among them."""
    asked: list[tuple[str, dict[str, object], bool]] = []

    class Asked(Sampler):
        def should_sample(
            self, parent_context, trace_id, name, kind=None, attributes=None, links=None, trace_state=None
        ):
            parent = trace_api.get_current_span(parent_context).get_span_context()
            asked.append((name, dict(attributes or {}), parent.is_valid))
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

        def get_description(self) -> str:
            return "asked"

    record(sampler=Asked())
    with neatlogs.trace("outer", end_user_id="alice", model="m"), neatlogs.trace("inner"):
        pass
    kinds = {"neatlogs.span.kind": "workflow", "openinference.span.kind": "WORKFLOW"}
    assert asked == [("outer", {"model": "m", **kinds}, False), ("inner", kinds, True)]


def test_recorded_but_not_sampled(record) -> None:
    """A span that is recorded without being sampled carries identity for the span processors that look at it."""

    class RecordOnly(Sampler):
        def should_sample(self, *args, **kwargs):
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "record only"

    seen: list[object] = []

    class Looks(SpanProcessor):
        def on_end(self, span) -> None:
            seen.append((span.attributes or {}).get("neatlogs.end_user.id"))

    recorded = record(sampler=RecordOnly())
    recorded.provider.add_span_processor(Looks())
    with neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert seen == ["alice"]
    assert recorded.spans == ()


def test_flushing_and_shutting_down(recorded) -> None:
    """force_flush() and shutdown() of the provider work as before, also twice."""
    assert recorded.provider.force_flush() is True
    recorded.provider.shutdown()
    recorded.provider.shutdown()
    with neatlogs.trace("after", end_user_id="alice"):
        pass


def test_span_processors_that_work_concurrently() -> None:
    """Under the SDK's concurrent span processor, hooks run in other threads and identity still lands."""
    exporter = InMemorySpanExporter()
    concurrent = ConcurrentMultiSpanProcessor()
    provider = TracerProvider(active_span_processor=concurrent, shutdown_on_exit=False)
    provider.add_span_processor(neatlogs.EndUserSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("root"):
        assert neatlogs.set_end_user("alice")
    concurrent._executor.shutdown()
    (root,) = exporter.get_finished_spans()
    assert (root.attributes or {})["neatlogs.end_user.id"] == "alice"


def test_several_providers(recorded) -> None:
    """A span of one provider under a root of another addresses that root."""
    other = Recording()
    with other.tracer.start_as_current_span("root"), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert other.id_of("root") == "alice"
    assert recorded.id_of("chat") is None


def test_a_child_pays_nothing(recorded) -> None:
    """A child span neither enters the registry nor takes its lock."""
    with recorded.tracer.start_as_current_span("root"):
        held = threading.Event()
        release = threading.Event()

        def hold() -> None:
            with _registry.registry._lock:
                held.set()
                release.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(30)
        recorded.tracer.start_span("child").end()
        release.set()
        holder.join()
    assert recorded.named("child").parent is not None


def test_a_foreign_kind_of_span(record, said) -> None:
    """A tracer whose spans are not the SDK's is served without errors."""

    class Foreign(trace_api.NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

    class ForeignTracer(trace_api.NoOpTracer):
        def start_span(self, name, context=None, **_):
            return Foreign(trace_api.SpanContext(1, 2, is_remote=False))

    class ForeignProvider(trace_api.TracerProvider):
        def get_tracer(self, *args, **kwargs):
            return ForeignTracer()

    from neatlogs_otel._provider import use_tracer_provider

    use_tracer_provider(ForeignProvider())
    with neatlogs.trace("chat", end_user_id="alice", tags="a", session_id="s"):
        neatlogs.set_end_user("bob")
    assert _warnings.count("internal") == _warnings.count("start_failed") == 0
