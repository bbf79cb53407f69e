"""Filters as one types them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.fields import FIELDS, Field, Operator
from neatlogs_processor.query.filters import MAX_FILTERS, Filter, Scalar
from neatlogs_processor.query.text import Part, last_spot, parse, render
from support import filters as made

END_USER, WORKFLOW, PLAN = Field("end_user"), Field("workflow"), Field("metadata", "plan")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("end_user contains ali", Filter(END_USER, Operator.CONTAINS, ("ali",))),
        ("metadata:plan is pro", Filter(PLAN, Operator.IS, ("pro",))),
        ("workflow is any of chat, search", Filter(WORKFLOW, Operator.IS_ANY_OF, ("chat", "search"))),
        ("workflow starts with chat", Filter(WORKFLOW, Operator.STARTS_WITH, ("chat",))),
        ("END_USER Does Not  Contain ali", Filter(END_USER, Operator.DOES_NOT_CONTAIN, ("ali",))),
        ("  session is my session  ", Filter(Field("session"), Operator.IS, ("my session",))),
        ("session is a, b", Filter(Field("session"), Operator.IS, ("a, b",))),
        ("session is not set", Filter(Field("session"), Operator.IS_NOT_SET)),
        ('session is not "set"', Filter(Field("session"), Operator.IS_NOT, ("set",))),
        ('session is "not set"', Filter(Field("session"), Operator.IS, ("not set",))),
        ("session is nothing", Filter(Field("session"), Operator.IS, ("nothing",))),
        ('session is "a \\"b\\" \\n \\u20ac"', Filter(Field("session"), Operator.IS, ('a "b" \n €',))),
        ('session is ""', Filter(Field("session"), Operator.IS, ("",))),
        ('workflow is none of "a, b", c', Filter(WORKFLOW, Operator.IS_NONE_OF, ("a, b", "c"))),
        ("metadata:plan is 1", Filter(PLAN, Operator.IS, (Scalar("1"),))),
        ('metadata:plan is "1"', Filter(PLAN, Operator.IS, ("1",))),
        ("metadata:plan is true", Filter(PLAN, Operator.IS, (Scalar("true"),))),
        ("metadata:plan is truely", Filter(PLAN, Operator.IS, ("truely",))),
        ("metadata:plan contains 1", Filter(PLAN, Operator.CONTAINS, ("1",))),
        ("metadata:plan > 30", Filter(PLAN, Operator.GREATER, (Scalar("30"),))),
        ('metadata:"the plan" is pro', Filter(Field("metadata", "the plan"), Operator.IS, ("pro",))),
        (
            "metadata:company.size >= 5",
            Filter(Field("metadata", "company.size"), Operator.GREATER_OR_EQUAL, (Scalar("5"),)),
        ),
        ("duration > 1.5s", Filter(Field("duration"), Operator.GREATER, (1_500_000_000,))),
        ("duration <= 2 m", Filter(Field("duration"), Operator.LESS_OR_EQUAL, (120_000_000_000,))),
        ("tokens is not 5", Filter(Field("tokens"), Operator.NOT_EQUAL, (5,))),
        ("spans is 3", Filter(Field("spans"), Operator.EQUAL, (3,))),
        ("start >= 1970-01-02", Filter(Field("start"), Operator.GREATER_OR_EQUAL, (86_400 * 10**9,))),
        ("start < 1970-01-01 01:00:00.5+01:00", Filter(Field("start"), Operator.LESS, (500_000_000,))),
        ("status is any of OK, error", Filter(Field("status"), Operator.IS_ANY_OF, ("ok", "error"))),
    ],
)
def test_words_are_understood_as_they_are_typed(typed: str, meant: Filter) -> None:
    """Fields, operators and values in words, with quotes only where a value needs them."""
    assert parse(typed) == (meant,)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("end_user=ali", "end_user is ali"),
        ("end_user != ali", "end_user is not ali"),
        ("end_user~ali", "end_user contains ali"),
        ("end_user !~ ali", "end_user does not contain ali"),
        ("end_user ^= ali", "end_user starts with ali"),
        ("end_user $= ali", "end_user ends with ali"),
        ("-end_user", "end_user is not set"),
        ("-end_user is set", "end_user is not set"),
        ("-end_user = ali", "end_user is not ali"),
        ("-end_user is not ali", "end_user is ali"),
        ("-workflow is any of a, b", "workflow is none of a, b"),
        ("-metadata:plan=pro", "metadata:plan is not pro"),
        ("-duration > 2s", "duration <= 2s"),
        ("duration>=2s", "duration >= 2s"),
        ("-end_user and -session", "end_user is not set and session is not set"),
    ],
)
def test_symbols_are_short_for_words(short: str, long: str) -> None:
    """Each symbol means its words, and a leading minus the opposite."""
    assert parse(short) == parse(long)


def test_filters_are_joined_by_and() -> None:
    """Several filters stand in one line with the word and between them, in any case."""
    assert parse('end_user is ali AND workflow is any of a, b and session is "c and d"') == (
        Filter(END_USER, Operator.IS, ("ali",)),
        Filter(WORKFLOW, Operator.IS_ANY_OF, ("a", "b")),
        Filter(Field("session"), Operator.IS, ("c and d",)),
    )
    assert parse("end_user contains sandy") == (Filter(END_USER, Operator.CONTAINS, ("sandy",)),)
    assert parse("  ") == ()


@pytest.mark.parametrize(
    ("typed", "position", "fits"),
    [
        ("end_usr is ali", 0, "end_user"),
        ("end_user is ali and wrkflow is x", 20, "workflow"),
        ("metadata is pro", 8, ":"),
        ("metadata:= pro", 9, "<key>"),
        ("end_user", 8, "contains"),
        ("end_user like ali", 9, "contains"),
        ("duration contains 3", 9, ">="),
        ("end_user > ali", 9, "is"),
        ("-status", 7, "is any of"),
        ("end_user is", 11, "<text>"),
        ("end_user is and session is set", 12, "<text>"),
        ("workflow is any of a,", 21, "<text>"),
        ('end_user is "ali', 12, '"'),
        ('end_user is "ali" bob', 18, "and"),
        ("end_user is set bob", 16, "and"),
        ("tokens > many", 9, "<a whole number>"),
        ("tokens > 99999999999999999999", 9, "<a whole number>"),
        ("duration > 3", 11, "<a duration, such as 250ms or 1.5s>"),
        ("start > yesterday", 8, "<a time, such as 2026-11-20 or 2026-11-20T10:00:00Z>"),
        ("start > 2026-02-30", 8, "<a time, such as 2026-11-20 or 2026-11-20T10:00:00Z>"),
        ("status is bad", 10, "error"),
        ("metadata:age > old", 15, "<a number>"),
        ('metadata:age > "5"', 15, "<a number>"),
        ("end_user is ali and", 19, "end_user"),
    ],
)
def test_an_error_names_the_character_and_what_would_fit(typed: str, position: int, fits: str) -> None:
    """What cannot be understood is refused with its place, and with what could stand there instead."""
    with pytest.raises(QueryError) as caught:
        parse(typed)
    assert caught.value.position == position
    assert fits in caught.value.expected
    assert caught.value.message


@pytest.mark.parametrize("typed", ["-metadata:age > 5", " and ".join(["-tag"] * (MAX_FILTERS + 1)), 'tag is "\\ud800"'])
def test_what_has_no_meaning_is_refused(typed: str) -> None:
    """There is no opposite of a comparison of metadata, no 33rd filter, no half of a surrogate pair."""
    with pytest.raises(QueryError):
        parse(typed)


@given(st.lists(made.filters, max_size=4))
def test_every_filter_can_be_written_and_read_back(filters: list[Filter]) -> None:
    """Whatever the ids and values hold, the text form gives back the same filters."""
    assert parse(render(*filters)) == tuple(filters)


@given(
    st.one_of(
        made.text,
        st.lists(
            st.sampled_from(
                [*FIELDS, "metadata:", "is", "not", "any", "of", "and", ",", '"', "=", "~", "-", "x", "1s"]
            ),
            max_size=12,
        ).map(" ".join),
    )
)
def test_any_text_is_understood_or_refused_within_its_length(typed: str) -> None:
    """No text leads to anything but filters that read the same again, or an error at one of its characters."""
    try:
        filters = parse(typed)
    except QueryError as error:
        position: int | None = error.position
    else:
        position = None
        assert parse(render(*filters)) == filters
    assert position is None or 0 <= position <= len(typed)
    assert last_spot(typed).start <= len(typed)


@pytest.mark.parametrize(
    ("typed", "part", "start"),
    [
        ("", Part.FIELD, 0),
        ("end_u", Part.FIELD, 0),
        ("-work", Part.FIELD, 1),
        ("metadata:pl", Part.OPERATOR, 11),
        ("metadata:", Part.KEY, 9),
        ("end_user con", Part.OPERATOR, 9),
        ("end_user contains al", Part.VALUE, 18),
        ("workflow is any of chat, se", Part.VALUE, 25),
        ("end_user is ali and ", Part.FIELD, 20),
        ('end_user is "ali" x', Part.AND, 18),
    ],
)
def test_autocompletion_knows_what_is_being_typed(typed: str, part: Part, start: int) -> None:
    """For every unfinished text it is known which part comes next, and since where."""
    spot = last_spot(typed)
    assert (spot.part, spot.start) == (part, start)


@pytest.mark.parametrize("start", ["end_user is a", "workflow is any of a, b", "metadata:plan is a", "end_user is and"])
def test_a_text_full_of_spaces_takes_no_longer_than_another(start: str) -> None:
    """A million spaces inside a value are read within the time limit of any test: reading is linear in the length."""
    spaces = " " * 1_000_000
    with pytest.raises(QueryError):
        parse(f"{start}{spaces}b and end_usr")
    assert parse(f"end_user is a{spaces}and workflow is b{spaces}") == parse("end_user is a and workflow is b")
