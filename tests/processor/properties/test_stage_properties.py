"""The laws of accepting and emitting, with the official protobuf reader as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import read_identity_keys
from neatlogs_processor.core.owner_spans import Edited
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import MalformedOtlpError
from support.differential import ENTRY, STRICT
from support.owner_oracle import oracle_edit, spans_of
from support.stage_oracles import KEYS, accept, emit, is_key
from support.wire_forms import requests

policies = st.sampled_from((STRICT, ENTRY))
thorough = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

WORDS = read_identity_keys(KEYS.split(","))
ACCEPT, EMIT = Accepting(WORDS, strip=True), Emitting(WORDS)


def same(edited: Edited, expected: ExportTraceServiceRequest, removed: int) -> None:
    """Fail unless the result means what the oracle's means."""
    assert ExportTraceServiceRequest.FromString(edited.body) == expected
    assert edited.removed == removed


@thorough
@given(requests(), policies)
def test_accepting_equals_decode_edit_encode(body: bytes, policy: EndUserPolicy) -> None:
    """Whatever form a request has, accepting means what decoding, editing and encoding it would mean."""
    same(ACCEPT(body, policy), *oracle_edit(body, policy, accept, is_key))


@thorough
@given(requests(), policies)
def test_emitting_equals_decode_edit_encode(body: bytes, policy: EndUserPolicy) -> None:
    """Whatever form a request has, emitting after the rule means what decoding, editing and encoding it would mean."""
    enforced = enforce_traces(body, policy).body
    same(EMIT(enforced, policy), *oracle_edit(enforced, policy, emit, is_key))


@thorough
@given(requests(groups=True), policies)
def test_treated_twice_is_treated_once(body: bytes, policy: EndUserPolicy) -> None:
    """A second processor with the same setting forwards the very object, and finds no override."""
    treatment = Treatment(policy, accept=ACCEPT, emit=EMIT)
    try:
        once = treatment(body).body
    except MalformedOtlpError as error:
        if "group" not in str(error):
            raise
        return
    again = treatment(once)
    assert again.body is once
    assert again.counts.overrides_total == 0


@thorough
@given(requests(), policies)
def test_only_owners_say_who_was_served(body: bytes, policy: EndUserPolicy) -> None:
    """After all stages no other span carries an emitted key, and each owner with an end user carries it under each."""
    left = ExportTraceServiceRequest.FromString(Treatment(policy, accept=ACCEPT, emit=EMIT)(body).body)
    for span, owns in spans_of(left, policy):
        found = {one.key: one.value.string_value for one in span.attributes}
        if not owns:
            assert not any(is_key(key) for key in found)
        elif found.get("neatlogs.end_user.id", "").strip():
            assert "user.id" in found


@pytest.mark.parametrize("stage", [ACCEPT, EMIT], ids=["accept", "emit"])
@thorough
@given(body=requests(groups=True) | st.binary(max_size=60), data=st.data(), policy=policies)
def test_mutated_bytes_give_a_result_or_one_named_error(
    stage: Accepting | Emitting, body: bytes, data: st.DataObject, policy: EndUserPolicy
) -> None:
    """Bytes that were flipped, cut or inserted are treated or refused; nothing else is raised."""
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(mutated)))
        mutated[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        once = stage(bytes(mutated), policy).body
    except MalformedOtlpError:
        return
    assert stage(once, policy).body is once
