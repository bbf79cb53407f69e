"""Plain traces: what is refused and bounded, and what a sender is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from neatlogs_processor.core.answers_json import plain_trace_answer, plain_trace_refusal
from neatlogs_processor.core.plain_attributes import MAX_ARRAY_BYTES, MAX_PIECES
from neatlogs_processor.core.plain_json import MAX_MEMBERS
from neatlogs_processor.core.plain_trace import MAX_SPANS
from neatlogs_processor.errors import RequestTooLargeError
from support.otlp_sink import attributes
from support.plain_traces import convert, refused, root, spans


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the trace: an object is expected"),
        ("trace", "the trace: an object is expected"),
        ({}, "name: the span's name is expected"),
        ({"name": None}, "name: the span's name is expected"),
        ({"name": "a", "children": [{"name": "b"}, {}]}, "children[1].name: the span's name is expected"),
        ({"name": "a", "children": [{"name": "b", "children": [7]}]}, "children[0].children[0]: an object is expected"),
        ({"name": "a", "children": {"name": "b"}}, "children: an array is expected"),
        ({"name": "a", "attributes": []}, "attributes: an object is expected"),
        ({"name": "a", "tokens": 7}, "tokens: an object is expected"),
        ({"name": "a", "tokens": {"prompt": "7"}}, "tokens.prompt: a number is expected"),
        ({"name": "a", "tokens": {"prompt": -1}}, "tokens.prompt: a whole number, not below zero, is expected"),
        ({"name": "a", "tokens": {"total": 1.5}}, "tokens.total: a whole number, not below zero, is expected"),
        ({"name": "a", "tokens": {"total": 2**63}}, "tokens.total: a whole number, not below zero, is expected"),
        ({"name": "a", "passed": "yes"}, "passed: true or false is expected"),
        ({"name": "a", "score": "high"}, "score: a number is expected"),
        ({"name": "a", "documents": {}}, "documents: an array is expected"),
        ({"name": "a", "documents": ["a", {"score": "1"}]}, "documents[1].score: a number is expected"),
        ({"name": "a", "logs": "x"}, "logs: an array is expected"),
        ({"name": "a", "logs": [{}, "x"]}, "logs[1]: an object is expected"),
        ({"name": "a", "duration_ms": -1}, "duration_ms: a number of milliseconds, not below zero, is expected"),
        ({"name": "a", "sessionId": True}, "sessionId: text or a whole number is expected"),
        ({"name": "a", "sessionId": 1.5}, "sessionId: text or a whole number is expected"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_its_place(document: Any, message: str) -> None:
    """A field that holds what it must not refuses the whole trace, and the message says which field and what fits."""
    assert refused(document) == message


@pytest.mark.parametrize(
    "time",
    ["soon", "2026-11-20", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", True, -1, 1e30],
)
@pytest.mark.parametrize("field", ["start", "end", "logs"])
def test_what_is_no_time_is_refused(field: str, time: Any) -> None:
    """A time that cannot be read or written is refused with its place."""
    value = [{"timestamp": time}] if field == "logs" else time
    place = "logs[0].timestamp" if field == "logs" else field
    assert refused({"name": "a", "children": [{"name": "b", field: value}]}).startswith(f"children[0].{place}: a ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"{",
        b'{"name":"a"',
        b'{"name":"a",}',
        b'{"name":"a"}{}',
        b'{"name":"a"} x',
        b"{'name':'a'}",
        b'{"name":"a","input":NaN}',
        b'{"name":"a","score":Infinity}',
        b'{"name":"a","score":01}',
        b'{"name":"a","input":"\x00"}',
        b'{"name":"\xff"}',
        b'{"name":"a","children":[{"name":"b"} {"name":"c"}]}',
        b'{"name":"a","children":[{"name":"b"},]}',
        b"\xfe\xff\x00{\x00}",
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """Text that no JSON reader takes is refused, and nothing of it is repeated."""
    assert refused(text)


def test_a_byte_order_mark_is_passed_over() -> None:
    """What editors put at the beginning of a text does no harm."""
    assert convert(b'\xef\xbb\xbf {"name":"a","children":[]} \n').spans == 1


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":"a","name":"b"}',
        b'{"name":"a","n\\u0061me":"b"}',
        b'{"name":"a","x":1,"x":1}',
        b'{"name":"a","children":[],"children":[]}',
        b'{"name":"a","attributes":{"neatlogs.end_user.id":"u_1","neatlogs\\u002eend_user.id":"u_2"}}',
        b'{"name":"a","input":{"a":{"b":1,"b":2}}}',
        b'{"name":"a","children":[{"name":"b","endUserId":"u_1","endUserId":"u_2"}]}',
    ],
    ids=repr,
)
def test_a_member_named_twice_is_refused(text: bytes) -> None:
    """Readers disagree about what two members of one name mean, however the name is written."""
    assert refused(text) == "an object names a member twice"


def test_numbers_that_no_double_holds_are_refused() -> None:
    """A number beyond a double, or of more digits than any number needs, is refused where it would be a number."""
    for number in (b"1e999", b"-1e999", b"9" * 2000):
        for template in (b'{"attributes":{"a":%s}}', b'{"attributes":{"a":[%s]}}', b'{"score":%s}', b'{"start":%s}'):
            assert "a number" in refused((template % number).replace(b"{", b'{"name":"a",', 1))
        (span,) = spans(b'{"name":"a","input":%s}' % number)
        assert attributes(span)["input.value"] == number.decode()
    for harmless in (b"0e99999999999999999999", b"1e-99999999999999999999", b"-0.0"):
        assert spans(b'{"name":"a","start":%s}' % harmless)[0].start_time_unix_nano == 0


def test_depth_is_bounded() -> None:
    """Spans and what they hold may nest as deeply as JSON may, and no deeper, however deep the text is."""

    def nested(levels: int) -> bytes:
        return b'{"name":"a","children":[' * levels + b'{"name":"a"}' + b"]}" * levels

    assert convert(nested(63)).spans == 64
    for text in (
        nested(64),
        nested(100_000),
        b'{"name":"a","children":[' * 100_000,
        b'{"name":"a","input":' + b"[" * 1_000_000,
        b'{"name":"a","x":' + b'{"x":' * 1_000_000,
        b"[" * 1_000_000,
    ):
        assert "--max-json-depth" in refused(text)
    assert "--max-json-depth" in refused({"name": "a", "children": []}, max_depth=1)
    assert "--max-json-depth" in refused({"name": "a", "children": [{"name": "b"}]}, max_depth=2)
    assert "--max-json-depth" in refused({"name": "a"}, max_depth=0)


def test_the_number_of_spans_is_bounded() -> None:
    """A trace has so many spans and no more."""
    children = [{"name": "b"}] * MAX_SPANS
    assert convert({"name": "a", "children": children[1:]}).spans == MAX_SPANS
    with pytest.raises(RequestTooLargeError, match=r"at most 10,000 spans"):
        convert({"name": "a", "children": children})


def test_the_members_of_an_object_are_bounded() -> None:
    """An object may have far more members than people write, wherever it stands, and no more."""
    most = {f"k{number}": 0 for number in range(MAX_MEMBERS)}
    for field in ("input", "attributes", "x"):
        assert convert({"name": "a", field: most}).spans == 1
        assert "members" in refused({"name": "a", field: {**most, "more": 0}})


@pytest.mark.parametrize(
    "field",
    [
        {"name": "n" * 1000},
        {"documents": [0] * 100},
        {"attributes": {"a": [0] * 300}},
        {"attributes": {f"k{number}": 0 for number in range(100)}},
        {"logs": [{}] * 100},
        {"error": "e" * 1000},
        {"input": "i" * 1000},
    ],
    ids=lambda field: str(field)[:30],
)
def test_what_comes_out_is_bounded(field: dict[str, Any]) -> None:
    """Small JSON can be large as attributes; the limit holds for both."""
    with pytest.raises(RequestTooLargeError, match="--max-message-size"):
        convert({"name": "a", **field}, max_size=1000)
    convert({"name": "a"}, max_size=1000)


@pytest.mark.parametrize(
    "fields",
    [
        {"documents": [0] * MAX_PIECES},
        {"logs": [{}] * MAX_PIECES},
        {"children": [{"name": "b", "attributes": {"a": [0] * 20_000}}] * 13},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_number_of_small_things_is_bounded(fields: dict[str, Any]) -> None:
    """Attributes, elements and events cost more than their text: a trace has so many and no more."""
    with pytest.raises(RequestTooLargeError, match=r"at most 250,000"):
        convert({"name": "a", **fields})


def test_a_long_array_is_json() -> None:
    """An array attribute that is too long to look into is kept as the text that it is."""
    long = [0] * MAX_ARRAY_BYTES
    assert root(attributes={"a": long})["a"] == json.dumps(long)


def test_the_answer_names_the_trace_and_its_spans() -> None:
    """The answer holds the trace's id and how many spans were taken; a remark of the destination travels on."""

    def answer(**partial: Any) -> Any:
        response = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(**partial))
        return json.loads(plain_trace_answer("ab", 3, response.SerializeToString()))

    assert answer() == {"ok": True, "trace_id": "ab", "spans": 3}
    assert answer(error_message="mind") == {"ok": True, "trace_id": "ab", "spans": 3, "warning": "mind"}
    assert answer(rejected_spans=2, error_message="no") == {"ok": False, "trace_id": "ab", "spans": 1, "error": "no"}
    assert answer(rejected_spans=9) == {"ok": False, "trace_id": "ab", "spans": 0}
    assert json.loads(plain_trace_answer("ab", 3, b"\xff")) == {"ok": True, "trace_id": "ab", "spans": 3}


def test_a_refusal_says_why() -> None:
    """What the published client shows of a refusal is a sentence."""
    assert plain_trace_refusal("because") == b'{"ok":false,"error":"because"}'
