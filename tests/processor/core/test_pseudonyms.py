"""Pseudonyms and metadata by allow-list, as `tests/data/pseudonyms.json` has them for every language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.core.allowed_metadata import AllowedMetadata
from neatlogs_processor.core.pseudonyms import parse_keys
from support.pseudonym_cases import KEYS, cases

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "c"]), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.c", "c", ""]), ANY_JSON, max_size=5)
NAMES = st.sets(st.sampled_from(["a", "b", "a.b", "a.b.c", "c", "b.c", "nobody"]))


@cases("key_files")
def test_a_file_of_keys_is_read(case: dict[str, Any]) -> None:
    """The first key writes, and the digest is made with the secret's own bytes."""
    keys = parse_keys(case["text"])
    written = [one.partition(":")[0] for one in keys.lookup("u_812")[1:]]
    assert written == [key_id for key_id, _ in case["keys"]]
    in_hexadecimal = parse_keys("\n".join(f"{key_id} {secret}" for key_id, secret in case["keys"]))
    assert keys.lookup("u_812") == in_hexadecimal.lookup("u_812")


@cases("refused_key_files")
def test_a_file_that_cannot_be_used_is_refused_without_its_words(case: dict[str, Any]) -> None:
    """The message says which line and why, and repeats no secret."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # its words are checked below
        parse_keys(case["text"])
    assert not [word for word in case["text"].split() if len(word) > 20 and word in str(refused.value)]
    if "\n" in case["text"].strip() and not case["text"].startswith("#"):
        assert "line 2" in str(refused.value)


@cases("ids")
def test_an_id_becomes_its_pseudonym(case: dict[str, Any]) -> None:
    """The pseudonym is that of the first key; what is looked up is the id itself and its pseudonym under each key."""
    keys = parse_keys(KEYS)
    assert keys.pseudonym(case["id"]) == case["pseudonym"]
    assert keys.lookup(case["id"]) == (case["id"], case["pseudonym"], case["of_the_other_key"])


@cases("unchanged")
def test_a_pseudonym_and_nobody_stay_as_they_are(case: dict[str, Any]) -> None:
    """A pseudonym of any known key is not made into another one, and nobody gets none."""
    keys = parse_keys(KEYS)
    assert keys.pseudonym(case["id"]) == case["id"]
    assert keys.lookup(case["id"]) == (case["id"],)


def test_a_key_shows_no_secret() -> None:
    """What a debugger or a log shows of the keys holds no secret."""
    secret = "5a" * 32
    keys = parse_keys(f"h1 {secret}")
    assert secret not in repr(keys.__dict__)
    assert "ZZ" not in repr(keys.__dict__)


@given(st.text(min_size=1).filter(str.strip))
def test_pseudonyms_are_idempotent(end_user_id: str) -> None:
    """A pseudonym of a pseudonym is itself, and looking it up finds it alone."""
    keys = parse_keys(KEYS)
    pseudonym = keys.pseudonym(end_user_id)
    assert keys.pseudonym(pseudonym) == pseudonym
    assert keys.lookup(pseudonym) == (pseudonym,)
    assert pseudonym in keys.lookup(end_user_id)


@cases("metadata")
def test_metadata_leaves_by_its_allow_list(case: dict[str, Any]) -> None:
    """What is named stays, byte for byte."""
    assert AllowedMetadata(case["allow"]).of(case["text"]) == case["left"]


@cases("refused_metadata")
def test_what_is_no_json_object_is_refused(case: dict[str, Any]) -> None:
    """Nothing is let through that cannot be read as one JSON object, whatever is allowed."""
    for allow in ([], ["a"], ["*"]):
        with pytest.raises(ValueError, match="no JSON"):
            AllowedMetadata(allow).of(case["text"])


@pytest.mark.parametrize("allow", [["a"], ["*"], ["x"]])
def test_metadata_nested_beyond_reason_is_refused(allow: list[str]) -> None:
    """An object that fills the reader's stack is refused as one that is no JSON."""
    with pytest.raises(ValueError, match="no JSON object"):
        AllowedMetadata(allow).of('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")


def test_an_unchanged_text_is_the_same_object() -> None:
    """Where nothing is removed, the very same text comes back."""
    text = '{ "plan": "pro" }'
    assert AllowedMetadata(["plan"]).of(text) is text


def _allowed(value: dict[str, Any], names: set[str]) -> dict[str, Any]:
    kept = {}
    for key, item in value.items():
        inside = {name[len(key) + 1 :] for name in names if name.startswith(f"{key}.")}
        if key in names:
            kept[key] = item
        elif inside and isinstance(item, dict) and (left := _allowed(item, inside)):
            kept[key] = left
    return kept


@given(value=OBJECTS, names=NAMES, indent=st.sampled_from([None, 1]))
def test_metadata_by_allow_list_equals_decode_remove_encode(
    value: dict[str, Any], names: set[str], indent: int | None
) -> None:
    """What is left says the same as removing members from the decoded object, and nothing more goes a second time."""
    allowed = AllowedMetadata(names)
    left = allowed.of(json.dumps(value, indent=indent))
    expected = _allowed(value, names)
    assert (json.loads(left) if left is not None else {}) == expected
    if left is not None:
        assert allowed.of(left) == left
