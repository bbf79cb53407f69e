"""Reading and rewriting the wire format, without a schema."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.core.wire import Editor, encode_len, encode_varint, fields, read_varint
from neatlogs_processor.errors import MalformedOtlpError
from support.wire_forms import FIXED32, FIXED64, GROUP, GROUP_END, LEN, VARINT, field, varint


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 9))
def test_varints_of_every_length_are_read(value: int, padding: int) -> None:
    """A varint means the same with and without padding, up to ten bytes."""
    encoded = varint(value, padding)
    assert read_varint(b"x" + encoded + b"y", 1, len(encoded) + 2) == (value, len(encoded) + 1)


@given(st.integers(0, (1 << 64) - 1))
def test_varints_are_written_as_short_as_can_be(value: int) -> None:
    """What is written is what the reference writes."""
    assert encode_varint(value) == varint(value)


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (b"", "nothing"),
        (b"\x80", "cut off"),
        (b"\x80" * 10 + b"\x01", "eleven bytes"),
        (b"\xff" * 9 + b"\x02", "more than 64 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_varints_are_refused(encoded: bytes, what: str) -> None:
    """A varint that is cut off, too long or too large is an error."""
    with pytest.raises(MalformedOtlpError, match="varint"):
        read_varint(encoded, 0, len(encoded))


def test_fields_are_found_where_they_stand() -> None:
    """Each field tells its number, its type and its places."""
    buf = field(1, VARINT, b"\x96\x01") + field(2, LEN, b"ab", length_padding=2) + field(900, FIXED32, b"1234")
    found = list(fields(buf, 0, len(buf), refuse_groups=True))
    assert [(one.number, one.wire_type, buf[one.start : one.end]) for one in found] == [
        (1, VARINT, b"\x96\x01"),
        (2, LEN, b"ab"),
        (900, FIXED32, b"1234"),
    ]
    assert [one.end for one in found[:-1]] == [one.tag for one in found[1:]]


@pytest.mark.parametrize(
    "buf",
    [
        b"\x00\x00",  # field number 0
        b"\x07",  # field number 0, no wire type
        b"\x0e",  # wire type 6
        b"\x0f",  # wire type 7
        b"\x0c",  # the end of a group that is not open
        b"\xff\xff\xff\xff\x1f\x00",  # a tag of 33 bits
        b"\x09" + b"1234567",  # seven bytes of eight
        b"\x0d" + b"123",  # three bytes of four
        b"\x0a\x05abcd",  # four bytes of five
        b"\x08",  # no value
    ],
    ids=lambda buf: buf.hex(),
)
def test_what_is_no_field_is_refused(buf: bytes) -> None:
    """Tags that are not a field's, and payloads that lead out of the message, are errors."""
    with pytest.raises(MalformedOtlpError):
        list(fields(buf, 0, len(buf), refuse_groups=False))


def test_groups_are_skipped_whole() -> None:
    """Where groups may stand, one is a single field with everything in it, groups included."""
    inside = field(5, LEN, b"abc") + field(6, GROUP, field(7, FIXED64, b"12345678")) + field(6, GROUP_END, b"")
    buf = field(4, GROUP, inside) + field(4, GROUP_END, b"") + field(1, VARINT, b"\x01")
    assert [one.number for one in fields(buf, 0, len(buf), refuse_groups=False)] == [4, 1]


@pytest.mark.parametrize(
    ("buf", "what"),
    [
        (field(4, GROUP, b""), "is not closed"),
        (field(4, GROUP, b"") + field(5, GROUP_END, b""), "is closed by another"),
        (b"".join(field(1, GROUP, b"") for _ in range(101)), "is too deep"),
        (field(4, GROUP, b"\x00\x00") + field(4, GROUP_END, b""), "holds what is no field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_groups_are_refused(buf: bytes, what: str) -> None:
    """A group that does not add up is an error, also where groups may stand."""
    with pytest.raises(MalformedOtlpError, match="group"):
        list(fields(buf, 0, len(buf), refuse_groups=False))


def test_groups_are_refused_where_asked() -> None:
    """Where groups may not stand, one is an error."""
    buf = field(4, GROUP, b"") + field(4, GROUP_END, b"")
    with pytest.raises(MalformedOtlpError, match="group"):
        list(fields(buf, 0, len(buf), refuse_groups=True))


def test_an_editor_without_edits_returns_its_buffer() -> None:
    """Containers that are opened and closed without an edit leave the very same object."""
    buf = encode_len(1, b"abc")
    editor = Editor(buf)
    editor.close(editor.open(), 1, 2, 5)
    assert editor.result() is buf


@given(st.binary(max_size=40), st.integers(0, 300))
def test_lengths_follow_their_contents(kept: bytes, grown: int) -> None:
    """Every length prefix around an edit is right afterwards, however long it has become."""
    inner = encode_len(3, b"out") + encode_len(3, kept)
    buf = encode_len(1, encode_len(2, inner))
    outer_start, inner_start = len(buf) - len(encode_len(2, inner)), len(buf) - len(inner)
    editor = Editor(buf)
    outer_mark = editor.open()
    inner_mark = editor.open()
    editor.replace(inner_start, inner_start + 5, encode_len(4, b"n" * grown))
    editor.close(inner_mark, outer_start + 1, inner_start, len(buf))
    editor.close(outer_mark, 1, outer_start, len(buf))
    assert editor.result() == encode_len(1, encode_len(2, encode_len(4, b"n" * grown) + encode_len(3, kept)))


def test_edits_out_of_order_are_put_in_order() -> None:
    """An edit may be made in front of an earlier one."""
    editor = Editor(b"abcdef")
    editor.replace(4, 5, b"E")
    editor.replace(1, 2, b"B")
    editor.replace(2, 3)
    assert editor.result() == b"aBdEf"
