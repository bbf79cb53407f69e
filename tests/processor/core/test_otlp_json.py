"""OTLP/JSON: what is read, what is refused, and that it means what the protobuf form means."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.answers_json import response_to_json, status_to_json
from neatlogs_processor.core.json_text import MAX_UNREAD_MEMBERS
from neatlogs_processor.core.otlp_json import MAX_DEPTH, request_from_json
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError
from support.vectors import Vector, load_vectors

REQUESTS: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
# What only the bytes can say; JSON has no unknown fields, no groups and no value of two types.
ONLY_BYTES = {"group-beside-identity", "unknown-fields-travel", "value-of-two-types"}
VECTORS = [one for one in load_vectors() if one.readable is not None and one.name not in ONLY_BYTES]


def read(signal: Signal, text: str | bytes, **limits: int) -> Any:
    """The request that a text holds, decoded."""
    body = request_from_json(signal, text.encode() if isinstance(text, str) else text, **limits)
    return REQUESTS[signal].FromString(body)


def span(members: str) -> Span:
    """The one span of a document in which it has these members."""
    return (
        read(Signal.TRACES, '{"resourceSpans":[{"scopeSpans":[{"spans":[{' + members + "}]}]}]}")
        .resource_spans[0]
        .scope_spans[0]
        .spans[0]
    )


def member(name: str, text: str) -> str:
    """An object with one member."""
    return f'{{"{name}":{text}}}'


def value(text: str) -> Any:
    """The attribute value that a text holds."""
    return span('"attributes":[{"key":"k","value":' + text + "}]").attributes[0].value


def refused(signal: Signal, text: str | bytes, **limits: int) -> str:
    """Why a text is refused."""
    with pytest.raises(MalformedOtlpError) as error:
        read(signal, text, **limits)
    return str(error.value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_json_and_protobuf_of_a_vector_agree(vector: Vector, layout: dict[str, Any]) -> None:
    """The JSON form of each conformance vector becomes, under the rule, what its protobuf form becomes."""
    policy = EndUserPolicy("entry" if vector.roots == "entry" else "trace", vector.entry_services)
    body = request_from_json(Signal.TRACES, json.dumps(vector.readable, **layout).encode())
    assert ExportTraceServiceRequest.FromString(body) == ExportTraceServiceRequest.FromString(vector.request)
    enforced = enforce_traces(body, policy)
    assert vector.expected is not None
    assert ExportTraceServiceRequest.FromString(enforced.body) == ExportTraceServiceRequest.FromString(vector.expected)
    counted = {place.value: number for place, number in enforced.counts.overrides.items()}
    assert {name: number for name, number in vector.counts.items() if name in counted} == {
        name: number for name, number in counted.items() if number
    }


def test_metrics_and_logs_are_read_by_the_same_mapping() -> None:
    """Every kind of field of the three signals: doubles, signed and zigzag integers, packed arrays, exemplars' ids."""
    point = {
        "startTimeUnixNano": "1",
        "timeUnixNano": 2,
        "count": "3",
        "sum": -1.5,
        "scale": -2,
        "zeroCount": 4,
        "positive": {"offset": -5, "bucketCounts": ["6", 7, 300]},
        "negative": {"offset": 2147483647},
        "flags": 1,
        "exemplars": [{"asInt": "-9", "spanId": "AQID", "traceId": "BAUG", "timeUnixNano": "8"}],
        "min": 0,
        "zeroThreshold": 1e-5,
    }
    histogram = {
        "bucketCounts": ["1", 2],
        "explicitBounds": [0, 1.5, "NaN", "-Infinity"],
        "count": 18446744073709551615,
    }
    metrics = {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {
                        "metrics": [
                            {"name": "a", "exponentialHistogram": {"dataPoints": [point], "aggregationTemporality": 2}},
                            {"name": "b", "histogram": {"dataPoints": [histogram]}},
                            {"name": "c", "sum": {"isMonotonic": True, "dataPoints": [{"asDouble": 1}, {"asInt": -1}]}},
                            {"name": "d", "gauge": {"dataPoints": []}, "metadata": [{"key": "k", "value": {}}]},
                            {"summary": {"dataPoints": [{"quantileValues": [{"quantile": 0.5, "value": 1e300}]}]}},
                        ]
                    }
                ]
            }
        ]
    }
    expected = ParseDict(metrics, ExportMetricsServiceRequest())
    text = json.dumps(metrics).replace('"AQID"', '"010203"').replace('"BAUG"', '"040506"')
    assert read(Signal.METRICS, text).SerializeToString() == expected.SerializeToString()
    logs = {
        "resourceLogs": [
            {
                "resource": {"entityRefs": [{"type": "service", "idKeys": ["service.name", "x"]}]},
                "scopeLogs": [
                    {"logRecords": [{"severityNumber": 9, "body": {"bytesValue": "AP8="}, "flags": 4294967295}]}
                ],
            }
        ]
    }
    assert read(Signal.LOGS, json.dumps(logs)) == ParseDict(logs, ExportLogsServiceRequest())


@pytest.mark.parametrize("name", ["traceId", "trace_id", "trace\\u0049d", "\\u0074race_id"])
def test_members_have_two_names_in_any_spelling(name: str) -> None:
    """The camelCase name, the name of the schema and escapes in either are the same member."""
    assert span(f'"{name}":"0aFF"').trace_id == b"\x0a\xff"


@pytest.mark.parametrize("name", ["parentSpanId", "parent_span_id"])
def test_a_parent_is_a_parent_in_either_spelling(name: str) -> None:
    """A child whose exporter writes snake case is no root."""
    assert span(f'"{name}":"00000000000000AB"').parent_span_id == bytes(7) + b"\xab"


@pytest.mark.parametrize("text", ['"0"', '"zz"', '" 00"', '"0 0 "', '"0x00"', '"é"', "1", "null,", "[]", '"\\u00e9"'])
def test_ids_that_are_not_hex_are_refused(text: str) -> None:
    """An id is pairs of hexadecimal digits and nothing else."""
    with pytest.raises(MalformedOtlpError):
        span(f'"spanId":{text}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ('"1"', 1),
        ("-9223372036854775808", -(2**63)),
        ('"9223372036854775807"', 2**63 - 1),
        ("1.0", 1),
        ("1e3", 1000),
        ('"1.5e1"', 15),
        ("-0", 0),
        ("9.223372036854775807e18", 2**63 - 1),
        ("1000E-3", 1),
    ],
)
def test_integers_are_numbers_or_strings(text: str, expected: int) -> None:
    """64-bit integers come as numbers or as strings, and any way of writing an integer is one."""
    assert value(member("intValue", text)).int_value == expected


@pytest.mark.parametrize(
    "text",
    [
        "9223372036854775808",
        "-9223372036854775809",
        "1.5",
        '"1.5"',
        "1e19",
        "1e999",
        '""',
        '"x"',
        '" 1"',
        '"1 "',
        "true",
        '"0x1"',
        '"+1"',
        "1e-5",
        '"NaN"',
        "[1]",
        "{}",
        '"' + "1" * 100 + '"',
        "1" * 100_000,
        "1e0000001",
        '"01"',
    ],
)
def test_what_is_no_integer_of_its_size_is_refused(text: str) -> None:
    """Fractions, other types and numbers out of range are refused with their place, and quickly."""
    said = refused(
        Signal.TRACES,
        '{"resourceSpans":[{"resource":{"attributes":[{"value":{"intValue":' + text + "}}]}}]}",
    )
    assert said.startswith("resourceSpans[0].resource.attributes[0].value.intValue: ")


@pytest.mark.parametrize(("number", "fits"), [(0, True), (2**32 - 1, True), (2**32, False), (-1, False)])
def test_unsigned_integers_have_their_range(number: int, fits: bool) -> None:
    """`droppedAttributesCount` is 32 bits without a sign."""
    text = f'"droppedAttributesCount":{number}'
    if fits:
        assert span(text).dropped_attributes_count == number
    else:
        with pytest.raises(MalformedOtlpError, match="0 to 4294967295"):
            span(text)


@pytest.mark.parametrize(("number", "kind"), [("2", 2), ("-1", -1), ("99", 99), ("2.0", 2)])
def test_enums_are_integers(number: str, kind: int) -> None:
    """Also those that nobody knows yet."""
    assert span(f'"kind":{number}').kind == kind


@pytest.mark.parametrize("text", ['"SPAN_KIND_SERVER"', '"2"', "2147483648", "true"])
def test_names_of_enums_are_refused(text: str) -> None:
    """OTLP's JSON has no names of enums."""
    with pytest.raises(MalformedOtlpError, match="kind: an integer"):
        span(f'"kind":{text}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1.0),
        ("-0.0", -0.0),
        ("1.5e-300", 1.5e-300),
        ('"2.5"', 2.5),
        ('"Infinity"', math.inf),
        ('"-Infinity"', -math.inf),
        ("1" + "0" * 300, 1e300),
    ],
)
def test_doubles_are_numbers_or_words(text: str, expected: float) -> None:
    """A double is a number, a string of one, or one of the three words."""
    found = value(member("doubleValue", text)).double_value
    assert (found, math.copysign(1, found)) == (expected, math.copysign(1, expected))


def test_not_a_number_is_a_word() -> None:
    """`NaN` is written as a string."""
    assert math.isnan(value('{"doubleValue":"NaN"}').double_value)


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "1e309", '"inf"', '"nan"', '""', "true", ".5", "1.", "01", "+1", "0x1", "1" * 2000]
)
def test_what_is_no_double_is_refused(text: str) -> None:
    """Bare words are no JSON, and a number that a double cannot hold is no double."""
    with pytest.raises(MalformedOtlpError):
        value(member("doubleValue", text))


@pytest.mark.parametrize(
    ("text", "expected"), [('"AP8="', b"\0\xff"), ('"AP8"', b"\0\xff"), ('"-_-_"', b"\xfb\xff\xbf"), ('""', b"")]
)
def test_bytes_are_base64(text: str, expected: bytes) -> None:
    """Both alphabets, padded or not."""
    assert value(member("bytesValue", text)).bytes_value == expected


@pytest.mark.parametrize("text", ['"A"', '"AP8=="', '"A P8"', '"AP8=AP8="', '"é"', "1", '"===="'])
def test_what_is_no_base64_is_refused(text: str) -> None:
    """Anything else in a bytes value is refused."""
    with pytest.raises(MalformedOtlpError, match="base64"):
        value(member("bytesValue", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"a\n\"\\\/\u00e9"', 'a\n"\\/é'),
        (r'"\ud83d\ude00"', "😀"),
        ('"😀 é \x7f"', "😀 é \x7f"),
        (r'"a\ud83db"', "a\ufffdb"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\u0000"', "\0"),
        (r'"\\\\"', r"\\"),
        ('"' + "x" * 1000 + '"', "x" * 1000),
    ],
)
def test_strings_hold_any_text(text: str, expected: str) -> None:
    """Escapes are undone; half of a surrogate pair becomes U+FFFD, as in JavaScript's own encoder."""
    assert value(member("stringValue", text)).string_value == expected


@pytest.mark.parametrize("text", ['"a\nb"', r'"\x41"', r'"\u12"', '"', r'"\"', "'a'", "1", "true", "{}", r'"\\\"'])
def test_what_is_no_string_is_refused(text: str) -> None:
    """Raw control characters, unknown escapes and other types are no strings."""
    with pytest.raises(MalformedOtlpError):
        value(member("stringValue", text))


def test_text_that_is_not_utf_8_is_refused() -> None:
    """Bytes that no text has are refused wherever they stand, a cut-off character at the end too."""
    assert "UTF-8" in refused(Signal.TRACES, b'{"a":"\xff"}')
    assert "UTF-8" in refused(Signal.TRACES, b"{}\xc3")
    assert "UTF-8" in refused(Signal.TRACES, "{}".encode("utf-16"))


@pytest.mark.parametrize(
    "text", [b"", b" \r\n\t", b"{}", b"\xef\xbb\xbf{}", b" { } ", b'{"resourceSpans":null}', b'{"resourceSpans":[]}']
)
def test_nothing_is_an_empty_request(text: bytes) -> None:
    """No text, no members, nulls and empty arrays are a request without anything; a byte order mark is passed over."""
    assert request_from_json(Signal.TRACES, text) == b""


@pytest.mark.parametrize(
    "text",
    [
        '"x":1',
        '"x":{"y":[1,2.5e3,"a\\n",true,false,null,{},[],[[]]]}',
        '"X":"", "tracesId":[ ]',
        '"Resource":{"a":{"b":{}}}',
        '"x":[{"a":1,"b":{"c":1}},{"a":1}]',
    ],
)
def test_unknown_members_are_passed_over(text: str) -> None:
    """What OTLP does not define, or only in another case, is ignored whole."""
    assert span(f'{text},"name":"a"').name == "a"


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceSpans":[],"resourceSpans":[]}',
        '{"resourceSpans":[],"resource_spans":[]}',
        '{"resourceSpans":null,"resource\\u0053pans":[]}',
        '{"x":1,"x":1}',
        '{"x":{"y":1,"y":2}}',
        '{"x":[{"\\u0079":1,"y":2}]}',
    ],
)
def test_a_member_that_stands_twice_is_refused(text: str) -> None:
    """Readers disagree about which one counts; whoever writes both means to exploit that."""
    assert "twice" in refused(Signal.TRACES, text)


def test_two_values_of_one_attribute_are_refused() -> None:
    """A value has one type; a null beside it does not count."""
    with pytest.raises(MalformedOtlpError, match="excludes"):
        value('{"stringValue":"a","intValue":1}')
    assert value('{"stringValue":"a","intValue":null}').string_value == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "the request: an object is expected"),
        ("null", "the request: an object is expected"),
        ('"a"', "the request: an object is expected"),
        ("x", "not JSON: a value is missing at byte 0"),
        ("{", "not JSON: a member's name is missing at byte 1"),
        ('{"', "not JSON: a string that does not end at byte 1"),
        ('{"a" 1}', "not JSON: a colon is missing at byte 4"),
        ('{"a\\n" 1}', "not JSON: a colon is missing at byte 6"),
        ('{"a":1', "not JSON: a comma or the end of the object is missing at byte 6"),
        ('{"a":1,}', "not JSON: a member's name is missing at byte 7"),
        ('{"a":[1 2]}', "not JSON: a comma or an end is missing at byte 7"),
        ('{"a":[1,]}', "not JSON: a value is missing at byte 8"),
        ('{"a":{1:2}}', "not JSON: a member's name is missing at byte 6"),
        ('{"a":tru}', "not JSON: a value is missing at byte 5"),
        ("{} {}", "not JSON: something follows the request at byte 3"),
        ('{"resourceSpans":{}}', "resourceSpans: an array is expected"),
        ('{"resourceSpans":[', "not JSON: a value is missing at byte 18"),
        ('{"resourceSpans":[{} {}]}', "not JSON: a comma or the end of the array is missing at byte 20"),
        ('{"resourceSpans":[null]}', "resourceSpans[0]: an object is expected"),
        ('{"resourceSpans":[{},{"scopeSpans":[1]}]}', "resourceSpans[1].scopeSpans[0]: an object is expected"),
        ('{"resourceSpans":[{"schemaUrl":1}]}', "resourceSpans[0].schemaUrl: a string is expected"),
        (
            '{"resourceSpans":[{"resource":{"attributes":[{"value":{"boolValue":1}}]}}]}',
            "resourceSpans[0].resource.attributes[0].value.boolValue: true or false is expected",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, said: str) -> None:
    """Whoever wrote the request can find the mistake; its values are not repeated."""
    assert refused(Signal.TRACES, text) == said


def nested(levels: int) -> bytes:
    """An attribute value inside so many lists."""
    inner = b'{"arrayValue":{"values":[' * levels + b"{}" + b"]}}" * levels
    return b'{"resourceSpans":[{"resource":{"attributes":[{"value":%s}]}}]}' % inner


def test_nesting_is_bounded() -> None:
    """Up to the limit a request can be read by protobuf's own reader; past it, it is refused, known members or not."""
    assert read(Signal.TRACES, nested(40), max_depth=MAX_DEPTH).resource_spans
    assert "--max-json-depth" in refused(Signal.TRACES, nested(41), max_depth=MAX_DEPTH)
    assert "3 levels" in refused(Signal.TRACES, b'{"resourceSpans":[{"x":[]}]}', max_depth=3)
    assert read(Signal.TRACES, b'{"resourceSpans":[{"x":[]}]}', max_depth=4).resource_spans
    assert "--max-json-depth" in refused(Signal.TRACES, b'{"resourceSpans":[]}', max_depth=1)
    assert "--max-json-depth" in refused(Signal.TRACES, b'{"resourceSpans":[{}]}', max_depth=2)
    for text in (b'{"x":' + b"[" * 1_000_000, b'{"x":' + b'{"x":' * 1_000_000, b"[" * 1_000_000, nested(100_000)):
        assert "--max-json-depth" in refused(Signal.TRACES, text)


def test_unknown_members_of_one_object_are_bounded() -> None:
    """Each name has to be remembered, so their number has a limit far above any need."""
    members = ",".join(f'"x{number}":0' for number in range(MAX_UNREAD_MEMBERS))
    assert read(Signal.TRACES, f"{{{members}}}") == ExportTraceServiceRequest()
    assert "members" in refused(Signal.TRACES, f'{{{members},"y":0}}')


def test_what_comes_out_is_bounded() -> None:
    """Arrays of numbers are larger in protobuf than in JSON; the limit holds for both."""
    point = (
        '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":[%s]}]}}]}]}]}'
    )
    text = (point % ",".join("0" * 1000)).encode()
    assert len(request_from_json(Signal.METRICS, text, max_size=len(text) * 5)) > len(text)
    with pytest.raises(RequestTooLargeError):
        request_from_json(Signal.METRICS, text, max_size=len(text))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["resourceSpans", "resource", "scopeSpans", "spans", "attributes", "key", "value", "arrayValue"]
            )
            | st.sampled_from(
                ["values", "kvlistValue", "stringValue", "intValue", "traceId", "events", "links", "x", "kind"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(document=JSON_VALUES, damage=st.tuples(st.integers(0, 400), st.binary(max_size=3)))
def test_any_text_is_read_or_refused_by_name(document: Any, damage: tuple[int, bytes]) -> None:
    """Whatever arrives becomes protobuf that its own reader takes, or one named error."""
    whole = json.dumps(document).encode()
    at, inserted = damage
    for text in (whole, whole[:at] + inserted + whole[at + 1 :]):
        try:
            body = request_from_json(Signal.TRACES, text)
        except MalformedOtlpError:
            continue
        ExportTraceServiceRequest.FromString(body)


@settings(max_examples=100)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    """Bytes that are no text at all end in the same error."""
    for text in (data, b'{"resourceSpans":' + data, b'{"x":"' + data):
        with contextlib.suppress(MalformedOtlpError):
            request_from_json(Signal.TRACES, text)


def test_responses_become_json() -> None:
    """64-bit integers are strings there; what cannot be read is an empty response, because the request was accepted."""
    partial = ExportMetricsPartialSuccess(rejected_data_points=2**62, error_message="é")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    assert json.loads(response_to_json(Signal.METRICS, body)) == {
        "partialSuccess": {"rejectedDataPoints": str(2**62), "errorMessage": "é"}
    }
    assert response_to_json(Signal.TRACES, b"") == b"{}"
    assert response_to_json(Signal.LOGS, b"\xff") == b"{}"


def test_statuses_become_json() -> None:
    """Details of a known type are written out, others are left out."""
    status = Status(code=3, message="no")
    status.details.add().Pack(ErrorInfo(reason="KEY"))
    status.details.append(AnyMessage(type_url="type.googleapis.com/unknown.Type", value=b"\1"))
    status.details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff"))
    assert json.loads(status_to_json(status.SerializeToString())) == {
        "code": 3,
        "message": "no",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "KEY"}],
    }
    assert json.loads(status_to_json(Status(code=5).SerializeToString())) == {"code": 5}
    assert status_to_json(b"\xff") == b"{}"
