"""Trace requests in every form that the wire allows, as hypothesis strategies, and a reader that trusts nobody.

The strategies draw messages field by field: in any order, with lengths and tags longer than they need to be, with
explicit defaults, with singular fields twice, with wrong wire types, unknown fields and, where asked for, groups.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from hypothesis import strategies as st

from support.oracle import is_identity

VARINT, FIXED64, LEN, GROUP, GROUP_END, FIXED32 = range(6)

KEYS: Final = (
    "neatlogs.end_user.id",
    "neatlogs.end_user.metadata",
    "neatlogs.end_user.source",
    "neatlogs.end_user",
    "neatlogs.end_user.other",
    "neatlogs.end_users",
    "neatlogs.end_user_id",
    "xneatlogs.end_user.id",
    "Neatlogs.end_user.id",
    "service.name",
    "input.value",
    "user.id",
    "session.id",
    "langfuse.trace.metadata.plan",
    "",
    "neatlogs.end_user." + "k" * 130,
)
TEXTS: Final = (
    "",
    " ",
    "u_812",
    "u_999",
    "a prompt that quotes neatlogs.end_user.id",
    "\n\x14neatlogs.end_user.id\x12\x07\n\x05u_812",
    "checkout",
    '{"plan":"pro"}',
    "a prompt that quotes user.id",
    "é\U0001f600 نص",
    "z" * 200,
)


def varint(value: int, padding: int = 0) -> bytes:
    """A varint that is `padding` bytes longer than it needs to be, ten bytes at most."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    extra = min(padding, 10 - len(out))
    if extra > 0:
        out[-1] |= 0x80
        out += b"\x80" * (extra - 1) + b"\0"
    return bytes(out)


def field(number: int, wire_type: int, payload: bytes, *, tag_padding: int = 0, length_padding: int = 0) -> bytes:
    """One field; for LEN the length is written before the payload."""
    tag = varint(number << 3 | wire_type, tag_padding)
    return tag + (varint(len(payload), length_padding) if wire_type == LEN else b"") + payload


# The official reader takes at most five bytes of a tag or length; padding up to that keeps it as the judge.
_paddings = st.sampled_from((0, 0, 0, 0, 1, 3))


def _short(strategy: st.SearchStrategy[bytes], number: int, wire_type: int = LEN) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda payload, tag_padding, length_padding: field(
            number,
            wire_type,
            payload,
            tag_padding=min(tag_padding, 3),
            length_padding=min(length_padding, 4 - (len(payload) > 127)),
        ),
        strategy,
        _paddings,
        _paddings,
    )


def _scalars(number: int) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda value, padding: field(number, VARINT, varint(value, padding)),
        st.sampled_from((0, 1, 2, 300, 1 << 40, (1 << 64) - 1)),
        _paddings,
    )


def _odd(known: int, groups: bool) -> st.SearchStrategy[bytes]:
    """A field that nobody expects: unknown, of the wrong wire type, or a group."""
    numbers = st.integers(1, known + 2) | st.sampled_from((99, 1000, 536870911))
    forms = [
        st.builds(lambda n: field(n, VARINT, b"\x07"), numbers),
        st.builds(lambda n: field(n, FIXED64, b"neatlogs"), numbers),
        st.builds(lambda n: field(n, FIXED32, b"user"), numbers),
        st.builds(lambda n: field(n + known + 2, LEN, b"neatlogs.end_user.id"), st.integers(1, 90)),
    ]
    if groups:
        forms.append(
            st.builds(
                lambda n, inside: field(n, GROUP, inside) + field(n, GROUP_END, b""),
                numbers,
                st.sampled_from((b"", b"\x08\x01", field(1, LEN, b"neatlogs.end_user.id"))),
            )
        )
    return st.one_of(forms)


def _message(parts: list[st.SearchStrategy[bytes]], *, known: int, groups: bool) -> st.SearchStrategy[bytes]:
    """A message of these parts: mostly each once and in order, at times shuffled, repeated, or with odd fields."""
    tidy = st.tuples(*(part | st.just(b"") for part in parts)).map(b"".join)
    wild = st.lists(st.one_of([*parts, _odd(known, groups)]), max_size=len(parts) + 3).map(b"".join)
    return st.one_of(tidy, tidy, tidy, wild)


# Makes a span as long as real ones are: with a length of two bytes.
_LONG = field(9, LEN, field(1, LEN, b"output.value") + field(2, LEN, field(1, LEN, b"long " * 30)))
_texts = st.sampled_from(TEXTS).map(str.encode)
_keys = st.sampled_from(KEYS).map(str.encode)


def _any_values(groups: bool) -> st.SearchStrategy[bytes]:
    scalar = st.one_of(
        _short(_texts, 1),
        _scalars(2),
        _scalars(3),
        st.sampled_from((0.0, 1.5, float("nan"), float("inf"), float("-inf"))).map(
            lambda number: field(4, FIXED64, struct.pack("<d", number))
        ),
        _short(st.binary(max_size=3), 7),
        st.just(b""),
    )
    nested = st.recursive(
        scalar,
        lambda inner: st.one_of(
            st.lists(_short(inner, 1), max_size=2).map(lambda items: field(5, LEN, b"".join(items))),
            st.lists(
                st.builds(
                    lambda key, value: field(1, LEN, field(1, LEN, key) + field(2, LEN, value)),
                    st.sampled_from((b"b", b"a", b"neatlogs.end_user.id", "é".encode())),
                    inner,
                ),
                max_size=3,
            ).map(lambda members: field(6, LEN, b"".join(members))),
        ),
        max_leaves=4,
    )
    twice = st.lists(st.one_of(nested, _odd(7, groups)), max_size=2).map(b"".join)
    return st.one_of(_short(_texts, 1), nested, twice)


def _key_values(groups: bool) -> st.SearchStrategy[bytes]:
    return _message([_short(_keys, 1), _short(_any_values(groups), 2)], known=3, groups=groups)


def spans(*, groups: bool = False) -> st.SearchStrategy[bytes]:
    """`Span` messages."""
    ids = st.sampled_from((b"\x11" * 8, b"\0\0\0\0\0\0\0\x01", b"\0" * 8, b"\0" * 3, b"\x01", b""))
    attributes = st.lists(_short(_key_values(groups), 9), max_size=5).map(b"".join)
    event = _message(
        [_short(_texts, 2), _short(_key_values(groups), 3), _short(_key_values(groups), 3)], known=4, groups=groups
    )
    link = _message([_short(ids, 2), _short(_key_values(groups), 4), _scalars(5)], known=6, groups=groups)
    return _message(
        [
            st.just(field(1, LEN, b"\xab" * 16)),
            st.just(field(2, LEN, b"\xcd" * 8)),
            _short(st.sampled_from((b"", b"vendor=1")), 3),
            _short(ids, 4),
            st.sampled_from((0, 0x100, 0x300, 0x301)).map(lambda flags: field(16, FIXED32, struct.pack("<I", flags))),
            _short(_texts, 5),
            _scalars(6),
            st.just(field(7, FIXED64, b"neatlogs")),
            st.just(field(8, FIXED64, b"12345678")),
            attributes,
            st.just(_LONG),
            attributes,
            _scalars(10),
            _short(event, 11),
            _short(link, 13),
            st.sampled_from((field(15, LEN, b""), field(15, LEN, field(2, LEN, b"no") + field(3, VARINT, b"\x02")))),
        ],
        known=16,
        groups=groups,
    )


def requests(*, groups: bool = False) -> st.SearchStrategy[bytes]:
    """`ExportTraceServiceRequest` messages."""
    resource = _message(
        [st.lists(_short(_key_values(groups), 1), max_size=4).map(b"".join), _scalars(2)], known=3, groups=groups
    )
    scope = _message(
        [_short(_texts, 1), _short(_texts, 2), _short(_key_values(groups), 3), _short(_key_values(groups), 3)],
        known=4,
        groups=groups,
    )
    many_spans = st.lists(_short(spans(groups=groups), 2), max_size=4).map(b"".join)
    scope_spans = _message([_short(scope, 1), many_spans, _short(_texts, 3)], known=3, groups=groups)
    many_scopes = st.lists(_short(scope_spans, 2), max_size=2).map(b"".join)
    resource_spans = _message([_short(resource, 1), many_scopes, _short(_texts, 3)], known=3, groups=groups)
    return st.lists(_short(resource_spans, 1) | _odd(1, groups), max_size=3).map(b"".join)


def read_fields(buf: bytes) -> list[tuple[int, int, bytes]]:
    """Field number, wire type and payload of each field; groups are left out. For well-formed messages only."""
    out = []
    pos = 0
    depth = 0
    while pos < len(buf):
        tag, pos = _varint_at(buf, pos)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == GROUP:
            depth += 1
            continue
        if wire_type == GROUP_END:
            depth -= 1
            continue
        if wire_type == LEN:
            length, pos = _varint_at(buf, pos)
            after = pos + length
        elif wire_type == VARINT:
            _, after = _varint_at(buf, pos)
        else:
            after = pos + (8 if wire_type == FIXED64 else 4)
        assert after <= len(buf)
        if not depth:
            out.append((number, wire_type, buf[pos:after]))
        pos = after
    return out


def _varint_at(buf: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, pos


def visible_overrides(body: bytes, *, entry: bool = False) -> Iterator[str]:
    """Every place where some reader of the request could see an override.

    Takes each occurrence of a field for the one that counts: any of two parents, any of two keys.
    """
    for _, _, resource_spans in _len_fields(body, 1):
        for _, _, resource in _len_fields(resource_spans, 1):
            yield from _identity_in(resource, 1, "resource")
        for _, _, scope_spans in _len_fields(resource_spans, 2):
            for _, _, scope in _len_fields(scope_spans, 1):
                yield from _identity_in(scope, 3, "scope")
            for _, _, span in _len_fields(scope_spans, 2):
                for _, _, event in _len_fields(span, 11):
                    yield from _identity_in(event, 3, "event")
                for _, _, link in _len_fields(span, 13):
                    yield from _identity_in(link, 4, "link")
                if not entry and any(any(parent) for _, _, parent in _len_fields(span, 4)):
                    yield from _identity_in(span, 9, "child")


def _len_fields(buf: bytes, number: int) -> list[tuple[int, int, bytes]]:
    return [one for one in read_fields(buf) if one[:2] == (number, LEN)]


def _identity_in(message: bytes, attributes: int, place: str) -> Iterator[str]:
    for _, _, attribute in _len_fields(message, attributes):
        for _, _, key in _len_fields(attribute, 1):
            if is_identity(key.decode("utf-8", "replace")):
                yield place


def names_a_parent_oddly(body: bytes) -> bool:
    """Whether some span of the request has several parent span ids, or one in an encoding that no exporter writes."""
    return any(
        len(parents) > 1 or (len(parents) == 1 and (len(parents[0]) != 8 or field(4, LEN, parents[0]) not in span))
        for _, _, resource_spans in _len_fields(body, 1)
        for _, _, scope_spans in _len_fields(resource_spans, 2)
        for _, _, span in _len_fields(scope_spans, 2)
        for parents in [[parent for _, _, parent in _len_fields(span, 4)]]
    )
