"""The source of the conformance vectors: `python tests/data/vectors/make.py` writes one JSON file for each case.

Each case says what a request is and what it has to become, both built by hand here; no code under test has a part in
it. A file holds the request and the result as OTLP JSON, for reading and for clients that have no protobuf, and the
exact bytes of both. `tests/support/vectors.py` loads them.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).parents[2]))

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.otlp_json import to_otlp_json
from support.wire_forms import FIXED32, FIXED64, GROUP, GROUP_END, LEN, VARINT, field, varint

Pairs: TypeAlias = "dict[str, bytes | str]"

CASES: dict[str, dict[str, Any]] = {}

ID, METADATA, SOURCE = (f"neatlogs.end_user.{name}" for name in ("id", "metadata", "source"))
TRACE = bytes.fromhex("5b8efff798038103d269b633813fc60c")
ROOT, CHILD, REMOTE = (bytes.fromhex(f"eee19b7ec3c1b1{last}") for last in ("73", "74", "75"))


# --- messages, in the order and with the fields that the reference encoder writes ---


def string(text: str | bytes) -> bytes:
    """An `AnyValue` that is a string."""
    return field(1, LEN, text.encode() if isinstance(text, str) else text)


def integer(number: int) -> bytes:
    """An `AnyValue` that is an int."""
    return field(3, VARINT, varint(number % (1 << 64)))


def double(number: float) -> bytes:
    """An `AnyValue` that is a double."""
    return field(4, FIXED64, struct.pack("<d", number))


def array(*values: bytes) -> bytes:
    """An `AnyValue` that is an array."""
    return field(5, LEN, b"".join(field(1, LEN, value) for value in values))


def kvlist(**members: bytes) -> bytes:
    """An `AnyValue` that is a map."""
    return field(6, LEN, b"".join(field(1, LEN, key_value(key, value)) for key, value in members.items()))


def key_value(key: str, value: bytes | str) -> bytes:
    """A `KeyValue`."""
    return field(1, LEN, key.encode()) + field(2, LEN, string(value) if isinstance(value, str) else value)


def attributes(number: int, pairs: Pairs | list[tuple[str, bytes | str]]) -> bytes:
    """A repeated `KeyValue` field."""
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return b"".join(field(number, LEN, key_value(key, value)) for key, value in items)


def times() -> bytes:
    """Start and end of a span."""
    return field(7, FIXED64, struct.pack("<Q", 1_780_000_000_000_000_000)) + field(
        8, FIXED64, struct.pack("<Q", 1_780_000_001_000_000_000)
    )


def span(
    name: str,
    pairs: Pairs | list[tuple[str, bytes | str]],
    *,
    parent: bytes = b"",
    flags: int = 0x101,
    more: bytes = b"",
) -> bytes:
    """A `Span`; children have an id of their own."""
    return (
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD if any(parent) else ROOT)
        + (field(4, LEN, parent) if parent else b"")
        + field(5, LEN, name.encode())
        + field(6, VARINT, b"\x01")
        + times()
        + attributes(9, pairs)
        + more
        + (field(16, FIXED32, struct.pack("<I", flags)) if flags else b"")
    )


def scope(pairs: Pairs | None = None) -> bytes:
    """An `InstrumentationScope`."""
    return field(1, LEN, b"app") + attributes(3, pairs or {})


def resource(pairs: Pairs | None = None) -> bytes:
    """A `Resource` of the service `chat`."""
    return attributes(1, {"service.name": "chat"} | (pairs or {}))


def request(*spans: bytes, on_resource: Pairs | None = None, on_scope: Pairs | None = None) -> bytes:
    """A request of one resource and one scope."""
    scope_spans = field(1, LEN, scope(on_scope)) + b"".join(field(2, LEN, one) for one in spans)
    return field(1, LEN, field(1, LEN, resource(on_resource)) + field(2, LEN, scope_spans))


IDENTITY: Pairs = {ID: "u_812", METADATA: '{"plan":"pro"}', SOURCE: "trace"}
FORGED: Pairs = {ID: "u_666", METADATA: '{"plan":"free"}', SOURCE: "trace"}
PLAIN: Pairs = {"http.route": "/chat"}
NEEDS_NOTHING = request(span("chat", PLAIN | IDENTITY), span("llm", PLAIN, parent=ROOT))


def case(
    name: str,
    about: str,
    sent: bytes,
    becomes: bytes | None,
    *,
    entry_services: tuple[str, ...] = (),
    overrides: list[list[str]] | None = None,
    **counts: int,
) -> None:
    """Add a case.

    Args:
        becomes: What leaves; the request itself where it is to stay as it is; None where it is refused.
        entry_services: Services whose entry spans own identity; none: the default policy.
        overrides: Place, service, span or scope name, and key of each ignored override.
        counts: Those that are not zero.
    """
    assert name not in CASES
    CASES[name] = {
        "about": about,
        "policy": {"roots": "entry" if entry_services else "trace", "entry_services": list(entry_services)},
        "request": _readable(sent),
        "request_bytes": base64.b64encode(sent).decode(),
        "expected": None if becomes is None else _readable(becomes),
        "expected_bytes": None if becomes is None else base64.b64encode(becomes).decode(),
        "unchanged": becomes == sent,
        "counts": counts,
        "overrides": overrides or [],
    }


def _readable(body: bytes) -> Any:
    try:
        return to_otlp_json(ExportTraceServiceRequest.FromString(body))
    except Exception:
        return None


# --- what stays ---

case("empty-request", "A request without spans is a request.", b"", b"")
case(
    "root-owns-identity",
    "Identity on the root span stays, byte for byte.",
    NEEDS_NOTHING,
    NEEDS_NOTHING,
    spans=2,
    roots=1,
    roots_with_identity=1,
)
_quotes = request(
    span("chat", PLAIN),
    span("llm", {"input.value": 'What is "neatlogs.end_user.id"?', "deep": kvlist(**{ID: string("u_1")})}, parent=ROOT),
)
case("quoted-in-a-prompt", "The key inside another attribute's value is data.", _quotes, _quotes, spans=2, roots=1)
_imitates = request(span("chat", PLAIN), span("llm", [("input.value", string(attributes(9, FORGED)))], parent=ROOT))
case(
    "prompt-imitates-the-wire",
    "A prompt that looks like an attribute on the wire is data.",
    _imitates,
    _imitates,
    spans=2,
    roots=1,
)
_similar = request(
    span("chat", PLAIN),
    span("llm", {"neatlogs.end_users": "x", "neatlogs.end_user_id": "y", "Neatlogs.end_user.id": "z"}, parent=ROOT),
)
case("similar-keys", "Keys that only resemble the namespace are no identity.", _similar, _similar, spans=2, roots=1)
_zero = request(span("chat", IDENTITY, parent=bytes(8)))
case(
    "all-zero-parent", "A parent id of zero bytes is no parent.", _zero, _zero, spans=1, roots=1, roots_with_identity=1
)
_odd_zero = request(span("chat", IDENTITY, parent=bytes(3)))
case(
    "all-zero-parent-of-odd-length",
    "However many zero bytes a parent id has, it is no parent.",
    _odd_zero,
    _odd_zero,
    spans=1,
    roots=1,
    roots_with_identity=1,
)
_blank = request(span("chat", {ID: "  "}))
case("blank-id-on-root", "A blank id stays as it is and names nobody.", _blank, _blank, spans=1, roots=1)
_more = request(span("chat", {**IDENTITY, "neatlogs.end_user.tier": "gold", "neatlogs.end_user": "yes"}))
case(
    "whole-namespace-on-root",
    "The root owns every key of the namespace.",
    _more,
    _more,
    spans=1,
    roots=1,
    roots_with_identity=1,
)
_unknown = NEEDS_NOTHING + field(77, LEN, b"neatlogs.end_user.id")
case(
    "unknown-fields-travel",
    "Fields that nobody knows arrive as they were sent.",
    _unknown,
    _unknown,
    spans=2,
    roots=1,
    roots_with_identity=1,
)

# --- overrides ---

_CHILD_OVERRIDES = [["child", "chat", "llm", key] for key in IDENTITY]
case(
    "child-override",
    "Identity on a child is ignored; the root's stays.",
    request(span("chat", IDENTITY), span("llm", PLAIN | FORGED, parent=ROOT)),
    request(span("chat", IDENTITY), span("llm", PLAIN, parent=ROOT)),
    overrides=_CHILD_OVERRIDES,
    spans=2,
    roots=1,
    roots_with_identity=1,
    child=3,
)
case(
    "child-override-without-root",
    "A child's identity is ignored also where its root is in another request.",
    request(span("llm", FORGED | PLAIN, parent=ROOT)),
    request(span("llm", PLAIN, parent=ROOT)),
    overrides=_CHILD_OVERRIDES,
    spans=1,
    child=3,
)
case(
    "child-with-parent-of-odd-length",
    "A parent id of odd length is a parent all the same.",
    request(span("llm", PLAIN | {ID: "u_666"}, parent=b"\x01")),
    request(span("llm", PLAIN, parent=b"\x01")),
    overrides=[["child", "chat", "llm", ID]],
    spans=1,
    child=1,
)
case(
    "event-override",
    "Identity on an event is ignored, on a root span too.",
    request(span("chat", IDENTITY, more=field(11, LEN, field(2, LEN, b"login") + attributes(3, PLAIN | FORGED)))),
    request(span("chat", IDENTITY, more=field(11, LEN, field(2, LEN, b"login") + attributes(3, PLAIN)))),
    overrides=[["event", "chat", "chat", key] for key in IDENTITY],
    spans=1,
    roots=1,
    roots_with_identity=1,
    event=3,
)
case(
    "link-override",
    "Identity on a link is ignored.",
    request(
        span(
            "chat",
            PLAIN,
            more=field(13, LEN, field(1, LEN, TRACE) + field(2, LEN, REMOTE) + attributes(4, {ID: "u_666"})),
        )
    ),
    request(span("chat", PLAIN, more=field(13, LEN, field(1, LEN, TRACE) + field(2, LEN, REMOTE)))),
    overrides=[["link", "chat", "chat", ID]],
    spans=1,
    roots=1,
    link=1,
)
case(
    "scope-override",
    "Identity on an instrumentation scope is ignored.",
    request(span("chat", PLAIN), on_scope=PLAIN | FORGED),
    request(span("chat", PLAIN), on_scope=PLAIN),
    overrides=[["scope", "chat", "app", key] for key in IDENTITY],
    spans=1,
    roots=1,
    scope=3,
)

# --- values on roots ---

case(
    "int-id",
    "An id that is an int becomes its decimal digits.",
    request(span("chat", {ID: integer(-42)})),
    request(span("chat", {ID: "-42"})),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "map-metadata",
    "Metadata that is a map becomes its JSON: keys sorted, compact, bytes as base64, odd numbers as strings.",
    request(
        span(
            "chat",
            {
                ID: "u_812",
                METADATA: kvlist(
                    plan=string("pro"),
                    age=integer(41),
                    ratio=double(0.5),
                    nan=double(float("nan")),
                    inf=double(float("-inf")),
                    raw=field(7, LEN, b"\x00\xff"),
                    tags=array(string("a"), string("ü")),
                    nested=kvlist(b=field(2, VARINT, b"\x01"), a=b""),
                ),
            },
        )
    ),
    request(
        span(
            "chat",
            {
                ID: "u_812",
                METADATA: '{"age":41,"inf":"-Infinity","nan":"NaN","nested":{"a":null,"b":true},"plan":"pro",'
                '"ratio":0.5,"raw":"AP8=","tags":["a","ü"]}',
            },
        )
    ),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "unusable-values",
    "Other values that are no strings are removed and counted.",
    request(span("chat", {ID: field(2, VARINT, b"\x01"), METADATA: integer(7), SOURCE: array(), **PLAIN})),
    request(span("chat", PLAIN)),
    spans=1,
    roots=1,
    invalid=3,
)
case(
    "duplicates-on-root",
    "Of duplicates the first usable value stays.",
    request(span("chat", [(ID, double(1.0)), (ID, "u_812"), (ID, "u_666"), (METADATA, "{}"), (METADATA, '{"a":1}')])),
    request(span("chat", [(ID, "u_812"), (METADATA, "{}")])),
    spans=1,
    roots=1,
    roots_with_identity=1,
    invalid=3,
)
case(
    "blank-id-yields",
    "An id that names nobody yields to a later one that does.",
    request(span("chat", [(ID, ""), (ID, " "), (ID, "u_812"), (ID, "u_999")])),
    request(span("chat", {ID: "u_812"})),
    spans=1,
    roots=1,
    roots_with_identity=1,
    invalid=3,
)

# --- resource defaults ---

case(
    "resource-default",
    "A resource's identity is the default of its roots, and leaves the resource.",
    request(
        span("chat", PLAIN), span("llm", PLAIN, parent=ROOT), on_resource={ID: "u_812", METADATA: '{"plan":"pro"}'}
    ),
    request(
        span(
            "chat",
            PLAIN,
            flags=0,
            more=field(16, FIXED32, struct.pack("<I", 0x101)) + attributes(9, {**IDENTITY, SOURCE: "resource"}),
        ),
        span("llm", PLAIN, parent=ROOT),
    ),
    spans=2,
    roots=1,
    roots_with_identity=1,
    defaults_moved=2,
)
case(
    "resource-default-loses",
    "A root with an id of its own takes nothing from the default: one user's id never meets another's metadata.",
    request(span("chat", {ID: "u_999"}), on_resource={ID: "u_812", METADATA: '{"plan":"pro"}', SOURCE: "init"}),
    request(span("chat", {ID: "u_999"})),
    spans=1,
    roots=1,
    roots_with_identity=1,
    defaults_moved=3,
)
case(
    "resource-default-beside-metadata",
    "A root with metadata alone takes the default's id and keeps its metadata and its source.",
    request(span("chat", {METADATA: '{"a":1}', SOURCE: "trace"}, flags=0), on_resource={ID: "u_812", METADATA: "{}"}),
    request(span("chat", {METADATA: '{"a":1}', SOURCE: "trace", ID: "u_812"}, flags=0)),
    spans=1,
    roots=1,
    roots_with_identity=1,
    defaults_moved=2,
)
case(
    "resource-metadata-alone",
    "A default with metadata alone lands on roots that have neither.",
    request(span("a", {}, flags=0), span("b", {ID: "u_999"}), on_resource={METADATA: '{"plan":"pro"}'}),
    request(span("a", {METADATA: '{"plan":"pro"}', SOURCE: "resource"}, flags=0), span("b", {ID: "u_999"})),
    spans=2,
    roots=2,
    roots_with_identity=1,
    defaults_moved=1,
)
case(
    "resource-default-int",
    "A default is read as a root's own identity is.",
    request(span("chat", {}, flags=0), on_resource={ID: integer(7)}),
    request(span("chat", {ID: "7", SOURCE: "resource"}, flags=0)),
    spans=1,
    roots=1,
    roots_with_identity=1,
    defaults_moved=1,
)
case(
    "refused-id-takes-no-default",
    "An id that is of no use ends the matter: the trace is nobody's, not the default's.",
    request(span("chat", {ID: field(2, VARINT, b"\x01")}), on_resource={ID: "u_812"}),
    request(span("chat", {})),
    spans=1,
    roots=1,
    defaults_moved=1,
    invalid=1,
)
_first, _second = field(1, LEN, resource({ID: "u_812"})), field(2, LEN, field(2, LEN, span("chat", {}, flags=0)))
case(
    "resource-after-its-spans",
    "A default counts wherever the resource stands.",
    field(1, LEN, _second + _first),
    field(
        1,
        LEN,
        field(2, LEN, field(2, LEN, span("chat", {ID: "u_812", SOURCE: "resource"}, flags=0)))
        + field(1, LEN, resource()),
    ),
    spans=1,
    roots=1,
    roots_with_identity=1,
    defaults_moved=1,
)
_late_resource = field(1, LEN, resource({ID: "u_812"}))
_landed, _cut = span("chat", {ID: "u_812", SOURCE: "resource"}, flags=0), span("llm", PLAIN, parent=ROOT, flags=0)
_claims = span("llm", {**PLAIN, ID: "u_666"}, parent=ROOT, flags=0)
case(
    "resource-after-an-override",
    "Where the resource stands last, overrides in front of it are ignored all the same.",
    field(1, LEN, field(2, LEN, field(2, LEN, span("chat", {}, flags=0)) + field(2, LEN, _claims)) + _late_resource),
    field(1, LEN, field(2, LEN, field(2, LEN, _landed) + field(2, LEN, _cut)) + field(1, LEN, resource())),
    overrides=[["child", "chat", "llm", ID]],
    spans=2,
    roots=1,
    roots_with_identity=1,
    defaults_moved=1,
    child=1,
)

# --- entry spans ---

_entry = request(span("POST /chat", IDENTITY, parent=REMOTE, flags=0x301))
case(
    "entry-span-owns-identity",
    "Where the policy lists the service, a span with a remote parent owns identity.",
    _entry,
    _entry,
    entry_services=("chat",),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "entry-span-of-an-unlisted-service",
    "A service that is not listed has no entry spans.",
    _entry,
    request(span("POST /chat", {}, parent=REMOTE, flags=0x301)),
    entry_services=("search",),
    overrides=[["child", "chat", "POST /chat", key] for key in IDENTITY],
    spans=1,
    child=3,
)
case(
    "entry-span-under-the-strict-policy",
    "By default a span with a remote parent is a child as any other.",
    _entry,
    request(span("POST /chat", {}, parent=REMOTE, flags=0x301)),
    overrides=[["child", "chat", "POST /chat", key] for key in IDENTITY],
    spans=1,
    child=3,
)
case(
    "local-child-in-entry-mode",
    "A child whose parent is local, or not known to be remote, is no entry span.",
    request(span("a", {ID: "u_666"}, parent=ROOT, flags=0x101), span("b", {ID: "u_666"}, parent=ROOT, flags=0x201)),
    request(span("a", {}, parent=ROOT, flags=0x101), span("b", {}, parent=ROOT, flags=0x201)),
    entry_services=("chat",),
    overrides=[["child", "chat", "a", ID], ["child", "chat", "b", ID]],
    spans=2,
    child=2,
)

# --- byte orders of real exporters ---


def _collector(pairs: Pairs, parent: bytes) -> bytes:
    """As the Collector writes a span: the flags stand before the name."""
    return (
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD if parent else ROOT)
        + field(3, LEN, b"vendor=1")
        + field(4, LEN, parent)
        + field(16, FIXED32, struct.pack("<I", 0x101))
        + field(5, LEN, b"llm")
        + field(6, VARINT, b"\x01")
        + times()
        + attributes(9, pairs)
        + field(15, LEN, b"")
    )


def _ascending(pairs: Pairs, parent: bytes) -> bytes:
    """As Go, Java and Rust write a span: by field number, without what is zero or empty."""
    return (
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD if parent else ROOT)
        + (field(4, LEN, parent) if parent else b"")
        + field(5, LEN, b"llm")
        + field(6, VARINT, b"\x01")
        + times()
        + attributes(9, pairs)
        + field(16, FIXED32, struct.pack("<I", 0x101))
    )


def _padded(number: int, payload: bytes) -> bytes:
    """As .NET writes a message: it leaves four bytes for a length that it fills in afterwards."""
    return field(number, LEN, payload, length_padding=3 if len(payload) < 0x80 else 2)


def _dotnet(pairs: Pairs, parent: bytes) -> bytes:
    return (
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD if parent else ROOT)
        + (field(4, LEN, parent) if parent else b"")
        + field(16, FIXED32, struct.pack("<I", 0x101))
        + field(5, LEN, b"llm")
        + field(6, VARINT, b"\x01")
        + times()
        + b"".join(
            _padded(9, field(1, LEN, key.encode()) + _padded(2, string(str(value)))) for key, value in pairs.items()
        )
        + _padded(15, b"")
    )


def _javascript(pairs: Pairs, parent: bytes) -> bytes:
    """As JavaScript writes a span: what is zero or empty is written all the same."""
    return (
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD if parent else ROOT)
        + (field(4, LEN, parent) if parent else b"")
        + field(5, LEN, b"llm")
        + field(6, VARINT, b"\x01")
        + times()
        + attributes(9, pairs)
        + field(10, VARINT, b"\x00")
        + field(12, VARINT, b"\x00")
        + field(14, VARINT, b"\x00")
        + field(15, LEN, field(3, VARINT, b"\x00"))
        + field(16, FIXED32, struct.pack("<I", 0x101))
    )


def _reversed(pairs: Pairs, parent: bytes) -> bytes:
    """As some encoders do that write from the back: attributes before the parent id."""
    return (
        attributes(9, pairs)
        + times()
        + field(5, LEN, b"llm")
        + (field(4, LEN, parent) if parent else b"")
        + field(2, LEN, CHILD if parent else ROOT)
        + field(1, LEN, TRACE)
    )


_STYLES: dict[str, tuple[str, Callable[[Pairs, bytes], bytes]]] = {
    "collector": ("The Collector's order of fields.", _collector),
    "go-java-rust": ("Go's, Java's and Rust's order: by field number, without what is zero or empty.", _ascending),
    "dotnet": (".NET's lengths, longer than they need to be.", _dotnet),
    "javascript": ("JavaScript's explicit zeros.", _javascript),
    "reversed": ("Attributes before the parent id.", _reversed),
}
for _style, (_about, _write) in _STYLES.items():
    case(
        f"byte-order-{_style}",
        f"{_about} What is not cut stays as it was written.",
        request(_write(PLAIN | IDENTITY, b""), _write(FORGED | PLAIN, ROOT)),
        request(_write(PLAIN | IDENTITY, b""), _write(PLAIN, ROOT)),
        overrides=_CHILD_OVERRIDES,
        spans=2,
        roots=1,
        roots_with_identity=1,
        child=3,
    )

# --- adversarial encodings ---

_twice = span("llm", FORGED | PLAIN, parent=ROOT, flags=0)
case(
    "parent-twice-last-empty",
    "Of two parent ids the last counts, and afterwards there is one: no reader takes the span for a child.",
    request(span("chat", {ID: "u_812"}, parent=ROOT, flags=0, more=field(4, LEN, b""))),
    request(
        field(1, LEN, TRACE)
        + field(2, LEN, CHILD)
        + field(5, LEN, b"chat")
        + field(6, VARINT, b"\x01")
        + times()
        + attributes(9, {ID: "u_812"})
    ),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "parent-twice-last-set",
    "Of two parent ids the last counts: the span is a child.",
    request(field(4, LEN, bytes(8)) + _twice),
    request(span("llm", PLAIN, parent=ROOT, flags=0)),
    overrides=_CHILD_OVERRIDES,
    spans=1,
    child=3,
)
_two_keys = field(1, LEN, b"harmless") + key_value(ID, "u_666")
case(
    "key-twice-last-identity",
    "Of two keys the last counts: the attribute is an override.",
    request(span("llm", PLAIN, parent=ROOT, flags=0, more=field(9, LEN, _two_keys))),
    request(span("llm", PLAIN, parent=ROOT, flags=0)),
    overrides=[["child", "chat", "llm", ID]],
    spans=1,
    child=1,
)
case(
    "key-twice-last-harmless",
    "Of two keys the last counts, and afterwards there is one: no reader sees an override.",
    request(
        span("llm", PLAIN, parent=ROOT, flags=0, more=field(9, LEN, key_value(ID, "x") + field(1, LEN, b"harmless")))
    ),
    request(span("llm", PLAIN, parent=ROOT, flags=0, more=attributes(9, {"harmless": "x"}))),
    spans=1,
)
case(
    "value-set-twice",
    "Of two values the last counts, and afterwards there is one.",
    request(span("chat", {ID: string("u_666") + string("u_812")}, flags=0)),
    request(span("chat", {ID: "u_812"}, flags=0)),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "value-of-two-types",
    "A string in a field that is no string's is no second value, but it is not left for a reader to find.",
    request(span("chat", {ID: string("u_812") + field(4, VARINT, b"\x01")}, flags=0)),
    request(span("chat", {ID: string("u_812") + field(4, VARINT, b"\x01")}, flags=0)),
    spans=1,
    roots=1,
    roots_with_identity=1,
)
case(
    "resource-twice",
    "A resource that stands twice is one: the attributes of both, in order.",
    field(
        1,
        LEN,
        field(1, LEN, resource({ID: "u_812"}))
        + field(1, LEN, attributes(1, {ID: "u_666", "host.name": "h"}))
        + field(2, LEN, field(2, LEN, span("chat", {}, flags=0))),
    ),
    field(
        1,
        LEN,
        field(1, LEN, resource({"host.name": "h"}))
        + field(2, LEN, field(2, LEN, span("chat", {ID: "u_812", SOURCE: "resource"}, flags=0))),
    ),
    spans=1,
    roots=1,
    roots_with_identity=1,
    defaults_moved=2,
    invalid=1,
)
case(
    "group-beside-identity",
    "A group in a container that holds identity is refused.",
    request(span("llm", FORGED, parent=ROOT, more=field(99, GROUP, b"") + field(99, GROUP_END, b""))),
    None,
)
case("truncated", "A request that ends in the middle of a field is refused.", NEEDS_NOTHING[:-1], None)
case("trailing-byte", "A request with a byte too many is refused.", NEEDS_NOTHING + b"\x0a", None)
case(
    "length-past-its-container",
    "A span whose length leads out of its scope is refused.",
    field(1, LEN, field(2, LEN, b"\x12\x05\x0a\x01") + field(3, LEN, b"http://schema")),
    None,
)
case(
    "attribute-past-its-span",
    "An attribute whose length leads out of its span is refused where identity is near.",
    request(span("llm", FORGED, parent=ROOT, flags=0, more=b"\x4a\x30" + b"x" * 5)),
    None,
)
case("not-protobuf", "What is not protobuf is refused.", b'{"resourceSpans":[]}', None)


def main() -> None:
    """Write the files, and remove those of cases that are gone."""
    folder = Path(__file__).parent
    for stale in folder.glob("*.json"):
        if stale.stem not in CASES:
            stale.unlink()
    for name, content in CASES.items():
        (folder / f"{name}.json").write_text(render(content))


def render(content: dict[str, Any]) -> str:
    """The text of a case's file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
