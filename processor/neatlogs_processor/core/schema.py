"""Attribute keys, and the few field numbers of OTLP that the rule needs.

Keys: the identity namespace is `NAMESPACE` itself and every key that starts with `NAMESPACE` and a dot, compared byte
for byte. The shim writes the same keys down once more, because the two packages do not import each other; a test
compares them.

Field numbers: https://github.com/open-telemetry/opentelemetry-proto, `trace/v1/trace.proto`, `common/v1/common.proto`
and `resource/v1/resource.proto`. Fields that are not listed are unknown here and travel untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NAMESPACE: Final = b"neatlogs.end_user"
END_USER_ID: Final = b"neatlogs.end_user.id"
END_USER_METADATA: Final = b"neatlogs.end_user.metadata"
END_USER_SOURCE: Final = b"neatlogs.end_user.source"
SESSION_ID: Final = b"neatlogs.session.id"
SOURCE_RESOURCE: Final = "resource"
SERVICE_NAME: Final = b"service.name"

VARINT: Final = 0
FIXED64: Final = 1
LEN: Final = 2
GROUP_START: Final = 3
GROUP_END: Final = 4
FIXED32: Final = 5


@dataclass(frozen=True)
class Message:
    """What has to be known of a message type to edit its attributes in place.

    Attributes:
        name: The message's full protobuf name.
        attributes: The field number of its repeated `KeyValue` field.
        wire_types: The wire type of every known field.
        repeated: Known fields that may occur more than once.
    """

    name: str
    attributes: int
    wire_types: dict[int, int]
    repeated: frozenset[int]


REQUEST_RESOURCE_SPANS: Final = 1
RESOURCE_SPANS_RESOURCE: Final = 1
RESOURCE_SPANS_SCOPE_SPANS: Final = 2
SCOPE_SPANS_SCOPE: Final = 1
SCOPE_SPANS_SPANS: Final = 2

SPAN_TRACE_ID: Final = 1
SPAN_SPAN_ID: Final = 2
SPAN_PARENT_SPAN_ID: Final = 4
SPAN_NAME: Final = 5
SPAN_START: Final = 7
SPAN_EVENTS: Final = 11
SPAN_LINKS: Final = 13
SPAN_FLAGS: Final = 16

KEY_VALUE_KEY: Final = 1
KEY_VALUE_VALUE: Final = 2
ANY_VALUE_STRING: Final = 1

SCOPE_NAME: Final = 1

SPAN: Final = Message(
    name="opentelemetry.proto.trace.v1.Span",
    attributes=9,
    wire_types={
        1: LEN,  # trace_id
        2: LEN,  # span_id
        3: LEN,  # trace_state
        4: LEN,  # parent_span_id
        5: LEN,  # name
        6: VARINT,  # kind
        7: FIXED64,  # start_time_unix_nano
        8: FIXED64,  # end_time_unix_nano
        9: LEN,  # attributes
        10: VARINT,  # dropped_attributes_count
        11: LEN,  # events
        12: VARINT,  # dropped_events_count
        13: LEN,  # links
        14: VARINT,  # dropped_links_count
        15: LEN,  # status
        16: FIXED32,  # flags
    },
    repeated=frozenset({9, 11, 13}),
)
EVENT: Final = Message(
    name="opentelemetry.proto.trace.v1.Span.Event",
    attributes=3,
    wire_types={1: FIXED64, 2: LEN, 3: LEN, 4: VARINT},
    repeated=frozenset({3}),
)
LINK: Final = Message(
    name="opentelemetry.proto.trace.v1.Span.Link",
    attributes=4,
    wire_types={1: LEN, 2: LEN, 3: LEN, 4: LEN, 5: VARINT, 6: FIXED32},
    repeated=frozenset({4}),
)
SCOPE: Final = Message(
    name="opentelemetry.proto.common.v1.InstrumentationScope",
    attributes=3,
    wire_types={1: LEN, 2: LEN, 3: LEN, 4: VARINT},
    repeated=frozenset({3}),
)
RESOURCE: Final = Message(
    name="opentelemetry.proto.resource.v1.Resource",
    attributes=1,
    wire_types={1: LEN, 2: VARINT, 3: LEN},
    repeated=frozenset({1, 3}),
)


def in_namespace(key: bytes) -> bool:
    """Whether an attribute key, as UTF-8 bytes, belongs to the identity namespace."""
    return key.startswith(NAMESPACE) and (len(key) == len(NAMESPACE) or key[len(NAMESPACE)] == 0x2E)
