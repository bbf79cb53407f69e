"""What docs/scale.md says of traffic that nobody planned for: busy end users, endless sessions, clocks, late roots."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Period, View
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reader import MAX_BESIDE_A_USER, MAX_TURNS
from neatlogs_processor.store.retention import DAY, Limits, prune
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.served_page import served_page
from support.store_contents import rollups_of
from support.store_parts import POLICY
from support.stored import MINUTE, NOW, SECOND, Stored, store

HOUR = 60 * MINUTE


def test_the_page_of_a_busy_end_user_shows_the_newest_of_theirs(tmp_path: Path) -> None:
    """Sums are of all their traces, and beside them stand as many as a page can show, the newest first."""
    traces = [Stored(number, "busy", session=f"s{number}", ago=(200 - number) * SECOND) for number in range(120)]
    with store(tmp_path / "traces.db", traces) as reader:
        detail = reader.user("busy", View(), now=NOW)
    assert detail is not None
    assert detail.user.traces == 120
    assert [row.trace_id for row in detail.traces] == [one.trace_id for one in traces[: -MAX_BESIDE_A_USER - 1 : -1]]
    assert len(detail.sessions) == MAX_BESIDE_A_USER


def test_a_session_without_end_shows_its_newest_turns(tmp_path: Path) -> None:
    """It has the newest ones in the order in which they happened, and its page says of how many."""
    count = MAX_TURNS + 3
    traces = [Stored(number, "ali", session="endless", ago=(count - number) * SECOND) for number in range(count)]
    path = tmp_path / "traces.db"
    with store(path, traces) as reader:
        detail = reader.session("endless")
    with served_page(path) as client:
        page = client.get("/session?id=endless").text
    assert "The newest 1,000 of 1,003 turns." in page
    assert detail is not None
    assert detail.session.traces == count
    assert [row.trace_id for row in detail.traces] == [one.trace_id for one in traces[3:]]


def test_a_trace_dated_tomorrow_stands_at_the_top_and_goes_with_the_others(tmp_path: Path) -> None:
    """A wrong clock hides nothing: the last hour holds the future too, and retention goes by arrival."""
    path = tmp_path / "traces.db"
    early, tomorrow, last_year = Stored(1), Stored(2, ago=-24 * HOUR), Stored(3, ago=365 * 24 * HOUR)
    with store(path, [early, tomorrow, last_year]) as reader:
        last_hour = [row.trace_id for row in reader.traces(View(period=Period(last=HOUR)), now=NOW).rows]
        ever = [row.trace_id for row in reader.traces(View(period=ALL_TIME), now=NOW).rows]
    assert last_hour == [tomorrow.trace_id, early.trace_id]
    assert ever == [tomorrow.trace_id, early.trace_id, last_year.trace_id]
    with closing(open_writer(path)) as connection:
        assert prune(connection, Limits(max_age=DAY), NOW + DAY).spans == 0
        assert prune(connection, Limits(max_age=DAY), NOW + DAY + 1).spans == 3


def test_a_root_that_outlives_its_trace_is_a_trace_of_its_own(tmp_path: Path) -> None:
    """Where children were removed before their root came, the root is kept with what it says, and with nothing else."""
    path = tmp_path / "traces.db"
    children, root = Stored(1, spans=3, root_received=False), Stored(1, "ali", ago=MINUTE)
    with store(path, []) as reader, closing(open_writer(path)) as connection:
        writing = Writing(connection)
        writing.write([(read_request(children.request(), POLICY), ())], NOW)
        prune(connection, Limits(max_age=DAY), NOW + 2 * DAY)
        assert not rollups_of(path)
        writing.forget_shared()
        writing.write([(read_request(root.request(), POLICY), ())], NOW + 2 * DAY)
        (found,) = reader.traces(View(filters=parse("end_user is ali"), period=ALL_TIME), now=NOW).rows
    assert (found.spans, found.root_received) == (1, True)
