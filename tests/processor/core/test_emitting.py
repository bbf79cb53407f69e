"""What identity looks like under the keys of backends: where it is written, and where it has no place any more."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.payloads import request as batch
from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import BACKENDS, SDKS, read_identity_keys
from neatlogs_processor.core.metadata_text import MAX_METADATA_CHARS
from neatlogs_processor.core.policy import MAX_REPORTED_OVERRIDES, EndUserPolicy, Enforced, Place
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.core.treatment import Treatment
from support.byte_orders import BYTE_ORDERS, in_byte_order
from support.owner_oracle import oracle_edit
from support.spans import child, request, root
from support.wire_forms import read_fields

STRICT = EndUserPolicy()
ENTRY = EndUserPolicy("entry", frozenset({"shop"}))
IDENTITY = {
    "neatlogs__end_user__id": "u_812",
    "neatlogs__end_user__metadata": '{"company":{"size":40},"none":null,"plan":"pro","seats":3}',
    "neatlogs__end_user__source": "trace",
    "neatlogs__session__id": "s_1",
}
WHOLE = {key.replace("__", "."): value for key, value in IDENTITY.items()}


def treat(body: bytes, keys: str = "user.id,session.id", *, policy: EndUserPolicy = STRICT) -> Enforced:
    """Enforce and emit."""
    return Treatment(policy, emit=Emitting(read_identity_keys(keys.split(","))))(body)


def attributes(body: bytes, name: str = "root") -> dict[str, str]:
    """The attributes of a span by key; no key may stand there twice."""
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        for span in resource_spans.scope_spans[0].spans:
            if span.name == name:
                found = {one.key: one.value.string_value for one in span.attributes}
                assert len(found) == len(span.attributes)
                return found
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("phoenix", {"user.id": "u_812", "session.id": "s_1", "metadata": WHOLE["neatlogs.end_user.metadata"]}),
        ("mlflow", {"user.id": "u_812", "session.id": "s_1"}),
        (
            "langfuse",
            {
                "langfuse.user.id": "u_812",
                "user.id": "u_812",
                "langfuse.session.id": "s_1",
                "session.id": "s_1",
                "langfuse.trace.metadata.company": '{"size":40}',
                "langfuse.trace.metadata.plan": "pro",
                "langfuse.trace.metadata.seats": "3",
            },
        ),
        (
            "datadog",
            {"usr.id": "u_812", "session_id": "s_1", "usr.company": '{"size":40}', "usr.plan": "pro", "usr.seats": "3"},
        ),
        ("semconv", {"user.id": "u_812", "enduser.id": "u_812", "session.id": "s_1"}),
    ],
)
def test_each_backend_finds_its_keys_on_the_root(backend: str, expected: dict[str, str]) -> None:
    """A preset writes what the backend reads, beside what stands there; children get nothing."""
    body = request(root(**IDENTITY), child())
    left = Treatment(STRICT, emit=Emitting(BACKENDS[backend]))(body).body
    assert attributes(left) == WHOLE | expected
    assert attributes(left, "child") == {}


def test_every_backend_has_a_case() -> None:
    """No preset is without a test of what it writes."""
    (mark,) = (one for one in test_each_backend_finds_its_keys_on_the_root.pytestmark if one.name == "parametrize")
    assert {case[0] for case in mark.args[1]} == set(BACKENDS)


def test_a_key_that_is_there_stays() -> None:
    """A root that says something under an emitted key keeps it, and gets the others."""
    body = request(root(user__id="somebody", **IDENTITY))
    assert attributes(treat(body).body) == WHOLE | {"user.id": "somebody", "session.id": "s_1"}


def test_a_member_never_takes_the_place_of_the_id() -> None:
    """Metadata with a member named `id` does not write over the user's id under the same prefix."""
    body = request(root(neatlogs__end_user__id="u_812", neatlogs__end_user__metadata='{"id":"forged","plan":"pro"}'))
    left = attributes(treat(body, "usr.id,usr.*").body)
    assert (left["usr.id"], left["usr.plan"]) == ("u_812", "pro")
    left = attributes(treat(body, "usr.*,usr.id").body)
    assert (left["usr.id"], left["usr.plan"]) == ("u_812", "pro")


def test_a_member_never_takes_the_place_of_the_session() -> None:
    """A root without a session does not get one from its metadata."""
    body = request(root(neatlogs__end_user__id="u_812", neatlogs__end_user__metadata='{"session":"s_9","plan":"pro"}'))
    left = attributes(treat(body, "app.*,app.session=session").body)
    assert left.keys() & {"app.session", "app.plan"} == {"app.plan"}


@pytest.mark.parametrize("end_user", ["", " \t", None])
def test_nobody_is_not_emitted(end_user: str | None) -> None:
    """Without an end user neither id nor metadata is written; the session goes by itself."""
    values = {"neatlogs__end_user__metadata": '{"a":1}', "neatlogs__session__id": "s_1"}
    if end_user is not None:
        values["neatlogs__end_user__id"] = end_user
    left = attributes(treat(request(root(**values)), "user.id,session.id,metadata,app.*").body)
    assert left.keys() - {key.replace("__", ".") for key in values} == {"session.id"}


TOO_LONG = '{"plan":"' + "x" * MAX_METADATA_CHARS + '"}'


@pytest.mark.parametrize("metadata", ["no json", "[1]", "{" * 100_000, "9" * 10_000, TOO_LONG])
def test_metadata_that_is_no_object_has_no_members(metadata: str) -> None:
    """What stands there, or is too long to be read, is passed on whole, and as members not at all."""
    body = request(root(neatlogs__end_user__id="u", neatlogs__end_user__metadata=metadata))
    left = attributes(treat(body, "metadata,app.*").body)
    assert left["metadata"] == metadata
    assert not any(key.startswith("app.") for key in left)


def test_members_that_utf8_cannot_hold_are_repaired() -> None:
    """Half of a surrogate pair, which JSON can write, becomes U+FFFD in keys and values."""
    metadata = '{"k\\ud800":"v\\udfff","list":["\\ud800"]}'
    body = request(root(neatlogs__end_user__id="u", neatlogs__end_user__metadata=metadata))
    left = attributes(treat(body, "app.*").body)
    assert (left["app.k\ufffd"], left["app.list"]) == ("v\ufffd", '["\ufffd"]')


def test_children_lose_emitted_keys() -> None:
    """A child that carries an emitted key loses it, counted and described as an ignored override; all else stays."""
    body = request(root(**IDENTITY), child("llm", user__id="u_2", session__id="s_2", input__value="user.id"))
    enforced = treat(body)
    assert attributes(enforced.body, "llm") == {"input.value": "user.id"}
    assert enforced.counts.overrides[Place.CHILD] == 2
    assert [(one.service, one.span_name, one.place, one.key) for one in enforced.overrides] == [
        ("shop", "llm", Place.CHILD, "user.id"),
        ("shop", "llm", Place.CHILD, "session.id"),
    ]


def test_children_lose_members_too() -> None:
    """An attribute of a member is an identity key as the id is."""
    body = request(root(**IDENTITY), child("llm", langfuse__trace__metadata__plan="free"))
    left = Treatment(STRICT, emit=Emitting(BACKENDS["langfuse"]))(body).body
    assert attributes(left, "llm") == {}


def test_metadata_of_a_child_is_its_own() -> None:
    """`metadata` says something about the span that it stands on, so no child loses it."""
    body = request(child("llm", metadata='{"step":3}'))
    assert Treatment(STRICT, emit=Emitting(BACKENDS["phoenix"]))(body).body is body


def test_the_operator_stays_and_is_not_emitted() -> None:
    """A resource's `user.id` is neither read nor written nor removed."""
    body = request(root(input__value="hi"), user__id="operator", enduser__id="operator")
    assert Treatment(STRICT, emit=Emitting(BACKENDS["semconv"]))(body).body is body


def test_the_default_of_a_resource_is_emitted_on_its_roots() -> None:
    """What the rule moves to a root is emitted as if it had stood there."""
    left = treat(request(root(), neatlogs__end_user__id="u_default")).body
    assert attributes(left)["user.id"] == "u_default"


def test_entry_spans_emit_under_the_policy() -> None:
    """Where entry spans own identity they get the keys; elsewhere they are children and lose them."""
    span = child("root", user__id="u_2", neatlogs__end_user__id="u_1")
    span.flags = 0x300
    body = request(span)
    assert attributes(treat(body, "user.id,enduser.id", policy=ENTRY).body)["enduser.id"] == "u_1"
    assert attributes(treat(body, "user.id,enduser.id").body) == {}


def test_langfuse_in_and_langfuse_out() -> None:
    """A key that is both accepted and emitted keeps its value on the root, and children lose it."""
    body = request(root(langfuse__user__id="u_1"), child("llm", langfuse__user__id="u_2"))
    both = Treatment(STRICT, accept=Accepting(SDKS["langfuse"], strip=False), emit=Emitting(BACKENDS["langfuse"]))
    enforced = both(body)
    left = attributes(enforced.body)
    assert (left["langfuse.user.id"], left["user.id"], left["neatlogs.end_user.id"]) == ("u_1", "u_1", "u_1")
    assert attributes(enforced.body, "llm") == {}


def test_what_each_stage_removes_is_counted_and_described_within_the_bound() -> None:
    """Overrides of the rule and of the stages around it share one list of bounded length and one count."""
    spans = [child(f"llm {n}", user__id="u", enduser__id="u", neatlogs__end_user__id="u") for n in range(40)]
    treatment = Treatment(
        STRICT,
        accept=Accepting(read_identity_keys(["user.id"]), strip=True),
        emit=Emitting(read_identity_keys(["enduser.id"])),
    )
    enforced = treatment(request(*spans))
    assert enforced.counts.overrides[Place.CHILD] == 120
    assert len(enforced.overrides) == MAX_REPORTED_OVERRIDES
    assert enforced.overrides_not_reported == 120 - MAX_REPORTED_OVERRIDES


def test_emitting_twice_is_emitting_once() -> None:
    """Behind another processor with the same setting nothing is left to do."""
    body = request(root(**IDENTITY), child(user__id="u_2"))
    for keys in BACKENDS.values():
        treatment = Treatment(STRICT, emit=Emitting(keys))
        once = treatment(body).body
        assert treatment(once).body is once


@pytest.mark.parametrize("order", BYTE_ORDERS)
def test_every_byte_order_is_kept(order: str) -> None:
    """Whoever wrote a request, of each span what stays is byte for byte what its exporter wrote."""
    written = enforce_traces(batch("llm", 48, "roots"), STRICT).body
    message = ExportTraceServiceRequest.FromString(written)
    for at, span in enumerate(message.resource_spans[0].scope_spans[0].spans):
        if span.parent_span_id and at % 2:
            span.attributes.extend(child(user__id="u_2").attributes)

    def decide(span: Span) -> tuple[dict[str, str], tuple[str, ...]]:
        found = {one.key: one.value.string_value for one in span.attributes}
        return {"user.id": found["neatlogs.end_user.id"]}, ()

    original = message.SerializeToString()
    expected, removed = oracle_edit(original, STRICT, decide, lambda key: key == "user.id")
    assert removed
    edited = Emitting(read_identity_keys(["user.id"]))(in_byte_order(original, order), STRICT)
    assert ExportTraceServiceRequest.FromString(edited.body) == expected
    assert edited.removed == removed
    # A new attribute is behind all other fields, whatever the order; what was there stands in front of it.
    for was, now in zip(_spans(in_byte_order(original, order)), _spans(edited.body), strict=True):
        kept = [one for one in read_fields(was) if b"user.id" not in one[2] or b"neatlogs" in one[2]]
        assert read_fields(now)[: len(kept)] == kept


def _spans(body: bytes) -> list[bytes]:
    return [
        span
        for _, _, resource_spans in read_fields(body)
        for number, _, scope_spans in read_fields(resource_spans)
        if number == 2
        for inner, _, span in read_fields(scope_spans)
        if inner == 2
    ]
