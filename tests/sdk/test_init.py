"""init() on a provider that the application has set: what it adds, where it sends, and what it refuses."""

from __future__ import annotations

from uuid import UUID

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel._provider import use_tracer_provider
from support.otlp_sink import OtlpSink, attributes
from support.recording import remote_parent


def test_the_application_s_provider_is_used(app, sink) -> None:
    """init() adds the end user to the spans of the application's provider and exports them with the added resource."""
    provider = neatlogs.init(
        workflow_name="chat", endpoint=sink.grpc_endpoint, user_id="operator", end_user_id="u1", project="p", tags=["a"]
    )
    assert provider is app.provider
    with app.tracer.start_as_current_span("by the application"):
        pass
    assert neatlogs.flush()
    [(resource, span)] = sink.spans_with_resources
    assert attributes(resource) == {
        "service.name": "shop",
        keys.OPERATOR_ID: "operator",
        keys.WORKFLOW_NAME: "chat",
        keys.PROJECT: "p",
        keys.TAGS: "a",
    }
    assert attributes(span) == {keys.END_USER_ID: "u1", keys.END_USER_SOURCE: "init"}


def test_other_exporters_see_what_they_saw(app, sink) -> None:
    """The application's exporter gets its spans with its own resource: what init() adds to it is on our copies only."""
    neatlogs.init(workflow_name="chat", endpoint=sink.grpc_endpoint, user_id="operator", mask=lambda _: {})
    with app.tracer.start_as_current_span("work", attributes={"k": "v"}):
        pass
    span = app.named("work")
    assert dict(span.resource.attributes) == {"service.name": "shop", keys.PROJECT: "of-the-app"}
    assert dict(span.attributes) == {"k": "v"}


def test_the_operator_is_never_an_end_user(app, sink) -> None:
    """`user_id` goes to the resource as `user.id` and nowhere else; no span carries it, and no end user comes of it."""
    neatlogs.init(endpoint=sink.grpc_endpoint, user_id="operator")
    with neatlogs.trace("chat"):
        pass
    neatlogs.flush()
    [(resource, span)] = sink.spans_with_resources
    assert attributes(resource)[keys.OPERATOR_ID] == "operator"
    assert "operator" not in attributes(span).values()
    assert not any(keys.is_identity_key(key) for key in attributes(span))


def test_a_per_request_user_beats_the_default(app, sink) -> None:
    """trace() names another user than init(): id, metadata and source are replaced together."""
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1", end_user_metadata={"plan": "free"})
    with neatlogs.trace("chat", end_user_id="u2"):
        pass
    assert app.identity("chat") == ("u2", None, "trace")


def test_sessions_and_tags(app, sink) -> None:
    """session_id is the session of every trace that names no other."""
    neatlogs.init(endpoint=sink.grpc_endpoint, session_id=UUID(int=1))
    with neatlogs.trace("one"):
        pass
    with neatlogs.trace("two", session_id="own"):
        pass
    assert app.session_of("one") == str(UUID(int=1))
    assert app.session_of("two") == "own"


def test_export_false_names_end_users_and_sends_nothing(app, sink) -> None:
    """init(export=False) leaves the sending to the application's exporters."""
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1", export=False)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    assert app.id_of("chat") == "u1"
    assert sink.requests == []


def test_roots_entry(app, sink) -> None:
    """init(roots="entry") names end users on entry spans, as EndUserSpanProcessor(roots="entry") does."""
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1", roots="entry")
    app.tracer.start_span("server", context=remote_parent()).end()
    assert app.id_of("server") == "u1"


def test_an_end_user_span_processor_of_the_application_stays_the_only_one(record, sink) -> None:
    """Where the application has added EndUserSpanProcessor itself, init() adds no second one and changes nothing."""
    recorded = record(roots="entry")
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1")
    recorded.tracer.start_span("server", context=remote_parent()).end()
    assert recorded.id_of("server") == "u1"


def test_a_provider_that_takes_no_span_processors(said) -> None:
    """A provider of another make is left alone, with one warning."""
    foreign = trace_api.NoOpTracerProvider()
    use_tracer_provider(foreign)
    assert neatlogs.init(end_user_id="u1") is foreign
    assert said.once("NoOpTracerProvider", "takes no span processors")
    assert neatlogs.flush()
    assert neatlogs.shutdown()


def test_calling_it_again_replaces_the_settings(app, said) -> None:
    """A second init() moves the export and the default to what it says, with one warning; nothing is sent twice."""
    with OtlpSink() as first, OtlpSink() as second:
        neatlogs.init(workflow_name="a", endpoint=first.grpc_endpoint, end_user_id="u1")
        with neatlogs.trace("one"):
            pass
        neatlogs.init(workflow_name="b", endpoint=second.http_endpoint, protocol="http/protobuf", end_user_id="u2")
        with neatlogs.trace("two"):
            pass
        assert neatlogs.flush()
        assert [span.name for span in first.spans] == ["one"]
        assert [span.name for span in second.spans] == ["two"]
        [(resource, span)] = second.spans_with_resources
        assert attributes(resource)[keys.WORKFLOW_NAME] == "b"
        assert attributes(span)[keys.END_USER_ID] == "u2"
        assert said.once("init() was called again")
        neatlogs.shutdown()


def test_calling_it_again_with_the_same_export_keeps_it(app, sink) -> None:
    """A second init() that differs in the end user alone keeps the exporter and what it has queued."""
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1")
    with neatlogs.trace("one"):
        pass
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u2")
    with neatlogs.trace("two"):
        pass
    neatlogs.flush()
    assert [attributes(span)[keys.END_USER_ID] for span in sink.spans] == ["u1", "u2"]
    assert len(sink.requests) == 1


def test_it_works_again_after_shutdown(app, sink, said) -> None:
    """init() after shutdown() exports again, without a warning."""
    neatlogs.init(endpoint=sink.grpc_endpoint)
    assert neatlogs.shutdown()
    with neatlogs.trace("lost"):
        pass
    neatlogs.init(endpoint=sink.grpc_endpoint)
    with neatlogs.trace("sent"):
        pass
    assert neatlogs.flush()
    assert [span.name for span in sink.spans] == ["sent"]
    assert said.nothing()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_exporter_of_the_application_to_the_same_place(protocol, nested, sink, said) -> None:
    """Where the application already exports to the endpoint, init() warns and sends nothing twice."""
    exporter: SpanExporter
    if protocol == "grpc":
        endpoint = f"localhost:{sink.grpc_port}"
        exporter = GrpcExporter(endpoint=sink.grpc_endpoint)
    else:
        endpoint = f"http://localhost:{sink.http_port}"
        exporter = HttpExporter(endpoint=f"{sink.http_endpoint}/v1/traces")
    provider = TracerProvider(shutdown_on_exit=False)
    wrapped = neatlogs.EndUserSpanExporter(exporter) if nested else exporter
    provider.add_span_processor(BatchSpanProcessor(wrapped))
    use_tracer_provider(provider)
    neatlogs.init(endpoint=endpoint, protocol=protocol, end_user_id="u1")
    with neatlogs.trace("chat"):
        pass
    neatlogs.flush()
    provider.shutdown()
    assert [attributes(span)[keys.END_USER_ID] for span in sink.spans] == ["u1"]
    assert said.once("already exports its spans to", "does not export there again")


def test_an_exporter_of_the_application_to_another_place(app, sink, said) -> None:
    """An OTLP exporter of the application to another endpoint is no reason to be silent."""
    with OtlpSink() as other:
        app.provider.add_span_processor(SimpleSpanProcessor(GrpcExporter(endpoint=other.grpc_endpoint)))
        neatlogs.init(endpoint=sink.grpc_endpoint)
        with neatlogs.trace("chat"):
            pass
        neatlogs.flush()
        assert len(sink.spans) == len(other.spans) == 1
        assert said.nothing()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_api_key_is_a_header(app, sink, protocol) -> None:
    """api_key travels as `x-api-key`, and headers=... with it, over both protocols."""
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    neatlogs.init("k-1", endpoint=endpoint, protocol=protocol, headers={"X-Tenant": "t"})
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    headers = sink.requests[0].headers
    assert (headers["x-api-key"], headers["x-tenant"]) == ("k-1", "t")


def test_the_api_key_of_the_environment(app, sink, monkeypatch) -> None:
    """`NEATLOGS_API_KEY` and `NEATLOGS_ENDPOINT` stand in for the arguments."""
    monkeypatch.setenv("NEATLOGS_API_KEY", "k-2")
    monkeypatch.setenv("NEATLOGS_ENDPOINT", sink.grpc_endpoint)
    neatlogs.init()
    with neatlogs.trace("chat"):
        pass
    neatlogs.flush()
    assert sink.requests[0].headers["x-api-key"] == "k-2"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_the_api_key_never_goes_to_a_standard_endpoint(app, sink, said, monkeypatch, protocol, variable) -> None:
    """An endpoint of the bare `OTEL_*` variables gets its own headers and never our key, and that is said."""
    monkeypatch.setenv(variable, sink.grpc_endpoint if protocol == "grpc" else f"{sink.http_endpoint}/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=theirs")
    neatlogs.init("k-1", headers={"x-tenant": "t"})
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    headers = sink.requests[0].headers
    assert "x-api-key" not in headers
    assert (headers["authorization"], headers["x-tenant"]) == ("theirs", "t")
    assert said.once("The API key is not sent", variable)
    assert "k-1" not in said.messages[0]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("api_key", [None, "k-1"])
def test_headers_of_the_standard_variables_never_go_to_our_endpoint(app, sink, monkeypatch, protocol, api_key) -> None:
    """Another vendor's token in `OTEL_EXPORTER_OTLP_HEADERS` is not sent to an endpoint that was named for us."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=theirs")
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    neatlogs.init(api_key, endpoint=endpoint, protocol=protocol)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    assert "authorization" not in sink.requests[0].headers


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ({"endpoint": "ftp://a"}, ValueError, "use http://HOST:PORT"),
        ({"endpoint": 4317}, TypeError, "endpoint must be a str"),
        ({"protocol": "http/json"}, ValueError, "use grpc or http/protobuf"),
        ({"roots": "all"}, ValueError, 'roots must be "trace" or "entry"'),
        ({"mask": "secret"}, TypeError, "mask must be callable"),
        ({"api_key": 7}, TypeError, "api_key must be a str"),
        ({"api_key": "k\nk"}, ValueError, "cannot be sent in a header"),
        ({"workflow_name": b"w"}, TypeError, "workflow_name must be a str"),
        ({"project": 1}, TypeError, "project must be a str"),
        ({"headers": "a=b"}, TypeError, "headers must be a mapping"),
        ({"headers": {"a": 1}}, TypeError, "headers must be a mapping"),
        ({"headers": {"a b": "c"}}, ValueError, "header 'a b' cannot be sent"),
        ({"headers": {"a": "c\r\nd: e"}}, ValueError, "header 'a' cannot be sent"),
    ],
)
def test_arguments_that_can_never_work_raise(app, arguments, error, part) -> None:
    """What can never work raises from init() with a message that says what does, and changes nothing."""
    with pytest.raises(error) as raised:
        neatlogs.init(end_user_id="u1", **arguments)
    assert part in str(raised.value)
    with neatlogs.trace("chat"):
        pass
    assert app.id_of("chat") is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NEATLOGS_ENDPOINT", "ftp://a"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ],
)
def test_a_bad_environment_is_logged_and_does_not_stop_the_service(app, said, monkeypatch, variable, value) -> None:
    """What can never work in an environment variable is one clear log line; end users are named all the same."""
    monkeypatch.setenv(variable, value)
    neatlogs.init(end_user_id="u1")
    with neatlogs.trace("chat"):
        pass
    assert app.id_of("chat") == "u1"
    assert said.once("Nothing is exported", value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"end_user_id": True}, "end_user_id of init() is refused"),
        ({"end_user_id": "x" * 1025}, "end_user_id of init() is refused"),
        ({"end_user_metadata": ["a"]}, "end_user_metadata of init() is refused"),
        ({"session_id": 1.5}, "session_id of init() is refused"),
        ({"user_id": object()}, "user_id of init() is refused"),
        ({"tags": 7}, "tags of init() are refused"),
    ],
)
def test_bad_identity_is_refused_with_a_warning(app, said, arguments, part) -> None:
    """Bad identity never raises, also from init(): it is refused with one warning."""
    neatlogs.init(export=False, **arguments)
    with neatlogs.trace("chat"):
        pass
    assert app.named("chat")
    assert said.once(part)


def test_an_odd_endpoint_is_noted(app, said) -> None:
    """A protocol on the port of the other one is legal, and noted once."""
    neatlogs.init(endpoint="http://127.0.0.1:4317", protocol="http/protobuf")
    assert said.once("port 4317 normally speaks grpc", "init(protocol=...)")


def test_a_unix_socket(app, tmp_path) -> None:
    """`unix:PATH` exports over gRPC through a Unix socket."""
    socket_path = tmp_path / "s"
    receiver = OtlpSink()
    receiver.listen_at(str(socket_path))
    with receiver:
        neatlogs.init(endpoint=f"unix:{socket_path}")
        with neatlogs.trace("chat"):
            pass
        assert neatlogs.flush()
        assert [span.name for span in receiver.spans] == ["chat"]
        neatlogs.shutdown()


def test_an_api_key_of_the_environment_that_no_header_can_hold(app, sink, said, monkeypatch) -> None:
    """A key with unusable characters in the environment is said, without the key, and the spans go without it."""
    monkeypatch.setenv("NEATLOGS_API_KEY", "k\u00e9y")
    neatlogs.init(endpoint=sink.grpc_endpoint)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    assert "x-api-key" not in sink.requests[0].headers
    assert said.once("NEATLOGS_API_KEY has characters")
    assert "k\u00e9y" not in said.messages[0]


def test_an_exporter_that_cannot_be_examined_is_none_of_ours(app, sink, said) -> None:
    """Span processors and exporters of other makes on the provider are passed over."""

    class Opaque(SpanExporter):
        def __init__(self) -> None:
            self._exporter = self  # An exporter that seems to stand inside itself.

        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    app.provider.add_span_processor(SimpleSpanProcessor(Opaque()))
    neatlogs.init(endpoint=sink.grpc_endpoint)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush()
    assert len(sink.spans) == 1
    assert said.nothing()
