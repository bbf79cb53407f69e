"""What filters select: the SQL says the same as plain Python, on traces, sessions and end users."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from neatlogs_processor.query.fields import Field, Operator
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store.reader import SqliteReader
from support import filter_oracle
from support.stored import MINUTE, NOW, Stored, store
from support.stored_strategies import filters, stores


@settings(max_examples=100, deadline=None)
@given(stores(), st.lists(st.lists(filters(), min_size=1, max_size=2), min_size=10, max_size=10))
def test_the_store_selects_what_plain_python_selects(traces: list[Stored], questions: list[list[Filter]]) -> None:
    """Each filter's SQL, alone and with another, is true of the same rows as its meaning written in Python."""
    with TemporaryDirectory() as directory, store(Path(directory) / "traces.db", traces) as reader:
        for question in questions:
            note(f"{question} of {traces}")
            view = View(filters=tuple(question), period=ALL_TIME)
            selected = {row.trace_id for row in reader.traces(view, now=NOW).rows}
            assert selected == filter_oracle.traces(traces, question)
            sessions = {row.session for row in reader.sessions(view.on(Tab.SESSIONS), now=NOW).rows}
            assert sessions == filter_oracle.rows(Tab.SESSIONS, traces, question)
            users = {row.end_user for row in reader.users(view.on(Tab.USERS), now=NOW).rows}
            assert users == filter_oracle.rows(Tab.USERS, traces, question)


TEXT_CASES = [
    ("is Ali", {"Ali"}),
    ("is not Ali", {"alina", "STRASSE", None}),
    ("contains ALI", {"Ali", "alina"}),
    ("contains straße", {"STRASSE"}),
    ("does not contain ali", {"STRASSE", None}),
    ("starts with AL", {"Ali", "alina"}),
    ("ends with I", {"Ali"}),
    ("is any of Ali, STRASSE", {"Ali", "STRASSE"}),
    ("is none of Ali, STRASSE", {"alina", None}),
    ("is set", {"Ali", "alina", "STRASSE"}),
    ("is not set", {None}),
]


@pytest.mark.parametrize("field", ["end_user", "workflow", "session"])
@pytest.mark.parametrize(("condition", "selected"), TEXT_CASES, ids=[condition for condition, _ in TEXT_CASES])
def test_end_users_are_filtered_exactly_like_workflows(
    tmp_path: Path, field: str, condition: str, selected: set[str | None]
) -> None:
    """Every operator means the same for the end user as for the workflow: `is` is exact, `contains` ignores case."""
    traces = []
    for number, value in enumerate(["Ali", "alina", "STRASSE", None]):
        # Without a workflow of its own a trace takes the root's name for one; a root that never came has neither.
        missing = {"root_received": False} if field == "workflow" and value is None else {}
        traces.append(Stored(number, **{field: value}, **missing))
    with store(tmp_path / "traces.db", traces) as reader:
        page = reader.traces(View(filters=parse(f"{field} {condition}")), now=NOW)
    assert {getattr(row, field) for row in page.rows} == selected


@pytest.mark.parametrize(
    ("condition", "selected"),
    [
        ("metadata:n is 1", {"number", "float", "text"}),
        ('metadata:n is "1"', {"text"}),
        ("metadata:n is 1.0", {"number", "float"}),
        ("metadata:n is true", {"true", "true text"}),
        ('metadata:n is "true"', {"true text"}),
        ("metadata:n is null", {"null", "null text"}),
        ("metadata:n is not 1", {"true", "true text", "null", "null text", "list", "missing", "nothing"}),
        ("metadata:n is set", {"number", "float", "text", "true", "true text", "null text", "list"}),
        ("metadata:n is not set", {"null", "missing", "nothing"}),
        ("metadata:n > 0.5", {"number", "float"}),
        ("metadata:n contains TRU", {"true", "true text"}),
        ("metadata:n contains 1", {"number", "float", "text"}),
    ],
)
def test_json_types_of_metadata_are_respected(tmp_path: Path, condition: str, selected: set[str]) -> None:
    """Unquoted numbers and words match the JSON value and the text, quoted text matches text, "is not" the missing."""
    values = {
        "number": 1,
        "float": 1.0,
        "text": "1",
        "true": True,
        "true text": "true",
        "null": None,
        "null text": "null",
        "list": [1],
    }
    traces = [Stored(number, name, {"n": value}) for number, (name, value) in enumerate(values.items())]
    traces += [Stored(90, "missing", {"m": 1}), Stored(91, "nothing")]
    with store(tmp_path / "traces.db", traces) as reader:
        page = reader.traces(View(filters=parse(condition)), now=NOW)
    assert {row.end_user for row in page.rows} == selected


@pytest.mark.parametrize(
    ("condition", "selected"),
    [
        ("status is ok", {"said ok", "said nothing"}),
        ("status is not ok", {"failed", "open"}),
        ("status is error", {"failed"}),
        ("status is not error", {"said ok", "said nothing", "open"}),
        ("status is unset", {"said nothing", "open"}),
        ("status is any of ok, error", {"said ok", "said nothing", "failed"}),
        ("status is none of ok, unset", {"failed"}),
    ],
)
def test_ok_is_what_the_page_shows_as_ok(tmp_path: Path, condition: str, selected: set[str]) -> None:
    """A root that has arrived and did not end in an error went well, whether its sender said so or said nothing."""
    traces = [
        Stored(1, name="said ok", status="ok"),
        Stored(2, name="said nothing"),
        Stored(3, name="failed", status="error"),
        Stored(4, name="open", root_received=False),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        page = reader.traces(View(filters=parse(condition)), now=NOW)
    assert {row.name if row.root_received else "open" for row in page.rows} == selected


def test_the_literal_key_comes_before_the_path(tmp_path: Path) -> None:
    """A dotted key is looked up as it stands; only where it is not there it is a path."""
    traces = [
        Stored(1, "both", {"a.b": "literal", "a": {"b": "path"}}),
        Stored(2, "path", {"a": {"b": "path"}}),
        Stored(3, "null", {"a.b": None, "a": {"b": "path"}}),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        page = reader.traces(View(filters=parse("metadata:a.b is path")), now=NOW)
    assert [row.end_user for row in page.rows] == ["path"]


def test_metadata_means_the_trace_s_the_session_s_and_the_latest(tmp_path: Path) -> None:
    """On Traces it is the trace's own, on Sessions that of any trace, on Users the latest, whatever the period."""
    traces = [
        Stored(1, "ali", {"plan": "free"}, session="s", ago=2 * MINUTE),
        Stored(2, "ali", {"plan": "pro"}, session="s", ago=MINUTE),
        Stored(3, "ali", None, session="t", ago=0),
    ]
    with store(tmp_path / "traces.db", traces) as reader:

        def found(condition: str) -> tuple[list[str], list[str], list[str]]:
            view = View(filters=parse(condition))
            return (
                [row.trace_id for row in reader.traces(view, now=NOW).rows],
                [row.session for row in reader.sessions(view.on(Tab.SESSIONS), now=NOW).rows],
                [row.end_user for row in reader.users(view.on(Tab.USERS), now=NOW).rows],
            )

        assert found("metadata:plan is free") == ([traces[0].trace_id], ["s"], [])
        assert found("metadata:plan is pro") == ([traces[1].trace_id], ["s"], ["ali"])
        assert found("metadata:plan is not free") == ([traces[2].trace_id, traces[1].trace_id], ["t"], ["ali"])
        assert reader.users(View(Tab.USERS), now=NOW).rows[0].metadata == {"plan": "pro"}


def test_a_mixed_session_matches_any_of_its_end_users(tmp_path: Path) -> None:
    """Whoever had a trace in it finds it, and "is not" finds it for none of them."""
    traces = [Stored(1, "ali", session="s"), Stored(2, "bob", session="s"), Stored(3, "bob", session="t")]
    with store(tmp_path / "traces.db", traces) as reader:

        def sessions(condition: str) -> list[str]:
            view = View(Tab.SESSIONS, parse(condition))
            return sorted(row.session for row in reader.sessions(view, now=NOW).rows)

        assert sessions("end_user is ali") == ["s"]
        assert sessions("end_user is bob") == ["s", "t"]
        assert sessions("end_user is not ali") == ["t"]
        (mixed,) = reader.sessions(View(Tab.SESSIONS, parse("end_user is ali")), now=NOW).rows
        assert mixed.mixed
        assert mixed.end_users == ("ali", "bob")


INJECTIONS = [
    "'; DROP TABLE traces; --",
    '" OR 1=1 --',
    "x' OR 'x'='x",
    "%",
    "_",
    "*",
    "\\",
    "?1",
    ":name",
    "') UNION SELECT * FROM spans --",
    "$.plan",
    "\x00",
]


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize(
    "operator", [operator for operator in Operator if operator.words[0].isalpha() and operator.arity.value]
)
def test_nothing_that_is_typed_becomes_sql(
    tmp_path_factory: pytest.TempPathFactory, operator: Operator, value: str
) -> None:
    """Values and keys of metadata are data: they match themselves and nothing else, and nothing breaks."""
    path = tmp_path_factory.mktemp("store") / "traces.db"
    with store(path, [Stored(1, "ali", {"plan": "pro"}, session="s", workflow="w", tags=("t",))]) as reader:
        for name in ("end_user", "workflow", "session", "service", "name", "trace_id", "tag"):
            ask(reader, Filter(Field(name), operator, (value,)), matches=operator.positive is not None)
        ask(reader, Filter(Field("metadata", "plan"), operator, (value,)), matches=operator.positive is not None)
        ask(reader, Filter(Field("metadata", value), operator, ("pro",)), matches=operator.positive is not None)
        assert len(reader.traces(View(), now=NOW).rows) == 1


def ask(reader: SqliteReader, filter_: Filter, *, matches: bool) -> None:
    """Ask all three lists."""
    view = View(filters=(filter_,))
    assert bool(reader.traces(view, now=NOW).rows) == matches
    assert bool(reader.sessions(view.on(Tab.SESSIONS), now=NOW).rows) == matches
    assert bool(reader.users(view.on(Tab.USERS), now=NOW).rows) == matches


@pytest.mark.parametrize("field", ["tag", "service"])
@pytest.mark.parametrize(
    ("condition", "selected"),
    [
        ("is beta", {"both"}),
        ("is bet", set()),
        ("is not beta", {"one", "other"}),
        ("contains ET", {"both", "other"}),
        ("starts with BE", {"both"}),
        ("starts with eta", set()),
        ("ends with TA", {"both"}),
        ("ends with alph", set()),
        ("is any of alpha, meter", {"both", "one", "other"}),
        ("is none of beta, meter", {"one"}),
        ('contains "alpha\\nbeta"', set()),
    ],
)
def test_each_member_of_a_set_is_compared(tmp_path: Path, field: str, condition: str, selected: set[str]) -> None:
    """A trace has several tags and services: what is asked of one is never true of two that stand side by side."""
    names = {"tag": "tags", "service": "services"}[field]
    members = {"both": ("alpha", "beta"), "one": ("alpha",), "other": ("meter",)}
    traces = [Stored(number, user, **{names: of}) for number, (user, of) in enumerate(members.items())]
    with store(tmp_path / "traces.db", traces) as reader:
        page = reader.traces(View(filters=parse(f"{field} {condition}")), now=NOW)
    assert {row.end_user for row in page.rows} == selected
