"""What reading may cost, and what it says where the store is not what it was."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.errors import ConfigError, StoreUnavailableError
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import Tab, View
from neatlogs_processor.store.details import MAX_SPANS
from neatlogs_processor.store.files import LOG_BYTES
from neatlogs_processor.store.places import GAP_SECONDS, Places
from neatlogs_processor.store.reader import SqliteReader
from support.served_page import root_span, served_page, write_spans
from support.stored import NOW, SECOND, Stored, store, write

# Looks for three values at each of thirty paths in the metadata of each trace, of which none is there.
HARD = parse(" and ".join(f"metadata:a.b.{number} is none of x, y, z" for number in range(30)))
MANY = [Stored(number, f"user {number}", {"a": {"b": {"c": number}}, "plan": "pro"}) for number in range(2000)]


def test_a_question_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """Nobody waits without end, nor does the log grow as long: the error says what to ask instead, and others go on."""
    with store(tmp_path / "traces.db", MANY) as patient:
        assert len(patient.traces(View(filters=HARD), now=NOW).rows) == 50
        reader = SqliteReader(tmp_path / "traces.db", patience=0)
        for ask in (reader.summary, reader.coverage, reader.exclusions):
            with pytest.raises(StoreUnavailableError, match="shorter period"):
                ask(View(filters=HARD), now=NOW)
        assert reader.trace(MANY[0].trace_id) is not None
        assert len(reader.users(View(Tab.USERS, limit=3), now=NOW).rows) == 3
        reader.close()


def test_an_empty_list_is_shown_although_its_reason_takes_too_long(tmp_path: Path) -> None:
    """Which filter excluded everything is asked once for each filter; where that takes too long it is left out."""

    class Tired(SqliteReader):
        def exclusions(self, view: View, *, now: int) -> tuple[object, ...]:
            raise StoreUnavailableError("this takes too long", retry_after=1.0)

    path = tmp_path / "traces.db"
    write(path, MANY[:3])
    with served_page(path, reader=Tired(path)) as client:
        answer = client.get("/traces?filter=end_user+is+nobody")
        assert answer.status_code == 200
        assert "No traces fit" in answer.text


def test_a_store_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    """A file that was replaced or removed is not answered from any more, although it was open."""
    path = tmp_path / "traces.db"
    write(path, [Stored(1, "ali")])
    reader = SqliteReader(path)
    assert reader.summary(View(), now=NOW).traces == 1
    write(tmp_path / "other.db", [Stored(2, "bob"), Stored(3, "carol")])
    for name in ("traces.db-wal", "traces.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "other.db").replace(path)
    assert reader.summary(View(), now=NOW).traces == 2
    path.unlink()
    with pytest.raises(ConfigError, match="there is no store"):
        reader.summary(View(), now=NOW)
    reader.close()


def test_of_a_trace_without_end_the_beginning_is_read(tmp_path: Path) -> None:
    """Of a trace with more spans than fit, the roots and the earliest come, and how many more there are."""
    path, parent = tmp_path / "traces.db", (1).to_bytes(8, "big")
    children = [
        Span(
            trace_id=(1).to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            parent_span_id=parent,
            name=f"step {number}",
            start_time_unix_nano=NOW - 60 * SECOND - number,
        )
        for number in range(2, MAX_SPANS + 12)
    ]
    write_spans(path, root_span(1, {"neatlogs.end_user.id": "ali"}), *children)
    with served_page(path) as client:
        trace = client.get(f"/api/traces/{1:032x}").json()
        assert (trace["trace"]["spans"], len(trace["spans"]), trace["spans_left_out"]) == (
            MAX_SPANS + 11,
            MAX_SPANS,
            11,
        )
        names = {span["name"] for span in trace["spans"]}
        assert "chat" in names
        assert f"step {MAX_SPANS + 11}" in names
        assert "step 2" not in names
        shown = client.get(f"/traces/{1:032x}").text
        assert "10,011 spans; the first 10,000 can be shown" in shown


def test_metadata_too_large_for_lists_stays_with_its_span(tmp_path: Path) -> None:
    """Metadata over 64 KiB is no part of lists, filters and proposals; the span has it."""
    path = tmp_path / "traces.db"
    large, small = '{"plan": "' + "p" * 65_536 + '"}', '{"plan": "pro"}'
    whose = {"neatlogs.end_user.id": "ali"}
    write_spans(path, *(root_span(n, {**whose, "neatlogs.end_user.metadata": m}) for n, m in ((1, large), (2, small))))
    with served_page(path) as client:
        rows = {row["trace_id"]: row["metadata"] for row in client.get("/api/traces").json()["rows"]}
        assert rows == {f"{1:032x}": None, f"{2:032x}": {"plan": "pro"}}
        (span,) = client.get(f"/api/traces/{1:032x}").json()["spans"]
        assert span["attributes"]["neatlogs.end_user.metadata"] == large


def test_questions_without_a_gap_do_not_let_the_log_grow() -> None:
    """When the log is too large, new questions wait until those that run have ended and it is cut back."""
    log, inside, served = [0], threading.Event(), list[str]()
    places = Places(2, patience=60, log_size=lambda: log[0])
    go = threading.Event()

    def ask(name: str) -> None:
        with places.one():
            served.append(name)
            inside.set()
            assert go.wait(60)

    first = threading.Thread(target=ask, args=("first",))
    first.start()
    assert inside.wait(60)
    log[0] = 2 * LOG_BYTES + 1
    impatient = Places(2, patience=0, log_size=lambda: log[0])
    with pytest.raises(StoreUnavailableError, match="ask again"), impatient.one():
        pass
    second = threading.Thread(target=ask, args=("second",))
    second.start()
    second.join(0.1)
    assert served == ["first"]
    log[0] = LOG_BYTES
    go.set()
    first.join(60)
    second.join(60)
    assert served == ["first", "second"]


def test_a_log_that_nobody_cuts_back_keeps_nobody_waiting() -> None:
    """Where nobody writes the gap ends by itself, and the next one comes when the log has grown as much again."""
    log, now = [3 * LOG_BYTES], [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    places = Places(1, patience=60, log_size=lambda: log[0], clock=clock)
    with places.one():
        waited = now[0]
    assert waited > GAP_SECONDS
    log[0] = 4 * LOG_BYTES
    with places.one():
        assert now[0] - waited <= 1
    log[0] += 1
    with places.one():
        assert now[0] - waited > GAP_SECONDS


def test_a_place_is_waited_for_as_long_as_patience_lasts() -> None:
    """Who finds all places taken is told to ask again, and the next one finds the place that was given back."""
    places = Places(1, patience=0, log_size=lambda: 0)
    with places.one(), pytest.raises(StoreUnavailableError, match="ask again"), places.one():
        pass
    with places.one():
        pass


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE resources SET body = x'ffffffff'",
        "UPDATE scopes SET body = x'ff'",
        "UPDATE blocks SET body = x'00'",
        "DELETE FROM blocks",
        "UPDATE spans SET span_id = x'99'",
        "UPDATE traces SET metadata = '{'",
        "UPDATE traces SET end_user = CAST(x'ff' AS TEXT)",
    ],
)
def test_damage_inside_a_row_is_said(tmp_path: Path, damage: str) -> None:
    """What SQLite takes for sound and nobody can read is answered 503 with words, wherever it is shown."""
    path = tmp_path / "traces.db"
    said = {"neatlogs.end_user.id": "ali", "neatlogs.end_user.metadata": '{"a": 1}', "neatlogs.session.id": "s"}
    write_spans(path, root_span(1, said))
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with served_page(path) as client:
        for address in ("/traces", "/users", "/session?id=s", "/api/traces.csv", "/complete?text=metadata:"):
            assert client.get(address).status_code in (200, 503), address
        for address in (f"/traces/{1:032x}", f"/api/traces/{1:032x}"):
            answer = client.get(address)
            assert answer.status_code == 503
            assert "damaged" in answer.text or "could not be read" in answer.text
