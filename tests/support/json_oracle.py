"""OTLP/JSON once more, the plain way: Python's own JSON reader, then the official messages, field by field.

Written to be compared with the processor's reader, which builds neither trees nor messages.
"""

from __future__ import annotations

import base64
import json
import math
import re
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.otlp_json import MAX_DEPTH, request_from_json
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError

REQUESTS: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}

_NUMERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}


class UnreadableError(Exception):
    """The text is not JSON, or not OTLP."""


class DoubtfulError(Exception):
    """The text holds a number so long that a reader may refuse it for that alone."""


class _Numeral(str):
    """A number as it was written."""

    __slots__ = ()


def oracle_request(signal: Signal, text: bytes) -> Message:
    """The request that a JSON text holds.

    Raises:
        UnreadableError: It holds none.
        DoubtfulError: Whether it does is left open.
    """
    message = REQUESTS[signal]()
    try:
        decoded = text.decode().removeprefix("\ufeff")
        if not decoded.strip(" \t\n\r"):
            return message
        tree = json.loads(
            decoded,
            object_pairs_hook=_without_duplicates,
            parse_int=_Numeral,
            parse_float=_Numeral,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise UnreadableError from None
    if _depth(tree) > MAX_DEPTH:
        raise UnreadableError
    _fill(message, tree)
    return message


def check_json(signal: Signal, text: bytes) -> str:
    """Fail unless the processor's reader and this one agree; say `"read"`, `"refused"` or `"doubtful"`."""
    expected: Message | None = None
    doubtful = False
    try:
        expected = oracle_request(signal, text)
    except UnreadableError:
        pass
    except DoubtfulError:
        doubtful = True
    try:
        body = request_from_json(signal, text)
    except MalformedOtlpError:
        assert expected is None, "the oracle reads what is refused here"
        return "doubtful" if doubtful else "refused"
    # Whatever comes out of JSON can be read by everybody.
    found = REQUESTS[signal].FromString(body)
    if signal is Signal.TRACES:
        enforce_traces(body, EndUserPolicy())
    if doubtful:
        return "doubtful"
    assert expected is not None, "the oracle refuses what is read here"
    assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    return "read"


def check_any_json(text: bytes) -> str:
    """`check_json` of the signal that the text names; of traces where it names none."""
    if b"resourceMetrics" in text:
        return check_json(Signal.METRICS, text)
    return check_json(Signal.LOGS if b"resourceLogs" in text else Signal.TRACES, text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Names are compared as they can be written: half of a surrogate pair cannot.
    members = {_LONE_SURROGATE.sub("\ufffd", name): value for name, value in pairs}
    if len(members) != len(pairs):
        raise UnreadableError
    return members


def _no_constant(_: str) -> None:
    raise UnreadableError


def _depth(tree: Any) -> int:
    deepest = 0
    waiting = [(tree, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, (dict, list)):
            deepest = max(deepest, depth)
            waiting += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
    return deepest


def _fill(message: Message, tree: Any) -> None:
    if not isinstance(tree, dict):
        raise UnreadableError
    groups: set[str] = set()
    for one in message.DESCRIPTOR.fields:
        given = [name for name in dict.fromkeys((one.json_name, one.name)) if name in tree]
        if len(given) > 1:
            raise UnreadableError
        if not given or tree[given[0]] is None:
            continue
        value = tree[given[0]]
        group = one.containing_oneof
        if group is not None:
            if group.name in groups:
                raise UnreadableError
            groups.add(group.name)
        if one.is_repeated:
            if not isinstance(value, list):
                raise UnreadableError
            for item in value:
                if one.message_type is not None:
                    _fill(getattr(message, one.name).add(), item)
                else:
                    getattr(message, one.name).append(_scalar(one, item))
        elif one.message_type is not None:
            inner = getattr(message, one.name)
            inner.SetInParent()
            _fill(inner, value)
        else:
            setattr(message, one.name, _scalar(one, value))


def _scalar(one: Any, value: Any) -> Any:
    if one.type in _BITS:
        if one.type == FieldDescriptor.TYPE_ENUM and not isinstance(value, _Numeral):
            raise UnreadableError
        return _whole(value, *_BITS[one.type])
    if one.type == FieldDescriptor.TYPE_DOUBLE:
        return _real(value)
    if one.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            raise UnreadableError
        return value
    if not isinstance(value, str) or isinstance(value, _Numeral):
        raise UnreadableError
    if one.type == FieldDescriptor.TYPE_STRING:
        return _LONE_SURROGATE.sub("\ufffd", value)
    if one.name in ("trace_id", "span_id", "parent_span_id"):
        if not re.fullmatch("(?:[0-9a-fA-F]{2})*", value):
            raise UnreadableError
        return bytes.fromhex(value)
    if not re.fullmatch("[A-Za-z0-9+/_-]*={0,2}", value) or len(value.rstrip("=")) % 4 == 1:
        raise UnreadableError
    digits = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def _whole(value: Any, low: int, high: int) -> int:
    if not isinstance(value, str) or not _NUMERAL.fullmatch(value):
        raise UnreadableError
    if len(value) > 60 or re.search("[eE][+-]?[0-9]{4}", value):
        raise DoubtfulError
    number = Decimal(value)
    if number != number.to_integral_value() or not low <= number <= high:
        raise UnreadableError
    return int(number)


def _real(value: Any) -> float:
    if isinstance(value, str) and not isinstance(value, _Numeral) and value in _WORDS:
        return _WORDS[value]
    if not isinstance(value, str) or not _NUMERAL.fullmatch(value):
        raise UnreadableError
    if len(value) > 1000:
        raise DoubtfulError
    number = float(value)
    if math.isinf(number):
        raise UnreadableError
    return number
