"""`opentelemetry-instrument` and the declarative configuration file add `EndUserSpanProcessor` by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from neatlogs_otel import EndUserSpanProcessor
from neatlogs_otel import conventions as keys
from neatlogs_otel._otlp import span_processors
from neatlogs_otel._zero_code import NAME, EndUserInstrumentor
from support.otlp_sink import OtlpSink, attributes

INSTRUMENT = Path(sys.executable).parent / "opentelemetry-instrument"

# An application that knows nothing of this package.
APPLICATION = """
from opentelemetry import trace

tracer = trace.get_tracer("shop")
with tracer.start_as_current_span("job"):
    with tracer.start_as_current_span("step"):
        pass
"""

CONFIGURATION = """
file_format: "1.0-rc.3"
resource:
  attributes:
    - name: service.name
      value: shop
tracer_provider:
  processors:
    - simple:
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/traces
instrumentation/development:
  python:
    neatlogs_otel: {options}
"""


def run(tmp_path: Path, source: str, sink: OtlpSink, *command: str | Path, env: Mapping[str, str]) -> str:
    """Run a program and return what it said on standard error."""
    program = tmp_path / "app.py"
    program.write_text(textwrap.dedent(source), encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_", "PYTHON"))}
    done = subprocess.run(
        [*command, sys.executable, program],
        env={
            **clean,
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            # The other instrumentations of the tests' environment have no part in this, and take their time.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi,flask,django,celery,httpx,openai,wsgi,asgi,anthropic",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def named(sink: OtlpSink) -> dict[str, object]:
    """The end user's id on each span that arrived, by the span's name."""
    return {span.name: attributes(span).get(keys.END_USER_ID) for span in sink.wait_for_spans(2)}


def test_opentelemetry_instrument_adds_the_end_user(tmp_path: Path, sink) -> None:
    """An application without a line of ours exports its root with the end user of the environment."""
    said = run(
        tmp_path,
        APPLICATION,
        sink,
        INSTRUMENT,
        env={"NEATLOGS_END_USER_ID": "u_812", "NEATLOGS_END_USER_METADATA": '{"plan": "pro"}'},
    )
    assert named(sink) == {"job": "u_812", "step": None}
    root = next(span for span in sink.spans if span.name == "job")
    assert attributes(root)[keys.END_USER_METADATA] == '{"plan":"pro"}'
    assert "neatlogs" not in said


def test_what_is_wrong_in_the_environment_is_said(tmp_path: Path, sink) -> None:
    """Metadata that is no JSON is refused with a warning on standard error; the id stays."""
    said = run(
        tmp_path,
        APPLICATION,
        sink,
        INSTRUMENT,
        env={"NEATLOGS_END_USER_ID": "u_812", "NEATLOGS_END_USER_METADATA": "plan=pro"},
    )
    assert named(sink) == {"job": "u_812", "step": None}
    assert "end_user_metadata of NEATLOGS_END_USER_METADATA is refused" in said


def test_the_application_names_its_end_users_without_init(tmp_path: Path, sink) -> None:
    """Under `opentelemetry-instrument`, set_end_user() finds the root that an instrumentation has opened."""
    source = """
    import neatlogs_otel as neatlogs
    from opentelemetry import trace

    with trace.get_tracer("web").start_as_current_span("GET /"):
        with trace.get_tracer("web").start_as_current_span("handler"):
            assert neatlogs.set_end_user("u_1")
    """
    run(tmp_path, source, sink, INSTRUMENT, env={})
    assert named(sink) == {"GET /": "u_1", "handler": None}


def test_it_can_be_switched_off(tmp_path: Path, sink) -> None:
    """`OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` knows it by its name, as any instrumentation."""
    run(
        tmp_path,
        APPLICATION,
        sink,
        INSTRUMENT,
        env={"NEATLOGS_END_USER_ID": "u_812", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"fastapi,flask,{NAME}"},
    )
    assert named(sink) == {"job": None, "step": None}


def test_everything_can_be_switched_off(tmp_path: Path, sink) -> None:
    """`*` is how OpenTelemetry writes that no instrumentation is wanted, and this is one."""
    env = {"NEATLOGS_END_USER_ID": "u_812", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}
    run(tmp_path, APPLICATION, sink, INSTRUMENT, env=env)
    assert named(sink) == {"job": None, "step": None}


def test_an_instrumentation_that_fails_costs_nobody_the_end_user(tmp_path: Path, sink) -> None:
    """OpenTelemetry gives up at the first instrumentation that raises; this package had its turn before them all."""
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (broken / "entry_points.txt").write_text(
        "[opentelemetry_instrumentor]\nbroken = broken:Instrumentor\n", encoding="utf-8"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')\n", encoding="utf-8")
    env = {"NEATLOGS_END_USER_ID": "u_812", "PYTHONPATH": str(tmp_path)}
    said = run(tmp_path, APPLICATION, sink, INSTRUMENT, env=env)
    assert "Instrumenting of broken failed" in said
    assert named(sink) == {"job": "u_812", "step": None}


BEHIND_A_GATEWAY = f"""
from opentelemetry import trace
from opentelemetry.propagate import extract

incoming = extract({{"traceparent": "00-{"a" * 32}-{"b" * 16}-01"}})
with trace.get_tracer("web").start_as_current_span("GET /", context=incoming):
    with trace.get_tracer("web").start_as_current_span("handler"):
        pass
"""


@pytest.mark.parametrize(("roots", "end_user"), [("entry", "u_812"), ("trace", None), (" ", None)])
def test_a_variable_says_which_spans_count_as_roots(tmp_path: Path, sink, roots: str, end_user: str | None) -> None:
    """A service behind a gateway that starts the traces needs no line of code either: `NEATLOGS_ROOTS=entry`."""
    env = {"NEATLOGS_END_USER_ID": "u_812", "NEATLOGS_ROOTS": roots}
    said = run(tmp_path, BEHIND_A_GATEWAY, sink, INSTRUMENT, env=env)
    assert named(sink) == {"GET /": end_user, "handler": None}
    assert "NEATLOGS_ROOTS" not in said


def test_roots_that_are_not_known_cost_one_warning(tmp_path: Path, sink) -> None:
    """The default counts then, and standard error says so once, however often the package has its turn."""
    env = {"NEATLOGS_END_USER_ID": "u_812", "NEATLOGS_ROOTS": "gateway"}
    said = run(tmp_path, BEHIND_A_GATEWAY, sink, INSTRUMENT, env=env)
    assert named(sink) == {"GET /": None, "handler": None}
    assert said.count('NEATLOGS_ROOTS is neither "trace" nor "entry"') == 1


def test_the_configuration_file_says_more_than_the_variable(tmp_path: Path, sink) -> None:
    """What the file says of roots counts, whichever of the two has its turn first."""
    file = tmp_path / "otel.yaml"
    file.write_text(CONFIGURATION.format(endpoint=sink.http_endpoint, options="{roots: entry}"), encoding="utf-8")
    env = {"OTEL_CONFIG_FILE": str(file), "NEATLOGS_END_USER_ID": "u_812", "NEATLOGS_ROOTS": "trace"}
    run(tmp_path, BEHIND_A_GATEWAY, sink, INSTRUMENT, env=env)
    assert named(sink) == {"GET /": "u_812", "handler": None}


def test_the_configuration_file_adds_the_end_user(tmp_path: Path, sink) -> None:
    """A declarative configuration file that names it under its instrumentations needs no line in the application."""
    file = tmp_path / "otel.yaml"
    file.write_text(CONFIGURATION.format(endpoint=sink.http_endpoint, options="{}"), encoding="utf-8")
    env = {"OTEL_CONFIG_FILE": str(file), "NEATLOGS_END_USER_ID": "u_812"}
    run(tmp_path, APPLICATION, sink, INSTRUMENT, env=env)
    assert named(sink) == {"job": "u_812", "step": None}


def test_a_program_that_loads_the_configuration_file_itself(tmp_path: Path, sink) -> None:
    """Without `opentelemetry-instrument`, the file alone adds it, and may say which spans count as roots."""
    file = tmp_path / "otel.yaml"
    file.write_text(CONFIGURATION.format(endpoint=sink.http_endpoint, options="{roots: entry}"), encoding="utf-8")
    source = f"""
    from opentelemetry.configuration import configure_sdk, load_config_file
    configure_sdk(load_config_file({str(file)!r}))
    from opentelemetry import trace
    from opentelemetry.propagate import extract

    incoming = extract({{"traceparent": "00-{"a" * 32}-{"b" * 16}-01"}})
    with trace.get_tracer("web").start_as_current_span("GET /", context=incoming):
        with trace.get_tracer("web").start_as_current_span("handler"):
            pass
    """
    run(tmp_path, source, sink, env={"NEATLOGS_END_USER_ID": "u_812"})
    assert named(sink) == {"GET /": "u_812", "handler": None}


@pytest.fixture
def instrumentor() -> EndUserInstrumentor:
    """One that nobody has activated; there is one in a process."""
    EndUserInstrumentor._instance = None
    return EndUserInstrumentor()


def ours_on(provider: TracerProvider) -> list[EndUserSpanProcessor]:
    return [processor for processor in span_processors(provider) if isinstance(processor, EndUserSpanProcessor)]


def test_it_is_added_once(instrumentor: EndUserInstrumentor) -> None:
    """A provider that has an EndUserSpanProcessor, from whatever source, gets no second one."""
    provider = TracerProvider(shutdown_on_exit=False)
    assert not instrumentor.is_instrumented_by_opentelemetry
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    EndUserInstrumentor().instrument(tracer_provider=provider)
    assert len(ours_on(provider)) == 1
    assert instrumentor.is_instrumented_by_opentelemetry


def test_roots_may_be_said_later(instrumentor: EndUserInstrumentor) -> None:
    """The one span processor that it has added follows the configuration file, which may be read after it."""
    provider = TracerProvider(shutdown_on_exit=False)
    instrumentor.instrument(tracer_provider=provider)
    instrumentor.instrument(tracer_provider=provider, roots="entry")
    instrumentor.instrument(tracer_provider=provider)
    (ours,) = ours_on(provider)
    assert ours._entry


def test_one_that_the_application_has_added_stays_as_it_is(instrumentor: EndUserInstrumentor) -> None:
    """Who added a span processor in code has said there which spans count as roots."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(EndUserSpanProcessor())
    instrumentor.instrument(tracer_provider=provider, roots="entry")
    (ours,) = ours_on(provider)
    assert not ours._entry


def test_options_that_cannot_be_used_are_said(instrumentor: EndUserInstrumentor, said) -> None:
    """A misspelled option or value costs a warning, and the span processor is added all the same."""
    provider = TracerProvider(shutdown_on_exit=False)
    instrumentor.instrument(tracer_provider=provider, root="entry", roots="every")
    assert len(ours_on(provider)) == 1
    assert len(said.messages) == 2


def test_without_a_provider_it_says_so(instrumentor: EndUserInstrumentor, said) -> None:
    """A provider that takes no span processors is left alone, with one warning."""
    instrumentor.instrument(tracer_provider=object())
    assert said.once("Traces get no end user", "opentelemetry-distro")
    assert not instrumentor.is_instrumented_by_opentelemetry
