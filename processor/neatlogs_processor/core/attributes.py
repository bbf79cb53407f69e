"""Identity attributes: finding them in a message, and what those of a root span or a resource amount to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from neatlogs_processor.core.policy import names_somebody
from neatlogs_processor.core.schema import (
    ANY_VALUE_STRING,
    END_USER_ID,
    END_USER_METADATA,
    END_USER_SOURCE,
    FIXED64,
    KEY_VALUE_KEY,
    KEY_VALUE_VALUE,
    LEN,
    NAMESPACE,
    SOURCE_RESOURCE,
    VARINT,
    Message,
    in_namespace,
)
from neatlogs_processor.core.strict import read_key_value, text_of
from neatlogs_processor.core.wire import encode_len, fields, read_varint

_NAMESPACE_SIZE: Final = len(NAMESPACE)
_ANY_VALUE_WIRE_TYPES: Final = {1: LEN, 2: VARINT, 3: VARINT, 4: FIXED64, 5: LEN, 6: LEN, 7: LEN, 8: VARINT}


Found: TypeAlias = tuple[int, int, int, int, bytes, "bytes | None"]
"""An attribute that has to be dealt with: where its field begins in the buffer, where its length prefix, where the
`KeyValue`, and where both end; its key; and the `KeyValue` in bytes that all readers agree about, where it does not
stand in the buffer like that. (A plain tuple, because hot loops make many.)"""


class Identity(NamedTuple):
    """What the identity attributes of one root span, or of one resource, amount to.

    Attributes:
        values: The value that counts, by key.
        winners: Positions, in the list that was judged, of the attributes that those values come from.
        rewritten: New `KeyValue` bytes for winners that cannot stay as they are, by position.
        invalid: How many others were of no use.
        refused: Whether an id stood there and none was usable. Then the identity is nobody's: never a default's.
    """

    values: dict[bytes, str]
    winners: frozenset[int]
    rewritten: dict[int, bytes]
    invalid: int
    refused: bool

    @property
    def end_user_id(self) -> str | None:
        """The end-user id, if it names somebody."""
        text = self.values.get(END_USER_ID)
        return text if text is not None and names_somebody(text) else None

    def as_default(self) -> tuple[str | None, str | None] | None:
        """Id and metadata for the roots of the resource that these attributes stood on, if there are any."""
        metadata = self.values.get(END_USER_METADATA)
        if self.refused or (self.end_user_id is None and metadata is None):
            return None
        return self.end_user_id, metadata

    def takes(self, default: tuple[str | None, str | None]) -> dict[bytes, str]:
        """What a root span with this identity takes from its resource's default, by key, in the order of the wire."""
        end_user_id, metadata = default
        if self.refused or self.end_user_id is not None:
            return {}
        taken: dict[bytes, str] = {}
        if end_user_id is not None:
            taken[END_USER_ID] = end_user_id
        if metadata is not None and END_USER_METADATA not in self.values:
            taken[END_USER_METADATA] = metadata
        if taken and END_USER_SOURCE not in self.values:
            taken[END_USER_SOURCE] = SOURCE_RESOURCE
        return taken


def read_key(buf: bytes, start: int, end: int) -> tuple[bytes, bytes | None]:
    """Read the key of the `KeyValue` in `buf[start:end]`.

    Returns:
        The key, and the `KeyValue` in plain bytes where readers could disagree about it.

    Raises:
        MalformedOtlpError: It is not a `KeyValue`.
    """
    key = b""
    seen = set()
    ambiguous = False
    for field in fields(buf, start, end, refuse_groups=True):
        if field.number in (KEY_VALUE_KEY, KEY_VALUE_VALUE):
            ambiguous = ambiguous or field.wire_type != LEN or field.number in seen
            seen.add(field.number)
            if field.number == KEY_VALUE_KEY:
                key = buf[field.start : field.end]
    if not ambiguous:
        return key, None
    plain = read_key_value(buf[start:end])
    return plain.key.encode(), plain.SerializeToString()


def usual_attribute(buf: bytes, tag: int, start: int, end: int, hit: int) -> Found | None:
    """`look_at`, quickly where the attribute has a usual shape: a short key, then a value, or the other way round.

    Args:
        hit: The first occurrence of the namespace in the attribute.
    """
    length = buf[start + 1]
    key = start + 2
    key_end = key + length
    if buf[start] == 0x0A and length < 0x80 and key_end + 1 < end and buf[key_end] == 0x12:
        size = buf[key_end + 1]
        value = key_end + 2
        if size > 0x7F:
            size, value = read_varint(buf, key_end + 1, end)
        if value + size == end:
            dotted = length > _NAMESPACE_SIZE and buf[key + _NAMESPACE_SIZE] == 0x2E
            if hit == key and (dotted or length == _NAMESPACE_SIZE):
                return tag, tag + 1, start, end, buf[key:key_end], None
            return None
    elif buf[start] == 0x12 and buf[hit - 2] == 0x0A and hit + buf[hit - 1] == end and buf[hit - 1] < 0x80:
        # Collectors write the value before the key.
        size, value = read_varint(buf, start + 1, end)
        key_bytes = buf[hit:end]
        if value + size == hit - 2 and in_namespace(key_bytes):
            return tag, tag + 1, start, end, key_bytes, None
    return look_at(buf, tag, tag + 1, start, end)


def look_at(buf: bytes, tag: int, header: int, start: int, end: int) -> Found | None:
    """Judge the attribute whose `KeyValue` is `buf[start:end]`. Nothing is found where it can stay as it is."""
    key, plain = read_key(buf, start, end)
    if in_namespace(key):
        return tag, header, start, end, key, plain
    if plain is not None and plain != buf[start:end]:
        return tag, header, start, end, key, plain
    return None


def find_in(buf: bytes, message: Message, start: int, end: int) -> tuple[list[Found], bool]:
    """Find the attributes of the message in `buf[start:end]` that have to be dealt with.

    Returns:
        The attributes in the order of the wire, and whether readers could disagree about the message itself.

    Raises:
        MalformedOtlpError: It cannot be walked.
    """
    found: list[Found] = []
    ambiguous = False
    seen = set()
    for field in fields(buf, start, end, refuse_groups=True):
        expected = message.wire_types.get(field.number)
        if expected is None:
            continue
        if field.wire_type != expected or (field.number in seen and field.number not in message.repeated):
            ambiguous = True
        seen.add(field.number)
        if field.number == message.attributes and buf.find(NAMESPACE, field.start, field.end) >= 0:
            attribute = look_at(buf, field.tag, field.header, field.start, field.end)
            if attribute is not None:
                found.append(attribute)
    return found, ambiguous


def usual_key(buf: bytes, start: int) -> bytes:
    """The key of the `KeyValue` at `start`, which consists of a short key and a value, in whichever order."""
    if buf[start] != 0x0A:
        size, value = _length(buf, start + 1)
        start = value + size
    return buf[start + 2 : start + 2 + buf[start + 1]]


def usual_owner(buf: bytes, start: int, end: int) -> str | None:
    """The end-user id among the identity attributes of a root span, where it is quickly seen that all can stay.

    None where it is not: then `judge` knows.

    Args:
        buf: Holds, from `start` to `end`, attribute fields and nothing else, each a short key and a value.
    """
    end_user_id = None
    keys = set()
    pos = start
    while pos < end:
        length, inner = _length(buf, pos + 1)
        after = inner + length
        key = usual_key(buf, inner)
        text = usual_string(buf, inner, after, key)
        if text is None or key in keys:
            return None
        keys.add(key)
        if key == END_USER_ID:
            end_user_id = text
        pos = after
    return end_user_id


def judge(buf: bytes, found: Iterable[Found]) -> Identity:
    """Decide what identity attributes of one owner amount to: for each key, the first usable value counts."""
    values: dict[bytes, str] = {}
    winners: dict[bytes, int] = {}
    rewritten: dict[int, bytes] = {}
    invalid = 0
    id_refused = False
    for at, attribute in enumerate(found):
        key = attribute[4]
        text, plain = _value(buf, attribute)
        if text is None:
            invalid += 1
            id_refused = id_refused or key == END_USER_ID
            continue
        if plain is not None:
            rewritten[at] = plain
        if key in winners:
            # An id that names nobody yields to a later one that does; every other duplicate is one too many.
            invalid += 1
            if key != END_USER_ID or names_somebody(values[key]) or not names_somebody(text):
                continue
        winners[key] = at
        values[key] = text
    named = END_USER_ID in values and names_somebody(values[END_USER_ID])
    return Identity(values, frozenset(winners.values()), rewritten, invalid, id_refused and not named)


def _value(buf: bytes, attribute: Found) -> tuple[str | None, bytes | None]:
    """The text an identity attribute stands for, and its new `KeyValue` bytes where it cannot stay as it stands."""
    _, _, start, end, key, plain = attribute
    if plain is None:
        text = usual_string(buf, start, end, key)
        if text is not None:
            return text, None
    data = buf[start:end] if plain is None else plain
    decoded = read_key_value(data)
    text = text_of(key, decoded.value)
    if text is None:
        return None, None
    # First of all, because it refuses groups, which would stay in the value however it is rewritten.
    set_once = _set_once(data)
    if not decoded.value.HasField("string_value"):
        decoded.value.string_value = text
    elif plain is None and set_once:
        return text, None
    plain = decoded.SerializeToString()
    return text, None if plain == buf[start:end] else plain


def usual_string(buf: bytes, start: int, end: int, key: bytes) -> str | None:
    """The string value of an attribute of a usual shape: a short key and a string, in whichever order, and no more.

    The attribute has been walked before.
    """
    if buf[start] == 0x12:
        pos, end_of_value = start, end - 2 - len(key)
        usual = end_of_value - pos >= 4 and buf[end_of_value] == 0x0A and buf[end_of_value + 1] == len(key)
    else:
        pos, end_of_value = start + 2 + len(key), end
        usual = end - pos >= 4 and buf[start] == 0x0A and buf[start + 1] == len(key) and buf[pos] == 0x12
    if not usual:
        return None
    size, value = _length(buf, pos + 1)
    if value + size != end_of_value or size < 2 or buf[value] != 0x0A:
        return None
    size, text = _length(buf, value + 1)
    if text + size != end_of_value:
        return None
    try:
        return buf[text:end_of_value].decode()
    except UnicodeDecodeError:
        # The strict way says so in its own words.
        return None


def _length(buf: bytes, pos: int) -> tuple[int, int]:
    """`read_varint`, quickly for lengths of one byte or two."""
    length = buf[pos]
    if length < 0x80:
        return length, pos + 1
    high = buf[pos + 1]
    if high < 0x80:
        return length & 0x7F | high << 7, pos + 2
    return read_varint(buf, pos, len(buf))


def _set_once(data: bytes) -> bool:
    """Whether every reader takes the value of this `KeyValue`, which has one, for the same as the official one does.

    Raises:
        MalformedOtlpError: A group stands beside it.
    """
    seen = 0
    for field in fields(data, 0, len(data), refuse_groups=True):
        if field.number == KEY_VALUE_VALUE and field.wire_type == LEN:
            for inner in fields(data, field.start, field.end, refuse_groups=True):
                expected = _ANY_VALUE_WIRE_TYPES.get(inner.number)
                seen += expected is not None
                if expected is not None and inner.wire_type != expected:
                    return False
    return seen <= 1


def encode_attribute(key: bytes, text: str) -> bytes:
    """Encode a `KeyValue` with a string value."""
    value = text.encode()
    if len(key) < 0x80 and len(value) < 0x7E:
        # Every length takes one byte.
        size = len(value)
        return b"\x0a%c%b\x12%c\x0a%c%b" % (len(key), key, size + 2, size, value)
    value = encode_len(ANY_VALUE_STRING, value)
    return encode_len(KEY_VALUE_KEY, key) + encode_len(KEY_VALUE_VALUE, value)
