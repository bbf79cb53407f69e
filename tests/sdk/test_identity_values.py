"""Ids and metadata: what is accepted, what is refused, and that a refusal never shows the value."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions
from neatlogs_otel._identity import EndUser
from neatlogs_otel.conventions import RefusedError, encode_id, encode_metadata, encode_tags

SECRET = "s3cret-person"


class Name(str, enum.Enum):
    ALICE = "alice"


class RaisesInStr:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__


class UuidThatRaises(uuid.UUID):
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("u1", "u1"),
        (" u1 ", " u1 "),
        (0, "0"),
        (-7, "-7"),
        (2**63, "9223372036854775808"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Name.ALICE, "alice"),
        ("名前", "名前"),
        (None, None),
        ("", None),
        (" \t\n", None),
    ],
)
def test_ids_become_text(value: object, text: str | None) -> None:
    """A str, an int and a UUID become text unchanged; None, empty and blank mean that there is no identity."""
    assert encode_id(value) == text


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        float("nan"),
        1.5,
        b"u1",
        object(),
        RaisesInStr(),
        ["u1"],
        "\ud800",
        "x" * 1025,
        "ä" * 513,
        10**2000,
        10**100_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_ids_that_are_refused(value: object) -> None:
    """Types that are no id, text that UTF-8 cannot hold and more than 1,024 bytes are refused, never cut."""
    with pytest.raises(RefusedError):
        encode_id(value)


def test_longest_id() -> None:
    """An id of exactly 1,024 UTF-8 bytes is accepted whole."""
    assert encode_id("ä" * 512) == "ä" * 512


@settings(deadline=None)
@given(st.text() | st.integers() | st.uuids() | st.booleans() | st.floats() | st.binary() | st.none())
def test_any_id_is_whole_or_refused(value: object) -> None:
    """Whatever is given, the result is the whole text, nobody, or a refusal; never a changed or shortened id."""
    try:
        text = encode_id(value)
    except RefusedError:
        return
    assert text is None or text == str(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), json_values, min_size=1, max_size=4))
def test_json_survives(value: dict[str, object]) -> None:
    """Metadata that is JSON reads back as the same JSON, where UTF-8 can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    text = encode_metadata(value)
    assert text is not None
    assert json.loads(text) == value


def test_metadata_is_compact_and_sorted() -> None:
    """Equal metadata gives equal text, whatever the order of its keys."""
    assert (
        encode_metadata({"b": [1, "ü"], "a": None})
        == '{"a":null,"b":[1,"ü"]}'
        == encode_metadata(MappingProxyType({"a": None, "b": (1, "ü")}))
    )


def test_what_json_cannot_hold_becomes_str() -> None:
    """Values and keys that JSON cannot hold become their str()."""
    at = datetime(2024, 1, 2, tzinfo=timezone.utc)
    text = encode_metadata({"at": at, "n": float("nan"), "d": Decimal("1.50"), 7: uuid.UUID(int=2), "s": "\ud800"})
    assert json.loads(text or "") == {
        "at": "2024-01-02 00:00:00+00:00",
        "n": "nan",
        "d": "1.50",
        "7": "00000000-0000-0000-0000-000000000002",
        "s": "\\ud800",
    }


def test_one_bad_value_does_not_cost_the_others() -> None:
    """A value whose __str__ raises is named by its type; the other keys stay."""
    assert encode_metadata({"bad": RaisesInStr(), "plan": "pro"}) == '{"bad":"<unprintable RaisesInStr>","plan":"pro"}'


def _circular() -> dict[str, object]:
    value: dict[str, object] = {}
    value["self"] = value
    return value


class MappingThatRaises(Mapping[str, str]):
    def __getitem__(self, key: str) -> str:
        raise RuntimeError(SECRET)

    def __iter__(self):
        raise RuntimeError(SECRET)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "value",
    ['{"plan":"pro"}', ["plan"], 1, _circular(), {"n": 10**5000}, {"big": "x" * 16384}, MappingThatRaises()],
    ids=["text", "list", "int", "circular", "endless int", "too big", "raises"],
)
def test_metadata_that_is_refused(value: object) -> None:
    """What is no mapping, contains itself or is over 16 KiB as JSON is refused."""
    with pytest.raises(RefusedError):
        encode_metadata(value)


def test_largest_metadata() -> None:
    """16 KiB of JSON, counted in UTF-8 bytes, are accepted."""
    assert len((encode_metadata({"k": "ä" * 8188}) or "").encode()) == 16384


@pytest.mark.parametrize("value", [None, {}])
def test_no_metadata(value: object) -> None:
    """None and an empty mapping mean that there is no metadata."""
    assert encode_metadata(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), ([], None), ("beta", "beta"), ("a, b,,a", "a,b"), (["a", " b "], "a,b"), (("x", "y,z"), "x,y,z")],
)
def test_tags(value: object, text: str | None) -> None:
    """Tags become one comma-separated string: trimmed, in order, without blanks and repetitions."""
    assert encode_tags(value) == text


@pytest.mark.parametrize("value", [7, b"a", {"a": 1}, ["a", 7], [None]])
def test_tags_that_are_refused(value: object) -> None:
    """Tags that are no strings are refused."""
    with pytest.raises(RefusedError):
        encode_tags(value)


@pytest.mark.parametrize(
    "value", [True, SECRET * 100, UuidThatRaises(int=1), [SECRET], SECRET + "\ud800", lambda: 1 / 0, lambda: [SECRET]]
)
def test_a_refusal_never_shows_the_value(recorded, said, value) -> None:
    """A refused id is one warning that names the place and the reason, and holds nothing of the value."""
    with neatlogs.trace("chat", end_user_id=value):
        pass
    assert said.once("end_user_id", "trace('chat')", "refused")
    assert SECRET not in said.messages[0]
    assert recorded.id_of("chat") is None


def test_refused_metadata_leaves_the_id(recorded, said) -> None:
    """Metadata that is refused does not cost the id."""
    with neatlogs.trace("chat", end_user_id="alice", end_user_metadata=[SECRET]):
        pass
    assert recorded.identity("chat") == ("alice", None, "trace")
    assert said.once("end_user_metadata", "refused", "not affected")


def test_metadata_of_an_end_user_is_a_copy() -> None:
    """EndUser is immutable: changing the dictionary that it hands out changes nothing."""
    end_user = EndUser.of("trace", "alice", {"plan": {"name": "pro"}}, place="here")
    assert end_user is not None
    end_user.metadata["plan"]["name"] = "free"
    assert end_user.metadata == {"plan": {"name": "pro"}}


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ("neatlogs.end_user", True),
        ("neatlogs.end_user.id", True),
        ("neatlogs.end_user.", True),
        ("neatlogs.end_users", False),
        ("neatlogs.end_user_id", False),
        ("Neatlogs.end_user.id", False),
        ("user.id", False),
    ],
)
def test_identity_namespace(key: str, inside: bool) -> None:
    """The identity namespace is one key and what follows it behind a dot, compared exactly."""
    assert conventions.is_identity_key(key) is inside
