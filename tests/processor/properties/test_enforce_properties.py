"""The laws of the core, with the official protobuf reader as the oracle."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.policy import Counts, EndUserPolicy, Enforced
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.oracle import oracle_enforce
from support.wire_forms import names_two_parents, requests, visible_overrides

STRICT = EndUserPolicy()
ENTRY = EndUserPolicy(roots="entry", entry_services=frozenset({"checkout"}))
policies = st.sampled_from((STRICT, ENTRY))

thorough = settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def named(counts: Counts) -> dict[str, int]:
    """The counts under the oracle's names, zeros left out."""
    flat = {place.value: number for place, number in counts.overrides.items()}
    flat |= {
        "spans": counts.spans,
        "roots": counts.roots,
        "roots_with_identity": counts.roots_with_identity,
        "defaults_moved": counts.defaults_moved,
        "invalid": counts.invalid,
    }
    return {name: number for name, number in flat.items() if number}


def compare_with_oracle(body: bytes, policy: EndUserPolicy, enforced: Enforced) -> None:
    """Fail unless the result means what the oracle's means."""
    expected, counts = oracle_enforce(body, entry_services=policy.entry_services)
    expected_counts = {name: number for name, number in counts.items() if number}
    got = named(enforced.counts)
    assert ExportTraceServiceRequest.FromString(enforced.body) == ExportTraceServiceRequest.FromString(expected)
    if names_two_parents(body):
        # A span without identity is not read to its end for the sake of a counter.
        got.pop("roots", None)
        expected_counts.pop("roots", None)
    assert got == expected_counts


@thorough
@given(requests(), policies)
def test_equals_decode_edit_encode(body: bytes, policy: EndUserPolicy) -> None:
    """Whatever form a request has, the result means what decoding, editing and encoding it would mean."""
    compare_with_oracle(body, policy, enforce_traces(body, policy))


@thorough
@given(requests(groups=True), policies)
def test_groups_are_refused_or_harmless(body: bytes, policy: EndUserPolicy) -> None:
    """A group is refused where identity is near it; elsewhere it travels as an unknown field does."""
    try:
        enforced = enforce_traces(body, policy)
    except MalformedOtlpError as error:
        if "group" not in str(error):
            raise
        return
    compare_with_oracle(body, policy, enforced)


@thorough
@given(requests(groups=True), policies)
def test_twice_is_once(body: bytes, policy: EndUserPolicy) -> None:
    """Enforcing the result again returns that very object."""
    try:
        once = enforce_traces(body, policy).body
    except MalformedOtlpError:
        return
    assert enforce_traces(once, policy).body is once


@thorough
@given(requests(groups=True))
def test_no_reader_sees_an_override(body: bytes) -> None:
    """However a reader settles what is ambiguous, it finds identity on root spans alone."""
    try:
        enforced = enforce_traces(body, STRICT)
    except MalformedOtlpError:
        return
    assert list(visible_overrides(enforced.body)) == []


@thorough
@given(requests(groups=True), st.data(), policies)
def test_mutated_bytes_give_a_result_or_one_named_error(
    body: bytes, data: st.DataObject, policy: EndUserPolicy
) -> None:
    """Bytes that were flipped, cut or inserted are enforced as the oracle would, or refused; nothing else is raised."""
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated)))
        kind = data.draw(st.sampled_from(("flip", "cut", "insert", "end")))
        if kind == "flip" and at < len(mutated):
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del mutated[at : at + data.draw(st.integers(1, 4))]
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        elif kind == "end":
            del mutated[at:]
    check_any_bytes(bytes(mutated), policy)


@thorough
@given(st.binary(max_size=200), policies)
@example(b"\x0a", STRICT)
@example(b"\x0a\x02\x12", STRICT)
@example(b"\x0a\x04\x12\x02\x12\x80", STRICT)
@example(b"\x0a\x05\x12\x03\x12\x80\x80", STRICT)
def test_any_bytes_give_a_result_or_one_named_error(body: bytes, policy: EndUserPolicy) -> None:
    """Noise is enforced as the oracle would, or refused; nothing else is raised."""
    check_any_bytes(body, policy)


def check_any_bytes(body: bytes, policy: EndUserPolicy) -> None:
    """Fail unless the result is the oracle's, or a refusal of what the oracle cannot read either, or of a group."""
    try:
        ExportTraceServiceRequest.FromString(body)
        readable = True
    except DecodeError:
        readable = False
    try:
        enforced = enforce_traces(body, policy)
    except MalformedOtlpError as error:
        if readable and "group" not in str(error):
            raise
        return
    if readable:
        compare_with_oracle(body, policy, enforced)
