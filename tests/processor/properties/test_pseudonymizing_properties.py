"""The laws of pseudonymizing, with the official protobuf reader as the oracle."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.allowed_metadata import AllowedMetadata
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.pseudonymizing import Pseudonymizing
from neatlogs_processor.core.pseudonyms import parse_keys
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import MalformedOtlpError
from support.differential import ENTRY, STRICT
from support.owner_oracle import oracle_edit
from support.pseudonym_cases import KEYS
from support.wire_forms import requests

ID, METADATA, SOURCE = (f"neatlogs.end_user.{name}" for name in ("id", "metadata", "source"))
POLICIES = st.sampled_from((STRICT, ENTRY))
FOUND = parse_keys(KEYS)
STAGE = Pseudonymizing(lambda: FOUND, AllowedMetadata(["plan"]))
thorough = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def decided(span: Span) -> tuple[Mapping[str, str], Collection[str]]:
    """What the stage does to an owner, said of decoded attributes."""
    put: dict[str, str] = {}
    removed: set[str] = set()
    for attribute in span.attributes:
        key, text = attribute.key, attribute.value.string_value
        if key == ID:
            put[key] = FOUND.pseudonym(text)
        elif key == METADATA:
            try:
                left = AllowedMetadata(["plan"]).of(text)
            except ValueError:
                left = None
            put |= {key: left} if left is not None else {}
            removed |= {key} if left is None else set()
        elif key != SOURCE and (key == "neatlogs.end_user" or key.startswith("neatlogs.end_user.")):
            removed.add(key)
    return put, removed


@thorough
@given(requests(), POLICIES)
def test_equals_decode_edit_encode(body: bytes, policy: EndUserPolicy) -> None:
    """Whatever form a request has, the result means what decoding, editing and encoding it would mean."""
    enforced = enforce_traces(body, policy).body
    expected, _ = oracle_edit(enforced, policy, decided, lambda _: False)
    assert ExportTraceServiceRequest.FromString(STAGE(enforced, policy).body) == expected


@thorough
@given(requests(groups=True), POLICIES, st.integers(0, 60), st.binary(max_size=2))
def test_any_bytes_are_treated_or_refused_and_twice_is_once(
    body: bytes, policy: EndUserPolicy, at: int, inserted: bytes
) -> None:
    """Nothing but the one named error is raised, and treating the result again returns that very object."""
    treatment = Treatment(policy, pseudonymize=STAGE)
    try:
        once = treatment(body[:at] + inserted + body[at:]).body
    except MalformedOtlpError:
        return
    assert treatment(once).body is once
