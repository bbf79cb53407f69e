"""The warning that an answer carries where overrides were ignored."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.explain import explanation, with_explanation
from neatlogs_processor.core.policy import Counts, Enforced, Override, Place


def override(place: Place = Place.CHILD, *, service: str = "shop", name: str = "tool") -> Override:
    return Override(b"t" * 16, b"s" * 8, service, name, place, "neatlogs.end_user.id")


def enforced(*overrides: Override, more: int = 0) -> Enforced:
    counts = Counts()
    for one in overrides:
        counts.overrides[one.place] += 1
    counts.overrides[Place.CHILD] += more
    return Enforced(b"", counts, list(overrides), more)


def test_nothing_ignored_nothing_said() -> None:
    """Without an override the response stays the very same bytes."""
    response = b"whatever it is"
    assert with_explanation(response, enforced()) is response


@pytest.mark.parametrize("place", list(Place))
def test_the_warning_names_the_first_span_and_the_rule(place: Place) -> None:
    """Nothing is rejected; the message says which span, in which service, set what, and what to do instead."""
    answer = ExportTraceServiceResponse.FromString(with_explanation(b"", enforced(override(place), override())))
    assert answer.partial_success.rejected_spans == 0
    message = answer.partial_success.error_message
    assert '"tool" of service "shop" sets neatlogs.end_user.id: ignored;' in message
    assert "root span" in message
    assert message.endswith("(1 more in this request)")


def test_what_is_not_described_is_counted() -> None:
    """Overrides past the number that is described count among the others."""
    response = with_explanation(b"", enforced(override(), more=500))
    assert "(500 more in this request)" in ExportTraceServiceResponse.FromString(response).partial_success.error_message


def test_the_destination_s_own_words_are_kept() -> None:
    """What the destination rejected and said stays, and what it sent besides."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    answer.partial_success.error_message = "three were too long"
    response = answer.SerializeToString() + b"\xf8\x07\x01"
    merged = with_explanation(response, enforced(override()))
    assert merged.endswith(b"\xf8\x07\x01")
    found = ExportTraceServiceResponse.FromString(merged).partial_success
    assert found.rejected_spans == 3
    assert found.error_message == f"three were too long; {explanation(override())}"


def test_a_response_that_cannot_be_read_is_left_alone() -> None:
    """What the destination sent is passed on although it is no response; a warning is not worth an error."""
    assert with_explanation(b"\x0a\x7f", enforced(override())) == b"\x0a\x7f"


def test_names_are_escaped_and_cut() -> None:
    """Whoever names a span cannot write lines into a client's log."""
    line = explanation(override(name="a\nERROR forged\x1b[2J" + "x" * 500, service=""))
    assert line.isprintable()
    assert 'of service "unknown"' in line
    assert len(line) < 400
