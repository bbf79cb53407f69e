"""The core against the official reader: what has to hold for any bytes whatsoever."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.policy import Counts, EndUserPolicy, Enforced
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.oracle import oracle_enforce
from support.wire_forms import names_a_parent_oddly, visible_overrides

STRICT = EndUserPolicy()
ENTRY = EndUserPolicy(roots="entry", entry_services=frozenset({"checkout"}))

# What the rule refuses although the official reader takes it, because other readers do not.
_REFUSED_THOUGH_READABLE = ("group", "does not fit 64 bits")


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
    if got != expected_counts and names_a_parent_oddly(body):
        # A span without identity is not read to its end for the sake of a counter.
        got.pop("roots", None)
        expected_counts.pop("roots", None)
    assert got == expected_counts


def is_readable(body: bytes) -> bool:
    """Whether the official reader can read a request."""
    try:
        ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return False
    return True


def check_any_bytes(body: bytes, policy: EndUserPolicy) -> str:
    """Fail unless the result is the oracle's, or a refusal of what the oracle cannot read either, or readers dispute.

    A result, moreover, comes out of a second time as the same object, and where the official reader can read it no
    reader at all finds an override in it.

    Returns:
        What happened: `"enforced"`, `"unchanged"` or `"refused"`.
    """
    readable = is_readable(body)
    try:
        enforced = enforce_traces(body, policy)
    except MalformedOtlpError as error:
        if readable and not any(reason in str(error) for reason in _REFUSED_THOUGH_READABLE):
            raise
        return "refused"
    assert enforce_traces(enforced.body, policy).body is enforced.body
    if readable:
        compare_with_oracle(body, policy, enforced)
        assert list(visible_overrides(enforced.body, entry=policy.roots == "entry")) == []
    return "unchanged" if enforced.body is body else "enforced"


def check_both(body: bytes) -> str:
    """`check_any_bytes` under both policies; says what happened under the strict one."""
    check_any_bytes(body, ENTRY)
    return check_any_bytes(body, STRICT)
