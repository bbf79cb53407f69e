"""The state of the page, and its URL."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.units import read_duration, read_time, timestamp, write_duration, write_time
from neatlogs_processor.query.view import ALL_TIME, DEFAULT_PERIOD, Period, Sort, Tab, View
from support import filters as made

HOUR = 3600 * 10**9


@given(made.views)
def test_the_url_is_the_whole_state(view: View) -> None:
    """Any view, in a URL and back, is the same view: whatever its filters hold."""
    parts = urlsplit(view.url)
    assert parts.fragment == ""
    assert view.url.isascii()
    tab, _, trace = parts.path.removeprefix("/").partition("/")
    assert View.from_query(Tab(tab), parts.query, trace=trace or None) == view


@pytest.mark.parametrize(
    ("query", "view"),
    [
        ("", View()),
        ("filter=end_user+contains+ali", View(filters=parse("end_user contains ali"))),
        ("filter=end_user%20%7E%20ali&filter=-session", View(filters=parse("end_user ~ ali and -session"))),
        ("filter=end_user+is+a+and+-session&filter=", View(filters=parse("end_user is a and -session"))),
        ("last=24h", View(period=Period(last=24 * HOUR))),
        ("last=all", View(period=ALL_TIME)),
        ("from=1970-01-02&to=", View(period=Period(start=24 * HOUR))),
        ("last=&from=&to=&sort=&cursor=&limit=", View()),
        ("sort=-tokens&limit=5", View(sort=Sort("tokens"), limit=5)),
        ("sort=tokens", View(sort=Sort("tokens", descending=False))),
    ],
)
def test_a_query_string_says_a_view(query: str, view: View) -> None:
    """Forms and people may leave out and leave empty what they like."""
    assert View.from_query(Tab.TRACES, query) == view


@pytest.mark.parametrize(
    ("query", "parameter", "index", "position"),
    [
        ("filter=end_usr+is+x", "filter", 0, 0),
        ("filter=-session&filter=end_user+is", "filter", 1, 11),
        ("filter=-session+and+-tag&filter=-workflow&filter=x", "filter", 2, 0),
        ("filters=x", "filters", 0, 0),
        ("last=7d&last=8d", "last", 0, 0),
        ("last=soon", "last", 0, 0),
        ("last=7d&from=2026-11-20", "last", 0, 0),
        ("from=then", "from", 0, 0),
        ("to=1969-01-01", "to", 0, 0),
        ("sort=name", "sort", 0, 0),
        ("cursor=a+b", "cursor", 0, 0),
        ("limit=0", "limit", 0, 0),
        ("limit=501", "limit", 0, 0),
        ("limit=many", "limit", 0, 0),
        ("filter=%ff", "", 0, 0),
        ("&".join(["filter=-tag"] * 100), "", 0, 0),
        ("&".join(["filter=-tag"] * 33), "filter", 0, 0),
        ("filter=" + "x" * 200_000, "", 0, 0),
    ],
)
def test_what_is_wrong_with_a_query_string_is_said(query: str, parameter: str, index: int, position: int) -> None:
    """The error names the parameter, which one of that name, and the character."""
    with pytest.raises(QueryError) as caught:
        View.from_query(Tab.TRACES, query)
    assert (caught.value.parameter, caught.value.index, caught.value.position) == (parameter, index, position)


def test_parameters_of_somebody_else_can_be_ignored() -> None:
    """Only those that are named so."""
    assert View.from_query(Tab.TRACES, "tab=x&limit=5", ignore=("tab",)) == View(limit=5)


def test_tabs_share_filters_and_period() -> None:
    """Another tab keeps what is looked for and begins at its first row in its own order."""
    view = View(Tab.TRACES, parse("end_user is a"), Period(last=HOUR), Sort("spans"), cursor="abc", limit=7, trace="ab")
    assert view.on(Tab.USERS) == View(Tab.USERS, view.filters, view.period, limit=7)


def test_what_changes_the_list_begins_at_its_first_row() -> None:
    """A cursor never outlives the list that it was made for."""
    view = View(filters=parse("-tag and -session"), cursor="abc", trace="ab")
    one = parse("end_user is a")[0]
    for changed in (view.adding(one), view.without(0), view.during(ALL_TIME), view.sorted_by(Sort("spans"))):
        assert changed.cursor is None
        assert changed.trace is None
    assert view.adding(one).filters == (*view.filters, one)
    assert view.adding(view.filters[0]).filters == view.filters
    assert view.without(0).filters == view.filters[1:]
    assert view.opening("cd").cursor == "abc"
    assert view.from_cursor("next").cursor == "next"


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (View(), "Traces of the last 7 days"),
        (View(period=Period(last=24 * HOUR)), "Traces of the last 24 hours"),
        (View(period=Period(last=HOUR)), "Traces of the last hour"),
        (View(period=Period(last=HOUR // 4)), "Traces of the last 15 minutes"),
        (View(period=Period(last=HOUR // 7200)), "Traces of the last 500ms"),
        (
            View(Tab.USERS, parse("end_user ~ a and -session"), ALL_TIME),
            "End users whose end user contains “a” and session is not set, of all time",
        ),
        (View(period=Period(start=0, end=24 * HOUR)), "Traces since 1970-01-01 and before 1970-01-02"),
    ],
)
def test_a_view_reads_as_a_sentence(view: View, sentence: str) -> None:
    """A page can say in English what it shows."""
    assert view.sentence == sentence


@pytest.mark.parametrize(
    "said",
    [{"sort": Sort("nothing")}, {"cursor": "a b"}, {"limit": 0}, {"trace": "xyz"}, {"filters": parse("-tag") * 33}],
)
def test_there_are_no_impossible_views(said: dict[str, object]) -> None:
    """A view cannot be made that no URL could say."""
    with pytest.raises(ValueError, match=r"\w"):
        View(**said)


def test_a_relative_period_ends_with_the_future() -> None:
    """Clocks of senders run ahead; what they send is not lost from the list of the last minutes."""
    low, high = DEFAULT_PERIOD.bounds(10 * 24 * HOUR)
    assert low == 3 * 24 * HOUR
    assert high > 10 * 24 * HOUR


@given(st.integers(0, 2**63 - 1))
def test_times_and_durations_are_written_exactly(nanoseconds: int) -> None:
    """No nanosecond gets lost on the way through text."""
    assert read_duration(write_duration(nanoseconds)) == nanoseconds
    assert read_time(write_time(nanoseconds)) == nanoseconds
    assert read_time(timestamp(nanoseconds)) == nanoseconds
