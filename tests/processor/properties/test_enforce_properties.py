"""The laws of the core, with the official protobuf reader as the oracle."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.differential import ENTRY, STRICT, check_any_bytes, compare_with_oracle
from support.wire_forms import requests, visible_overrides

policies = st.sampled_from((STRICT, ENTRY))

thorough = settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


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
