"""Plain traces: whose identity counts, and what becomes of the others'."""

from __future__ import annotations

from typing import Any

import pytest

from neatlogs_processor.core.policy import Place
from support.otlp_sink import attributes
from support.plain_traces import ID, METADATA, enforced, root

FORMS = {
    "fields": {"endUserId": "u_1", "endUserMetadata": {"plan": "pro"}},
    "documented fields": {"endUser": "u_1", "endUserMetadata": {"plan": "pro"}},
    "snake case": {"end_user_id": "u_1", "end_user_metadata": {"plan": "pro"}},
    "npm 1.1.15": {"attributes": {ID: "u_1", METADATA: '{"plan": "pro"}'}},
    "attributes, metadata as an object": {"attributes": {ID: "u_1", METADATA: {"plan": "pro"}}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_root_names_the_end_user(form: dict[str, Any]) -> None:
    """Whatever form the root's identity comes in, it arrives as the same two attributes."""
    (span,), counts = enforced({"name": "a", **form})
    found = attributes(span)
    assert (found[ID], found[METADATA]) == ("u_1", '{"plan": "pro"}')
    assert (counts.roots, counts.roots_with_identity, counts.overrides_total, counts.invalid) == (1, 1, 0, 0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_childs_claim_is_ignored_and_counted(form: dict[str, Any]) -> None:
    """What a child says of an end user is removed and counted in every form, at every depth."""
    inner = {"name": "c", **form}
    document = {"name": "a", "endUserId": "u_root", "children": [{"name": "b", **form, "children": [inner]}]}
    found, counts = enforced(document)
    assert [attributes(span).get(ID) for span in found] == ["u_root", None, None]
    assert not any(key.startswith("neatlogs.end_user") for span in found[1:] for key in attributes(span))
    assert counts.overrides[Place.CHILD] == 4


def test_both_forms_on_one_child_are_two_overrides() -> None:
    """Each claim is counted, even of the same key, and even one of no use."""
    claim = {"endUserId": True, "endUser": "u_1", "attributes": {ID: "u_2", "neatlogs.end_user": {}, "other": 1}}
    found, counts = enforced({"name": "a", "children": [{"name": "b", **claim}]})
    assert counts.overrides[Place.CHILD] == 4
    assert attributes(found[1])["other"] == 1


@pytest.mark.parametrize(
    ("fields", "end_user", "metadata"),
    [
        # The attributes' own id keeps its own metadata.
        ({"endUserId": "f", "endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", None),
        ({"endUserId": "f", "attributes": {ID: "a", METADATA: '{"of":"a"}'}}, "a", '{"of":"a"}'),
        # The same person in both forms.
        ({"endUserId": "a", "endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", '{"of": "f"}'),
        # No id in the attributes: the fields' id comes with the fields' metadata.
        (
            {"endUserId": "f", "endUserMetadata": {"of": "f"}, "attributes": {METADATA: '{"of":"a"}'}},
            "f",
            '{"of": "f"}',
        ),
        # Metadata alone is lent to the id.
        ({"endUserId": "f", "attributes": {METADATA: '{"of":"a"}'}}, "f", '{"of":"a"}'),
        ({"endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", '{"of": "f"}'),
        # Blank and null ids are none.
        ({"endUserId": "f", "attributes": {ID: " "}}, "f", None),
        ({"endUserId": " ", "endUser": "f"}, "f", None),
        ({"endUserId": None, "attributes": {ID: None, METADATA: None}}, None, None),
        ({"endUserMetadata": {"of": "f"}}, None, '{"of": "f"}'),
        # Whole numbers are ids.
        ({"endUserId": 42}, "42", None),
        ({"attributes": {ID: 42}}, "42", None),
    ],
    ids=str,
)
def test_id_and_metadata_are_one_unit(fields: dict[str, Any], end_user: str | None, metadata: str | None) -> None:
    """One user's id never meets another's metadata, in whichever forms the two are sent."""
    (span,), counts = enforced({"name": "a", **fields})
    found = attributes(span)
    assert (found.get(ID), found.get(METADATA)) == (end_user, metadata)
    assert counts.invalid == 0


@pytest.mark.parametrize("bad", [True, 1.5, {"id": "u_1"}, ["u_1"], 2**70], ids=str)
def test_an_id_of_no_use_is_nobody_and_counted(bad: Any) -> None:
    """An id that is neither text nor a whole number is removed and counted, and nobody else's takes its place."""
    for fields in ({"endUserId": bad, "endUser": "u_2"}, {"attributes": {ID: bad}, "endUserId": "u_2"}):
        (span,), counts = enforced({"name": "a", **fields})
        assert ID not in attributes(span)
        assert (counts.roots_with_identity, counts.invalid) == (0, 1)


@pytest.mark.parametrize("bad", [True, 7, ["a", {"b": 1}]], ids=str)
def test_metadata_of_no_use_is_removed_and_the_id_stays(bad: Any) -> None:
    """Metadata that is no object is removed and counted."""
    for fields in ({"endUserMetadata": bad}, {"attributes": {METADATA: bad}}):
        (span,), counts = enforced({"name": "a", "endUserId": "u_1", **fields})
        assert (attributes(span).get(ID), METADATA in attributes(span), counts.invalid) == ("u_1", False, 1)


def test_a_source_in_the_attributes_stays() -> None:
    """Other attributes of the identity namespace pass on the root as everybody's do."""
    (span,), _ = enforced({"name": "a", "endUserId": "u_1", "attributes": {"neatlogs.end_user.source": "init"}})
    assert attributes(span)["neatlogs.end_user.source"] == "init"


def test_the_operator_is_never_an_end_user() -> None:
    """Fields that name an operator elsewhere are passed over."""
    assert root(userId="op", user_id="op", user="op") == {}
