"""The laws of editing spans that own identity, with the official protobuf reader as the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.owner_spans import Changes, Edited, SpanAttributes, edit_owners
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.errors import MalformedOtlpError
from support.corpus import core_corpus
from support.differential import ENTRY, STRICT, is_readable
from support.owner_oracle import oracle_edit
from support.wire_forms import requests, visible_overrides
from support.wire_mutations import mutate

policies = st.sampled_from((STRICT, ENTRY))
thorough = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

SEEK = Sought((b"user.id", b"input.value", b"neatlogs.end_user.id"), (b"langfuse.trace.metadata.",))
STRIP = Sought((b"user.id",), (b"neatlogs.end_user",))


def changes(attributes: SpanAttributes) -> Changes | None:
    """Put a key that is there and one that may not be, and remove all under the prefix."""
    if b"user.id" not in attributes:
        return None
    removed = {key for key in attributes if key.startswith(b"langfuse.trace.metadata.")}
    return Changes({b"user.id": "u"}, removed)


def decided(span: Span) -> tuple[Mapping[str, str], Collection[str]] | None:
    """The same, for the oracle."""
    keys = [attribute.key for attribute in span.attributes]
    if "user.id" not in keys:
        return None
    return {"user.id": "u"}, [key for key in keys if key.startswith("langfuse.trace.metadata.")]


def run(body: bytes, policy: EndUserPolicy) -> Edited:
    """Edit a request."""
    return edit_owners(body, policy, seek=SEEK, edit=changes, strip=STRIP)


def is_stripped(key: str) -> bool:
    """Whether `STRIP` holds a key."""
    return key == "user.id" or key.startswith("neatlogs.end_user")


@thorough
@given(requests(), policies)
def test_equals_decode_edit_encode(body: bytes, policy: EndUserPolicy) -> None:
    """Whatever form a request has, the result means what decoding, editing and encoding it would mean."""
    edited = run(body, policy)
    expected, removed = oracle_edit(body, policy, decided, is_stripped)
    assert ExportTraceServiceRequest.FromString(edited.body) == expected
    assert edited.removed == removed


@thorough
@given(requests(groups=True), policies)
def test_twice_is_once(body: bytes, policy: EndUserPolicy) -> None:
    """Editing the result again returns that very object."""
    try:
        once = run(body, policy).body
    except MalformedOtlpError as error:
        assert "group" in str(error)  # noqa: PT017  # the only reason to refuse what can be read
        return
    again = run(once, policy)
    assert again.body is once
    assert again.removed == 0


@thorough
@given(requests(groups=True))
def test_no_reader_sees_a_stripped_key(body: bytes) -> None:
    """However a reader settles what is ambiguous, it finds stripped keys on root spans alone."""
    try:
        edited = run(body, STRICT)
    except MalformedOtlpError:
        return
    assert "child" not in list(visible_overrides(edited.body))


def test_mutations_of_the_seeds_agree_with_the_official_reader() -> None:
    """Requests mutated along OTLP's own fields, always the same ones, give what the oracle gives, or a refusal."""
    chance = Random(0)  # noqa: S311  # the same in each run
    seeds = list(core_corpus().values())
    outcomes = Counter(check(mutate(seeds[n % len(seeds)], chance), (STRICT, ENTRY)[n % 2]) for n in range(4_000))
    assert min(outcomes[one] for one in ("edited", "unchanged", "refused")) > 100


def check(body: bytes, policy: EndUserPolicy) -> str:
    """Fail unless the result is the oracle's, or a refusal of what the oracle cannot read, or readers dispute."""
    seek = Sought((b"neatlogs.end_user.id",))
    strip = Sought((), (b"neatlogs.end_user",))
    changes = Changes({b"user.id": "u"}, {b"neatlogs.end_user.metadata"})
    beside = Sought((b"user.id", b"neatlogs.end_user.metadata"))

    def run_on(some: bytes) -> Edited:
        return edit_owners(
            some,
            policy,
            seek=seek,
            edit=lambda found: changes if b"neatlogs.end_user.id" in found else None,
            strip=strip,
            beside=beside,
        )

    def decide(span: Span) -> tuple[Mapping[str, str], Collection[str]] | None:
        named = any(one.key == "neatlogs.end_user.id" for one in span.attributes)
        return ({"user.id": "u"}, ["neatlogs.end_user.metadata"]) if named else None

    readable = is_readable(body)
    try:
        edited = run_on(body)
    except MalformedOtlpError as error:
        assert not readable or "group" in str(error) or "does not fit 64 bits" in str(error)  # noqa: PT017  # either
        return "refused"
    assert run_on(edited.body).body is edited.body
    if readable:
        expected, removed = oracle_edit(body, policy, decide, lambda key: key.startswith("neatlogs.end_user"))
        assert (ExportTraceServiceRequest.FromString(edited.body), edited.removed) == (expected, removed)
    return "unchanged" if edited.body is body else "edited"


@thorough
@given(requests(groups=True) | st.binary(max_size=60), st.data(), policies)
def test_mutated_bytes_give_a_result_or_one_named_error(
    body: bytes, data: st.DataObject, policy: EndUserPolicy
) -> None:
    """Bytes that were flipped, cut or inserted are edited or refused; nothing else is raised."""
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(mutated)))
        mutated[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        once = run(bytes(mutated), policy).body
    except MalformedOtlpError:
        return
    assert run(once, policy).body is once
