"""What a filter is, and how it reads in English."""

from __future__ import annotations

import pytest
from hypothesis import given

from neatlogs_processor.query.fields import FIELDS, Field, Operator
from neatlogs_processor.query.filters import MAX_VALUE_CHARS, MAX_VALUES, Filter, Scalar
from neatlogs_processor.query.text import parse
from support import filters as made


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("end_user contains ali", "end user contains “ali”"),
        ("metadata:plan is not pro", "metadata plan is not “pro”"),
        ("metadata:seats is 5", "metadata seats is 5"),
        ("workflow is any of chat, search, mail", "workflow is “chat”, “search” or “mail”"),
        ("workflow is none of chat, search", "workflow is neither “chat” nor “search”"),
        ("workflow is none of chat", "workflow is not “chat”"),
        ("session is not set", "session is not set"),
        ("status is error", "status is error"),
        ("duration > 1.5s", "duration is over 1500ms"),
        ("tokens >= 12000", "tokens is at least 12,000"),
        ("start < 2026-11-20", "start is before 2026-11-20"),
        ("-errors = 0", "errors is not 0"),
    ],
)
def test_a_filter_reads_as_a_sentence(typed: str, sentence: str) -> None:
    """Each filter knows its English."""
    (filter_,) = parse(typed)
    assert filter_.sentence == sentence


@given(made.filters)
def test_the_opposite_of_the_opposite_is_the_filter(filter_: Filter) -> None:
    """Where there is an opposite, it leads back."""
    opposite = filter_.negated()
    if opposite is not None:
        assert opposite != filter_
        assert opposite.negated() == filter_


@pytest.mark.parametrize(
    ("field", "operator", "values"),
    [
        (Field("end_user"), Operator.GREATER, ("a",)),
        (Field("end_user"), Operator.IS, ()),
        (Field("end_user"), Operator.IS, ("a", "b")),
        (Field("end_user"), Operator.IS_SET, ("a",)),
        (Field("end_user"), Operator.IS_ANY_OF, ()),
        (Field("end_user"), Operator.IS_ANY_OF, ("a",) * (MAX_VALUES + 1)),
        (Field("end_user"), Operator.IS, (5,)),
        (Field("end_user"), Operator.IS, (Scalar("5"),)),
        (Field("end_user"), Operator.IS, ("x" * (MAX_VALUE_CHARS + 1),)),
        (Field("end_user"), Operator.IS, ("\ud800",)),
        (Field("tokens"), Operator.EQUAL, ("5",)),
        (Field("tokens"), Operator.EQUAL, (-1,)),
        (Field("tokens"), Operator.EQUAL, (True,)),
        (Field("status"), Operator.IS, ("fine",)),
        (Field("metadata", "age"), Operator.GREATER, (Scalar("true"),)),
        (Field("metadata", "age"), Operator.CONTAINS, (Scalar("5"),)),
    ],
)
def test_what_does_not_go_together_is_no_filter(field: Field, operator: Operator, values: tuple[str, ...]) -> None:
    """A filter cannot be made that has no meaning."""
    with pytest.raises(ValueError, match=r"\w"):
        Filter(field, operator, values)


@pytest.mark.parametrize(("name", "key"), [("user", ""), ("metadata", ""), ("end_user", "key"), ("traces.id", "")])
def test_there_are_no_other_fields(name: str, key: str) -> None:
    """Fields come from a list; metadata has a key, and nothing else has one."""
    with pytest.raises(ValueError, match=r"\w"):
        Field(name, key)


@pytest.mark.parametrize("text", ["", "01", "+1", "1.", "nan", "1e999", "True", '"1"', "[1]", " 1"])
def test_only_json_is_json(text: str) -> None:
    """A scalar is what JSON knows as one."""
    with pytest.raises(ValueError, match="no JSON"):
        Scalar(text)


def test_filters_by_end_user_and_by_workflow_have_the_same_operators() -> None:
    """The end user is a field like any other text."""
    assert FIELDS["end_user"].operators == FIELDS["workflow"].operators
