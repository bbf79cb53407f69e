"""init() as programs use it: once per process, before, after or without the application's own provider."""

from __future__ import annotations

import pytest

from support.otlp_sink import attributes
from support.programs import run_program


def test_without_a_provider_one_is_made(sink) -> None:
    """Where no provider is set, init() makes one, sets it, and a short program's spans arrive without a flush."""
    result = run_program(
        """
        from opentelemetry import trace
        import neatlogs_otel as neatlogs
        provider = neatlogs.init(workflow_name="batch-job", end_user_id="u_812", user_id="cron")
        report(trace.get_tracer_provider() is provider)
        with trace.get_tracer("some.instrumentation").start_as_current_span("by an instrumentation"):
            pass
        """,
        env={"NEATLOGS_ENDPOINT": sink.grpc_endpoint, "OTEL_SERVICE_NAME": "jobs"},
    )
    assert result.report is True
    assert result.stderr == ""
    [(resource, span)] = sink.spans_with_resources
    assert attributes(resource)["service.name"] == "jobs"
    assert attributes(resource)["neatlogs.workflow_name"] == "batch-job"
    assert attributes(resource)["user.id"] == "cron"
    assert attributes(span) == {"neatlogs.end_user.id": "u_812", "neatlogs.end_user.source": "init"}


def test_a_service_without_a_name_is_named_after_its_workflow(sink) -> None:
    """Where OpenTelemetry finds no service name, a provider that init() makes takes the workflow's."""
    run_program(
        """
        import neatlogs_otel as neatlogs
        neatlogs.init(workflow_name="batch-job")
        with neatlogs.trace("run"):
            pass
        """,
        env={"NEATLOGS_ENDPOINT": sink.grpc_endpoint},
    )
    [(resource, _)] = sink.spans_with_resources
    assert attributes(resource)["service.name"] == "batch-job"


APP_SETUP = """
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        import neatlogs_otel as neatlogs
        exporter = InMemorySpanExporter()
        own = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=SHUTDOWN)
        own.add_span_processor(SimpleSpanProcessor(exporter))
"""


@pytest.mark.parametrize("shutdown_on_exit", [True, False])
def test_after_the_application_s_provider(sink, shutdown_on_exit) -> None:
    """init() after the application's set-up uses its provider; what is queued at exit arrives either way."""
    result = run_program(
        APP_SETUP.replace("SHUTDOWN", str(shutdown_on_exit))
        + """
        trace.set_tracer_provider(own)
        used = neatlogs.init(endpoint=sys.argv[1], workflow_name="chat")
        with neatlogs.trace("chat", end_user_id="alice"):
            pass
        [span] = exporter.get_finished_spans()
        report([used is own, span.attributes["neatlogs.end_user.id"], dict(span.resource.attributes)])
        """,
        sink.grpc_endpoint,
    )
    assert result.report == [True, "alice", {"service.name": "shop"}]
    assert result.stderr == ""
    [(resource, _)] = sink.spans_with_resources
    assert attributes(resource) == {"service.name": "shop", "neatlogs.workflow_name": "chat"}


def test_before_the_application_s_provider(sink) -> None:
    """A provider that is set after init() is refused by OpenTelemetry, which says so; the spans still reach us."""
    result = run_program(
        APP_SETUP.replace("SHUTDOWN", "True")
        + """
        used = neatlogs.init(endpoint=sys.argv[1])
        trace.set_tracer_provider(own)
        with neatlogs.trace("chat", end_user_id="alice"):
            pass
        report([trace.get_tracer_provider() is used, len(exporter.get_finished_spans())])
        """,
        sink.grpc_endpoint,
    )
    assert result.report == [True, 0]
    assert "Overriding of current TracerProvider is not allowed" in result.stderr
    assert [span.name for span in sink.spans] == ["chat"]


def test_calls_before_init_work(sink) -> None:
    """Before init() everything runs, and one warning says that nothing is recorded; what comes after it is sent."""
    result = run_program(
        """
        import neatlogs_otel as neatlogs

        @neatlogs.span(end_user_id="alice")
        def work():
            return neatlogs.set_end_user("bob")

        with neatlogs.trace("early", end_user_id="alice"), neatlogs.identify(end_user_id="x"):
            work()
        neatlogs.wrap(work, instrument=False)()
        assert neatlogs.flush() and neatlogs.shutdown()
        neatlogs.init(endpoint=sys.argv[1])
        with neatlogs.trace("late", end_user_id="alice"):
            pass
        """,
        sink.grpc_endpoint,
    )
    assert [span.name for span in sink.spans] == ["late"]
    assert sum("No TracerProvider is set" in message for message in result.said) == 1


def test_instrumentations_set_up_before_init_take_part(sink) -> None:
    """A tracer that an instrumentation has asked for before init() works after it."""
    run_program(
        """
        from opentelemetry import trace
        import neatlogs_otel as neatlogs
        tracer = trace.get_tracer("some.instrumentation")
        neatlogs.init(endpoint=sys.argv[1], end_user_id="u_812")
        with tracer.start_as_current_span("request"):
            pass
        """,
        sink.grpc_endpoint,
    )
    assert attributes(sink.spans[0])["neatlogs.end_user.id"] == "u_812"


def test_a_disabled_sdk_is_respected(sink) -> None:
    """With `OTEL_SDK_DISABLED` nothing is recorded, nothing is sent, and nothing fails."""
    result = run_program(
        """
        import neatlogs_otel as neatlogs
        neatlogs.init(endpoint=sys.argv[1], end_user_id="u_812")
        with neatlogs.trace("chat", end_user_id="alice"):
            pass
        report([neatlogs.wrap(lambda: 42, instrument=False)(), neatlogs.flush()])
        """,
        sink.grpc_endpoint,
        env={"OTEL_SDK_DISABLED": "true"},
    )
    assert result.report == [42, True]
    assert sink.requests == []


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),  # what the SDK says itself
        ("OTEL_PYTHON_TRACER_PROVIDER", "nonsense", "OTEL_PYTHON_TRACER_PROVIDER"),
    ],
)
def test_a_provider_that_cannot_be_made(sink, variable, value, cause) -> None:
    """Where the environment keeps OpenTelemetry from making a provider, the log says so, and the application runs."""
    result = run_program(
        """
        import neatlogs_otel as neatlogs
        neatlogs.init(endpoint=sys.argv[1], end_user_id="u_812")
        with neatlogs.trace("chat", end_user_id="alice"), neatlogs.identify(end_user_id="bob"):
            neatlogs.set_end_user("carol")
        neatlogs.init(endpoint=sys.argv[1])
        report([neatlogs.wrap(lambda: 42, instrument=False)(), neatlogs.flush(), neatlogs.shutdown()])
        """,
        sink.grpc_endpoint,
        env={variable: value},
    )
    assert result.report == [42, True, True]
    assert result.stderr.count("Nothing is recorded") == 1
    assert cause in result.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_export_survives_a_fork(sink, protocol) -> None:
    """Parent and child both export after a fork; what was queued at the fork is sent once, by the parent."""
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    run_program(
        """
        import os
        import neatlogs_otel as neatlogs
        neatlogs.init(endpoint=sys.argv[1], protocol=sys.argv[2], end_user_id="u_812")
        with neatlogs.trace("sent before the fork"):
            pass
        assert neatlogs.flush()
        with neatlogs.trace("queued at the fork"):
            pass
        if os.fork() == 0:
            with neatlogs.trace("child", end_user_id="alice"):
                pass
            assert neatlogs.flush()
            os._exit(0)
        _, status = os.wait()
        assert status == 0
        with neatlogs.trace("parent"):
            pass
        """,
        endpoint,
        protocol,
        strict=False,  # Newer Pythons warn of every fork in a process with threads.
    )
    assert sorted(span.name for span in sink.spans) == [
        "child",
        "parent",
        "queued at the fork",
        "sent before the fork",
    ]


def test_after_shutdown_a_new_init_exports_at_exit_again(sink) -> None:
    """init() after shutdown() exports what is queued at exit, though the provider no longer shuts down by itself."""
    run_program(
        """
        import neatlogs_otel as neatlogs
        neatlogs.init(endpoint=sys.argv[1], workflow_name="first")
        assert neatlogs.shutdown()
        neatlogs.init(endpoint=sys.argv[1], workflow_name="second")
        with neatlogs.trace("chat"):
            pass
        """,
        sink.grpc_endpoint,
    )
    [(resource, span)] = sink.spans_with_resources
    assert (span.name, attributes(resource)["neatlogs.workflow_name"]) == ("chat", "second")
