"""Pseudonyms in the shim: what leaves the process, on every way on which an identity comes in."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import neatlogs_otel as neatlogs
from neatlogs_otel import _allowed_metadata, _pseudonyms, middleware, testing
from neatlogs_otel import conventions as keys
from neatlogs_otel._allowed_metadata import AllowedMetadata
from neatlogs_otel._leaving import Leaving, chosen, set_leaving
from neatlogs_otel._pseudonyms import parse_keys
from neatlogs_otel._wrapping import wrap
from neatlogs_otel._zero_code import EndUserInstrumentor
from neatlogs_processor.core import allowed_metadata as processor_metadata
from neatlogs_processor.core import pseudonyms as processor_pseudonyms
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.pseudonymizing import Pseudonymizing
from neatlogs_processor.core.treatment import Treatment
from support.otlp_sink import OtlpSink, attributes
from support.pseudonym_cases import KEYS, cases
from support.recording import Recording, Waiting

KEY_FILE, METADATA_ALLOW = "NEATLOGS_PSEUDONYMIZE_KEY_FILE", "NEATLOGS_METADATA_ALLOW"
METADATA = {"email": "ali@example.com", "plan": "pro"}


def pseudonym(end_user_id: str) -> str:
    """What stands for the id under the keys of the shared cases."""
    return parse_keys(KEYS).pseudonym(end_user_id)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(KEYS, encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.fixture
def hiding(key_file: Path) -> None:
    """Ids leave as pseudonyms, and of metadata the plan."""
    set_leaving(chosen(key_file, "plan", {}))


def identity(recording: Recording, name: str) -> dict[str, object]:
    """The identity attributes of the one span of that name."""
    (span,) = (span for span in recording.spans if span.name == name)
    return {key: value for key, value in (span.attributes or {}).items() if keys.is_identity_key(key)}


def hidden(source: str, end_user_id: str = "u_812") -> dict[str, object]:
    """What a root carries of that id, with `METADATA`."""
    return {
        keys.END_USER_ID: pseudonym(end_user_id),
        keys.END_USER_METADATA: '{"plan":"pro"}',
        keys.END_USER_SOURCE: source,
    }


# The shared cases ---------------------------------------------------------------------------------------------------


@cases("key_files")
def test_a_file_of_keys_is_read_as_the_processor_does(case: dict[str, Any]) -> None:
    """The first key of the file writes, and no key of it is unknown."""
    found = parse_keys(case["text"])
    for key_id, secret in case["keys"]:
        made = parse_keys(f"{key_id} {secret}").pseudonym("u_812")
        assert found.pseudonym(made) == made
    first = case["keys"][0]
    assert found.pseudonym("u_812") == parse_keys(" ".join(first)).pseudonym("u_812")


@cases("refused_key_files")
def test_a_file_that_cannot_be_used_is_refused(case: dict[str, Any]) -> None:
    """What the processor refuses is refused here."""
    with pytest.raises(ValueError, match=r"line \d+: |no key"):
        parse_keys(case["text"])


@cases("ids")
def test_an_id_becomes_its_pseudonym(case: dict[str, Any]) -> None:
    """The pseudonym is the one that every language makes."""
    assert pseudonym(case["id"]) == case["pseudonym"]


@cases("unchanged")
def test_a_pseudonym_and_nobody_stay_as_they_are(case: dict[str, Any]) -> None:
    """What is a pseudonym already is not made into another one."""
    assert pseudonym(case["id"]) == case["id"]


@cases("metadata")
def test_metadata_leaves_by_its_allow_list(case: dict[str, Any]) -> None:
    """What is named stays, byte for byte."""
    assert AllowedMetadata(case["allow"]).of(case["text"]) == case["left"]


@cases("refused_metadata")
def test_what_is_no_json_object_is_refused(case: dict[str, Any]) -> None:
    """Nothing is let through that cannot be read as one JSON object."""
    with pytest.raises(ValueError, match="no JSON"):
        AllowedMetadata(["*"]).of(case["text"])


def test_the_shim_and_the_processor_read_alike() -> None:
    """The shim does not import the processor, so what both do is written twice: line for line."""
    for ours, theirs in (
        (_allowed_metadata._allowed, processor_metadata._allowed),
        (_allowed_metadata._inside, processor_metadata._inside),
        (_pseudonyms._key, processor_pseudonyms._key),
        (_pseudonyms._decoded, processor_pseudonyms._decoded),
    ):
        mine, other = (inspect.getsource(one).split('"""', 2)[-1] for one in (ours, theirs))
        assert mine == other


# Every way in -------------------------------------------------------------------------------------------------------


def _by_trace(_: Recording) -> None:
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        pass


def _by_span(_: Recording) -> None:
    neatlogs.span("root", end_user_id="u_812", end_user_metadata=METADATA)(lambda: None)()


def _by_identify(recording: Recording) -> None:
    with (
        neatlogs.identify(end_user_id="u_812", end_user_metadata=METADATA),
        recording.tracer.start_as_current_span("root"),
    ):
        pass


def _by_set_end_user(recording: Recording) -> None:
    with recording.tracer.start_as_current_span("root"):
        assert neatlogs.set_end_user("u_812", METADATA)


def _by_hand(recording: Recording) -> None:
    named = {keys.END_USER_ID: "u_812", keys.END_USER_METADATA: json.dumps(METADATA), keys.END_USER_SOURCE: "by hand"}
    with recording.tracer.start_as_current_span("root", attributes=named):
        pass


def _by_wrap(_: Recording) -> None:
    class Client:
        def root(self) -> None:
            neatlogs.set_end_user("u_812", METADATA)

    wrap(Client(), instrument=False).root()


def _by_middleware(recording: Recording) -> None:
    def application(_: Any, __: Any) -> list[bytes]:
        with recording.tracer.start_as_current_span("root"):
            return []

    served = middleware.WSGIEndUserMiddleware(application, get_end_user=lambda _: ("u_812", METADATA))
    list(served({}, lambda *_: None))


@pytest.mark.parametrize(
    ("way", "source"),
    [
        (_by_trace, "trace"),
        (_by_span, "span"),
        (_by_identify, "identify"),
        (_by_set_end_user, "set_end_user"),
        (_by_hand, "by hand"),
        (_by_wrap, "set_end_user"),
        (_by_middleware, "identify"),
    ],
)
def test_on_every_way_a_pseudonym_leaves(
    recorded: Recording, hiding: None, way: Callable[[Recording], None], source: str
) -> None:
    """However an identity comes to a root, the span carries its pseudonym and the allowed metadata."""
    way(recorded)
    (root,) = (span for span in recorded.spans if span.parent is None)
    assert identity(recorded, root.name) == hidden(source)


def test_the_process_default_leaves_as_a_pseudonym(recorded, default_user, hiding) -> None:
    """The end user of `init()` or of the environment is hidden as all others are."""
    default_user("u_812", METADATA)
    with recorded.tracer.start_as_current_span("root"):
        pass
    assert identity(recorded, "root") == hidden("init")


def test_what_was_set_by_hand_leaves_through_our_exporter_as_pseudonyms(
    record: Callable[..., Recording], key_file: Path, sink: OtlpSink
) -> None:
    """On resources, scopes, children, events and links, and on a root after its start: no raw id is on the wire."""
    named = {keys.END_USER_ID: "u_812", keys.END_USER_METADATA: json.dumps(METADATA)}
    recording = record(ours=False, resource=Resource({"service.name": "shop", **named}))
    neatlogs.init(endpoint=sink.grpc_endpoint, pseudonymize_key_file=key_file, metadata_allow=["plan"])
    tracer = recording.provider.get_tracer("some.instrumentation", attributes=named)
    with tracer.start_as_current_span("root") as root:
        link = trace_api.Link(root.get_span_context(), named)
        with tracer.start_as_current_span("child", attributes=named, links=[link]) as child:
            child.add_event("said", {**named, "neatlogs.end_user.name": "Ali"})
        root.set_attributes({keys.END_USER_ID: 812, "neatlogs.end_user.name": "Ali"})
    assert neatlogs.flush()
    spans = {span.name: span for span in sink.wait_for_spans(2)}
    sent = b"".join(request.body.SerializeToString() for request in sink.requests)
    assert not [text for text in (b"u_812", b"ali@example.com", b"Ali") if text in sent]
    hidden_here = {keys.END_USER_ID: pseudonym("u_812"), keys.END_USER_METADATA: '{"plan":"pro"}'}
    ((resource, _), *_) = sink.spans_with_resources
    for carrier in (resource, spans["child"], spans["child"].events[0], spans["child"].links[0]):
        assert hidden_here.items() <= attributes(carrier).items()
    assert attributes(spans["root"])[keys.END_USER_ID] == pseudonym("812")


def test_identity_set_by_hand_late_is_said(recorded, hiding, said) -> None:
    """Another exporter than ours sends it as it is, so a warning says so, without the id."""
    with recorded.tracer.start_as_current_span("root") as root:
        root.set_attribute(keys.END_USER_ID, "u_812")
    assert identity(recorded, "root")[keys.END_USER_ID] == "u_812"
    assert said.once("'root'", "set by hand", "set_end_user()")
    assert "u_812" not in said.messages[0]


def test_the_exporter_of_the_rule_lets_no_raw_id_out(record, hiding) -> None:
    """`EndUserSpanExporter` moves a resource's default to the root as a pseudonym; what needs no change is the same."""
    named = {keys.END_USER_ID: "u_812", keys.END_USER_METADATA: json.dumps(METADATA)}
    recording = record(ours=False, resource=Resource(named))
    inner = Waiting()
    recording.provider.add_span_processor(SimpleSpanProcessor(neatlogs.EndUserSpanExporter(inner)))
    with recording.tracer.start_as_current_span("root"), recording.tracer.start_as_current_span("child"):
        pass
    child, root = inner.get_finished_spans()
    assert root.attributes == hidden("resource")
    assert not child.attributes
    assert not child.resource.attributes


def test_a_span_without_identity_passes_as_the_same_object(recorded, hiding) -> None:
    """Where nothing has to be hidden nothing is copied."""
    allowed = set_leaving(None)
    assert allowed is not None
    scope = InstrumentationScope("scope", attributes={"kept": True})
    with recorded.provider.get_tracer("t", attributes=scope.attributes).start_as_current_span("root") as root:
        root.add_event("said", {"kept": True})
    (span,) = recorded.spans
    assert allowed.span(span) is span


# What the application sees ------------------------------------------------------------------------------------------


def test_the_application_goes_on_with_the_id_that_it_gave(recorded, hiding) -> None:
    """`current_end_user()` says id and metadata as they were given, and naming them again is no other end user."""
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        end_user = neatlogs.current_end_user()
        assert end_user is not None
        assert (end_user.id, end_user.metadata) == ("u_812", METADATA)
        assert neatlogs.set_end_user("u_812", METADATA)
        assert not neatlogs.set_end_user("u_2")
    assert identity(recorded, "root") == hidden("trace")


def test_a_pseudonym_that_is_given_stays(recorded, hiding) -> None:
    """An id that came from another service as a pseudonym is the same end user here."""
    with neatlogs.trace("root", end_user_id=pseudonym("u_812")):
        pass
    assert identity(recorded, "root")[keys.END_USER_ID] == pseudonym("u_812")


def test_a_processor_with_the_same_keys_changes_nothing(app, sink, key_file) -> None:
    """What the shim sends as pseudonyms passes a processor that makes pseudonyms as the very same bytes."""
    neatlogs.init(endpoint=sink.grpc_endpoint, pseudonymize_key_file=key_file, metadata_allow="plan")
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        pass
    assert neatlogs.flush()
    ours = processor_pseudonyms.parse_keys(KEYS)
    hiding = Pseudonymizing(lambda: ours, processor_metadata.AllowedMetadata(["plan"]))
    treat = Treatment(EndUserPolicy(), pseudonymize=hiding)
    for sent in sink.requests:
        body = sent.body.SerializeToString()
        assert treat(body).body is body


def test_metadata_of_which_nothing_may_leave_is_not_there(recorded, key_file) -> None:
    """With a key file and no allow-list no metadata leaves, and metadata alone leaves no trace of itself."""
    set_leaving(chosen(key_file, None, {}))
    with neatlogs.trace("named", end_user_id="u_812", end_user_metadata=METADATA):
        pass
    with neatlogs.trace("unnamed", end_user_metadata=METADATA):
        pass
    assert identity(recorded, "named") == {keys.END_USER_ID: pseudonym("u_812"), keys.END_USER_SOURCE: "trace"}
    assert identity(recorded, "unnamed") == {}


def test_an_allow_list_alone_leaves_ids_as_they_are(recorded) -> None:
    """`metadata_allow` works without keys too."""
    set_leaving(chosen(None, ("plan",), {}))
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        pass
    assert identity(recorded, "root") == {**hidden("trace"), keys.END_USER_ID: "u_812"}


def test_metadata_by_hand_that_is_no_json_does_not_leave(recorded, hiding, said) -> None:
    """What cannot be read cannot be known to be allowed; the id is not affected."""
    with recorded.tracer.start_as_current_span("root", attributes={keys.END_USER_METADATA: "ali@example.com"}):
        neatlogs.set_end_user("u_812")
    assert identity(recorded, "root")[keys.END_USER_METADATA] == "{}"
    assert said.once("end_user_metadata is refused", "no JSON object")


def test_a_limit_is_that_of_the_pseudonym(record, hiding, said) -> None:
    """A long id fits where its pseudonym does; where that does not fit there is no identity, rather than a part."""
    roomy, tight = (record(limits=SpanLimits(max_span_attribute_length=length)) for length in (67, 66))
    for recording in (roomy, tight):
        with recording.tracer.start_as_current_span("root"):
            neatlogs.set_end_user("x" * 200, METADATA)
    assert identity(roomy, "root") == hidden("set_end_user", "x" * 200)
    assert identity(tight, "root") == {}
    assert said.once("attribute value limit of 66")


def test_metadata_over_a_limit_costs_the_application_s_id_nothing(record, key_file) -> None:
    """Where allowed metadata does not fit, the application still sees the id that it gave."""
    set_leaving(chosen(key_file, "*", {}))
    recording = record(limits=SpanLimits(max_span_attribute_length=67))
    with recording.tracer.start_as_current_span("root"):
        neatlogs.set_end_user("u_812", {"plan": "x" * 100})
        end_user = neatlogs.current_end_user()
    assert end_user is not None
    assert (end_user.id, end_user.metadata) == ("u_812", {})
    assert identity(recording, "root")[keys.END_USER_ID] == pseudonym("u_812")


def test_a_capture_shows_the_ids_that_the_application_gives(hiding) -> None:
    """Tests of an application compare ids, whatever the environment hides."""
    with testing.capture() as captured, neatlogs.trace("chat", end_user_id="u_812"):
        pass
    end_user = captured.end_user_of("chat")
    assert end_user is not None
    assert end_user.id == "u_812"


def test_a_message_carries_the_pseudonym(recorded, hiding) -> None:
    """What `celery_task()` puts into a message is stored outside of the process, so it is hidden as well."""
    headers: dict[str, str] = {}
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        middleware._carry(headers)
    assert json.loads(headers[middleware.TASK_HEADER]) == {
        "end_user_id": pseudonym("u_812"),
        "end_user_metadata": {"plan": "pro"},
    }


# Where the keys come from -------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in (KEY_FILE, METADATA_ALLOW):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_the_variables_do_what_the_arguments_do(recorded, environment, key_file) -> None:
    """Without any call of ours, ids leave as pseudonyms; blank variables count as unset."""
    environment.setenv(KEY_FILE, str(key_file))
    environment.setenv(METADATA_ALLOW, " plan , region ")
    _by_set_end_user(recorded)
    assert identity(recorded, "root") == hidden("set_end_user")
    environment.setenv(KEY_FILE, "  ")
    environment.setenv(METADATA_ALLOW, " ")
    set_leaving(None)
    with neatlogs.trace("raw", end_user_id="u_812"):
        pass
    assert identity(recorded, "raw")[keys.END_USER_ID] == "u_812"


def test_an_argument_of_init_beats_its_variable(app, environment, key_file, tmp_path) -> None:
    """`init()` takes its own key file and names, and is told by the variable what it is not told itself."""
    environment.setenv(KEY_FILE, str(tmp_path / "missing"))
    environment.setenv(METADATA_ALLOW, "email")
    neatlogs.init(export=False, pseudonymize_key_file=str(key_file), metadata_allow="plan")
    _by_set_end_user(app)
    assert identity(app, "root") == hidden("set_end_user")
    app.exporter.clear()
    neatlogs.init(export=False, pseudonymize_key_file=key_file)
    _by_set_end_user(app)
    assert identity(app, "root")[keys.END_USER_METADATA] == '{"email":"ali@example.com"}'


@pytest.mark.parametrize(
    "content", [None, b"", b"h1 short\n", b"\xff\xfe", b"h1 " + b"00" * 32 + b"\nh1 " + b"11" * 32]
)
def test_a_key_file_that_cannot_be_used_is_an_error_of_init(app, tmp_path, content: bytes | None) -> None:
    """`init()` raises and changes nothing; the message names the file and none of its words."""
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    before = set_leaving(Leaving())
    set_leaving(before)
    with pytest.raises(ValueError, match="pseudonymize_key_file: ") as refused:
        neatlogs.init(export=False, pseudonymize_key_file=path)
    assert str(path) in str(refused.value)
    assert "short" not in str(refused.value)
    assert set_leaving(before) is before


@pytest.mark.parametrize(
    "arguments", [{"pseudonymize_key_file": 7}, {"metadata_allow": 7}, {"metadata_allow": [1]}, {"metadata_allow": {}}]
)
def test_arguments_of_another_type_are_errors(app, arguments: Mapping[str, Any]) -> None:
    """What can never work raises, as with every argument of `init()`."""
    with pytest.raises(TypeError, match=next(iter(arguments))):
        neatlogs.init(export=False, **arguments)


@pytest.mark.parametrize("on_resource", [False, True])
def test_a_variable_that_names_no_keys_lets_no_identity_out(
    record, environment, tmp_path, said, sink: OtlpSink, on_resource: bool
) -> None:
    """Fail closed: no id, no metadata, on no span and on no resource; one message says why, and nothing raises."""
    environment.setenv(KEY_FILE, str(tmp_path / "missing"))
    named = {keys.END_USER_ID: "u_812", keys.END_USER_METADATA: json.dumps(METADATA)}
    recording = record(ours=False, resource=Resource(named if on_resource else {}))
    neatlogs.init(endpoint=sink.grpc_endpoint, session_id="s_1")
    with neatlogs.trace("root", end_user_id="u_812", end_user_metadata=METADATA):
        assert neatlogs.set_end_user("u_812")
    with recording.tracer.start_as_current_span("by hand", attributes=named) as child:
        child.add_event("said", named)
    with recording.tracer.start_as_current_span("metadata", attributes={keys.END_USER_METADATA: json.dumps(METADATA)}):
        pass
    assert neatlogs.flush()
    spans = {span.name: attributes(span) for span in sink.wait_for_spans(3)}
    assert spans["root"][keys.SESSION_ID] == "s_1"
    sent = b"".join(request.body.SerializeToString() for request in sink.requests)
    assert not [text for text in (b"u_812", b"ali@example.com", b"pro") if text in sent]
    assert said.once("No end user leaves this process", "NEATLOGS_PSEUDONYMIZE_KEY_FILE", "cannot read")


def test_without_keys_a_message_carries_nobody(recorded, environment, tmp_path) -> None:
    """Where pseudonyms were asked for and cannot be made, a task's message names nobody."""
    environment.setenv(KEY_FILE, str(tmp_path / "missing"))
    headers: dict[str, str] = {}
    with neatlogs.identify(end_user_id="u_812"):
        middleware._carry(headers)
    assert headers == {}


def test_a_key_file_that_everybody_can_read_is_said(key_file, said) -> None:
    """As the processor does for its secret files."""
    key_file.chmod(0o644)
    chosen(key_file, None, {})
    assert said.once("Every user of this machine can read", str(key_file))


def test_zero_code_lets_no_identity_out_where_the_keys_are_missing(record, environment, tmp_path, said) -> None:
    """`opentelemetry-instrument` sets everything up, no end user leaves, and one message at the start says why."""
    environment.setenv(KEY_FILE, str(tmp_path / "missing"))
    environment.setenv("NEATLOGS_END_USER_ID", "u_812")
    recording = record(ours=False)
    EndUserInstrumentor().instrument(tracer_provider=recording.provider)
    assert said.once("No end user leaves this process")
    for _ in range(2):
        with recording.tracer.start_as_current_span("root"):
            pass
    assert [dict(span.attributes or {}) for span in recording.spans] == [{}, {}]
    assert len(said.messages) == 1
