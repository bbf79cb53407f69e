"""wrap() and the instrumentors that are installed: at most one becomes active, and its spans lie below the root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.programs import Result, installed_without, run_program

OPENINFERENCE = "openinference.instrumentation.openai"
OPENTELEMETRY = "opentelemetry.instrumentation.genai.openai"

# What each program begins with: a global provider, a local server, and what is reported of the spans.
SETUP = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import neatlogs_otel as neatlogs
    from support.fake_openai import FakeOpenAI
    import openai
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(neatlogs.EndUserSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    ASK = {"model": "gpt-test", "messages": [{"role": "user", "content": "?"}]}

    def spans():
        # [name, scope, name of the parent, end user] of every span; empties the exporter.
        found = exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in found}
        rows = [
            [
                span.name,
                span.instrumentation_scope.name,
                names.get(span.parent.span_id, "?") if span.parent else None,
                span.attributes.get("neatlogs.end_user.id"),
            ]
            for span in found
        ]
        exporter.clear()
        return rows

    def call(client):
        with FakeOpenAI() as server, neatlogs.identify(end_user_id="alice"):
            with client(base_url=server.openai_url, api_key="test") as wrapped:
                wrapped.chat.completions.create(**ASK)
                for chunk in wrapped.chat.completions.create(**ASK, stream=True):
                    pass
        return spans()
"""

CALL = (
    SETUP
    + """
    report(call(neatlogs.wrap(openai.OpenAI)))
"""
)

ROOT = ["OpenAI.chat.completions.create", "neatlogs_otel", None, "alice"]


def run(source: str, **settings: object) -> Result:
    # The instrumentations and the client warn of things that are not ours.
    return run_program(source, strict=False, **settings)


_OPENINFERENCE = ("openinference", "openinference_instrumentation")
_GENAI = ("opentelemetry/instrumentation/genai/openai", "opentelemetry_instrumentation_genai_openai")
_V2 = ("opentelemetry/instrumentation/openai_v2", "opentelemetry_instrumentation_openai_v2")


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is installed, without any of the three instrumentors, and with the maintained one of OpenTelemetry."""
    hidden = {
        "none": (*_OPENINFERENCE, *_GENAI, *_V2),
        "opentelemetry": (*_OPENINFERENCE, *_V2),
    }
    return {name: installed_without(tmp_path_factory.mktemp("installed"), *paths) for name, paths in hidden.items()}


def test_none_is_installed(site_packages) -> None:
    """Without an instrumentor calls get their roots, and one warning gives the exact command to run."""
    result = run(CALL, site_packages=site_packages["none"])
    assert result.report == [ROOT, ROOT]
    assert len(result.said) == 1
    assert "pip install openinference-instrumentation-openai" in result.said[0]


def test_openinference_comes_first() -> None:
    """With both kinds installed OpenInference's is activated alone, and its spans are children of the root."""
    result = run(CALL)
    child = ["ChatCompletion", OPENINFERENCE, ROOT[0], None]
    assert result.report == [child, ROOT, child, ROOT]
    assert result.said == []


def test_opentelemetry_comes_second(site_packages) -> None:
    """Without OpenInference's the instrumentor of OpenTelemetry is activated."""
    result = run(CALL, site_packages=site_packages["opentelemetry"])
    child = ["chat gpt-test", OPENTELEMETRY, ROOT[0], None]
    assert result.report == [child, ROOT, child, ROOT]
    assert result.said == []


def test_one_already_active_wins() -> None:
    """An instrumentor that the application has activated stays the only one, though another one would be preferred."""
    result = run(
        SETUP
        + """
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument()
    report(call(neatlogs.wrap(openai.OpenAI)))
    """
    )
    child = ["chat gpt-test", OPENTELEMETRY, ROOT[0], None]
    assert result.report == [child, ROOT, child, ROOT]
    assert result.said == []


def test_instrument_false_activates_none() -> None:
    """wrap(instrument=False) leaves the library as it is."""
    result = run(
        SETUP
        + """
    report(call(neatlogs.wrap(openai.OpenAI, instrument=False)))
    """
    )
    assert result.report == [ROOT, ROOT]
    assert result.said == []


BROKEN = {
    "ImportError: its dependency is missing": "raise ImportError('its dependency is missing')",
    "TypeError: not with this wrapt": """
class Some:
    is_instrumented_by_opentelemetry = False
    def instrument(self):
        raise TypeError("not with this wrapt")
""",
    # What OpenTelemetry's base class does where the library's version is not among those that it supports.
    "it does not support the installed version of the library": """
class Some:
    is_instrumented_by_opentelemetry = False
    def instrument(self):
        return None
""",
}


@pytest.mark.parametrize("reason", BROKEN)
def test_one_that_cannot_be_activated_costs_a_warning(site_packages, tmp_path, reason) -> None:
    """Where the preferred instrumentor cannot be activated, one warning says why, and the next one is activated."""
    installed = tmp_path / "site-packages"
    shutil.copytree(site_packages["opentelemetry"], installed, symlinks=True)
    (installed / "openinference").mkdir()
    (installed / "openinference" / "broken.py").write_text(BROKEN[reason])
    described = installed / "openinference_instrumentation_broken-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nopenai = openinference.broken:Some\n")
    result = run(CALL, site_packages=installed)
    assert [row[1] for row in result.report] == [OPENTELEMETRY, "neatlogs_otel"] * 2
    assert len(result.said) == 1
    assert f"openinference.broken:Some cannot be activated: {reason}" in result.said[0]


def test_inside_a_trace_the_instrumentation_speaks_for_itself() -> None:
    """Inside trace() a wrapped call adds nothing, and the instrumentation's span is a child of the trace's root."""
    result = run(
        SETUP
        + """
    with FakeOpenAI() as server, openai.OpenAI(base_url=server.openai_url, api_key="test") as client:
        wrapped = neatlogs.wrap(client)
        with neatlogs.trace("chat", end_user_id="bob"):
            wrapped.chat.completions.create(**ASK)
    report(spans())
    """
    )
    assert result.report == [
        ["ChatCompletion", OPENINFERENCE, "chat", None],
        ["chat", "neatlogs_otel", None, "bob"],
    ]


def test_streams_closed_early_and_read_elsewhere_under_an_instrumentor() -> None:
    """An instrumented stream that is closed early, dropped, or read in another thread is one trace with its child."""
    result = run(
        SETUP
        + """
    import gc, threading
    with FakeOpenAI() as server, openai.OpenAI(base_url=server.openai_url, api_key="test") as client:
        wrapped = neatlogs.wrap(client)
        with neatlogs.identify(end_user_id="alice"):
            closed = wrapped.chat.completions.create(**ASK, stream=True)
            dropped = wrapped.chat.completions.create(**ASK, stream=True)
            moved = wrapped.chat.completions.create(**ASK, stream=True)
        next(closed)
        closed.close()
        next(dropped)
        del dropped
        gc.collect()

        def consume():
            with trace.get_tracer("other").start_as_current_span("other trace"):
                for chunk in moved:
                    pass

        thread = threading.Thread(target=consume)
        thread.start()
        thread.join()
        del closed, moved
        neatlogs.flush()
    traces = {}
    for span in exporter.get_finished_spans():
        if span.name != "other trace":
            traces.setdefault(span.context.trace_id, []).append(span.name)
    report(sorted(sorted(names) for names in traces.values()))
    """
    )
    assert result.report == [["ChatCompletion", ROOT[0]]] * 3
