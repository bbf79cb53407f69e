"""What is written beside the rollup: overrides, what spans share, and the blocks that hold them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.store.blocks import MAX_BLOCK_BYTES, compress, decompress, group
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reading import read_trace
from neatlogs_processor.store.room import RESERVE_BYTES, Room
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.text import filterable_metadata, fold_metadata
from neatlogs_processor.store.writing import HOUR, Writing, Written
from support.store_contents import assert_sound
from support.store_oracle import Sent
from support.store_parts import POLICY, START, trace
from support.store_strategies import request


@dataclass
class Desk:
    """A store that is written by hand."""

    path: Path
    connection: sqlite3.Connection
    writing: Writing

    def write(self, *sent: list[Sent], overrides: tuple[Override, ...] = (), received: int = START) -> Written:
        """Write traces in one request."""
        body = request([one for spans in sent for one in spans])
        return self.writing.write([(read_request(body, POLICY), overrides)], received)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Ask the database."""
        return self.connection.execute(query).fetchall()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty store."""
    path = tmp_path / "traces.db"
    with contextlib.closing(open_writer(path)) as connection:
        yield Desk(path, connection, Writing(connection))


def override(number: int, span: int, place: Place = Place.CHILD, key: str = "neatlogs.end_user.id") -> Override:
    """Identity that was ignored on a span of `trace(number)`."""
    one = trace(number)[0].span
    return Override(one.trace_id, span.to_bytes(8, "big"), "shop", f"span {span - 1}", place, key)


def test_overrides_are_kept_once_for_each_place_and_key(desk: Desk) -> None:
    """The same request again adds nothing; another key or place of the same span does; the last arrival is known."""
    overrides = (override(1, 2), override(1, 2, key="neatlogs.end_user.metadata"), override(1, 2, Place.EVENT))
    desk.write(trace(1, spans=2), overrides=overrides)
    desk.write(trace(1, spans=2), overrides=overrides, received=START + 5)
    desk.write(trace(1, spans=2), overrides=overrides, received=START + 3)
    assert sorted(desk.rows("SELECT place, key FROM overrides")) == [
        ("child", "neatlogs.end_user.id"),
        ("child", "neatlogs.end_user.metadata"),
        ("event", "neatlogs.end_user.id"),
    ]
    assert desk.rows("SELECT DISTINCT received FROM overrides") == [(START + 5,)]


def test_an_override_of_a_scope_belongs_to_no_trace(desk: Desk) -> None:
    """An instrumentation scope has no trace: what it said is kept by service and the scope's name."""
    desk.write(trace(1), overrides=(Override(b"", b"", "shop", "library", Place.SCOPE, "neatlogs.end_user.id"),))
    assert desk.rows("SELECT trace, place, service, span_name FROM overrides") == [(0, "scope", "shop", "library")]


def test_an_override_without_a_trace_to_show_it_with_is_not_kept(desk: Desk) -> None:
    """On a completion marker that comes alone, identity is counted by the rule, and no trace is made up for it."""
    marker = trace(1, spans=2)[1:]
    marker[0].span.name = "neatlogs.trace.complete"
    assert desk.write(marker, overrides=(override(1, 2),)) == Written(0, 0)
    assert desk.rows("SELECT * FROM overrides") == []
    assert desk.rows("SELECT * FROM traces") == []


def test_what_spans_share_is_kept_once(desk: Desk) -> None:
    """A resource and a scope stand in the file once, however many requests, transactions and writers bring them."""
    for number in range(5):
        desk.write(trace(number, spans=3))
    Writing(desk.connection).write([(read_request(request(trace(9, service="other")), POLICY), ())], START)
    assert desk.rows("SELECT service FROM resources ORDER BY service") == [("other",), ("shop",)]
    assert desk.rows("SELECT count(*) FROM scopes") == [(1,)]


def test_use_is_remembered_to_the_hour(desk: Desk) -> None:
    """A resource that stays in use is not written to with every request, and yet never looks unused for an hour."""
    desk.write(trace(1), received=START)
    desk.write(trace(2), received=START + HOUR - 1)
    assert desk.rows("SELECT last_used FROM resources") == [(START,)]
    desk.write(trace(3), received=START + HOUR)
    assert desk.rows("SELECT last_used FROM resources") == [(START + HOUR,)]


def test_a_transaction_that_fails_leaves_nothing(desk: Desk) -> None:
    """Where the last row of a transaction is refused, nothing of it is there, and its resource is written later."""
    desk.connection.execute("CREATE TRIGGER obstacle BEFORE INSERT ON traces BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        desk.write(trace(1, spans=3))
    for table in ("spans", "blocks", "resources", "scopes"):
        assert desk.rows(f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608  # names of our own; values are bound
    desk.connection.execute("DROP TRIGGER obstacle")
    assert desk.write(trace(1, spans=3)) == Written(3, 0)
    assert_sound(desk.path)


def test_a_trace_of_many_and_large_spans(desk: Desk) -> None:
    """Spans beyond a block's size go into further blocks, and all are read back, in order of their start."""
    sent = trace(1, spans=700, padding=500)
    for begin in range(0, 700, 350):
        desk.write(sent[begin : begin + 350])
    assert desk.write(sent[300:400]) == Written(0, 100)
    assert desk.rows("SELECT count(*) > 3 FROM blocks") == [(1,)]
    assert [stored.span for stored in read_trace(desk.connection, 1)] == [one.span for one in sent]


@given(st.lists(st.binary(max_size=300).map(lambda noise: Span(name=noise.hex(), span_id=noise[:8])), max_size=20))
def test_a_block_gives_back_what_went_in(spans: list[Span]) -> None:
    """Spans of any length come back in their order."""
    assert decompress(compress(span.SerializeToString() for span in spans)) == spans


@given(st.lists(st.integers(0, 2 * MAX_BLOCK_BYTES), max_size=30))
def test_blocks_are_bounded(sizes: list[int]) -> None:
    """Each span is in one block; none is empty, and none larger than the bound unless a single span is."""
    counts = group(sizes)
    assert sum(counts) == len(sizes)
    begin = 0
    for count in counts:
        of_block = sizes[begin : begin + count]
        begin += count
        assert count == 1 or 0 < sum(of_block) <= MAX_BLOCK_BYTES or not any(of_block)


@pytest.mark.parametrize(
    ("block", "says"),
    [(b"", "unknown format"), (b"\x02abc", "unknown format"), (b"\x01\xff\xff", "damaged")],
)
def test_a_block_that_cannot_be_read(block: bytes, says: str) -> None:
    """A newer format or damage is an error of its own, not some spans."""
    with pytest.raises(ValueError, match=says):
        decompress(block)


def test_a_damaged_block_is_never_read_as_something_else() -> None:
    """A block that was cut short, or has a wrong bit anywhere, is an error and not other spans."""
    block = compress(one.span.SerializeToString() for one in trace(1, spans=20, padding=50))
    for place in range(1, len(block), 37):
        wrong = block[:place] + bytes([block[place] ^ 4]) + block[place + 1 :]
        for damaged in (block[:place], wrong):
            with pytest.raises(ValueError, match="damaged"):
                decompress(damaged)


@pytest.mark.parametrize(
    ("said", "filterable"),
    [
        ('{"b": 1, "a": "x", "b": 2}', '{"b":2,"a":"x"}'),
        ('{"a": NaN, "b": [Infinity]}', '{"a":"nan","b":["inf"]}'),
        ('{"a": "\\ud800"}', '{"a":"?"}'),
        ("[1]", None),
        ("{", None),
        ('{"a":' * 65 + "1" + "}" * 65, None),
        ("[" * 100_000, None),
    ],
)
def test_metadata_that_can_be_filtered_by(said: str, filterable: str | None) -> None:
    """Metadata becomes JSON that SQLite reads as we do; what is no object, or too deep, stays with its span alone."""
    assert filterable_metadata(said) == filterable


def test_folded_metadata_keeps_its_keys() -> None:
    """For comparisons that ignore case, values are folded at every depth, and keys are not."""
    assert fold_metadata('{"Plan":["PRO",{"Tier":"GRÖSSE"}],"N":1}') == '{"Plan":["pro",{"Tier":"grösse"}],"N":1}'
    assert fold_metadata(None) is None


def test_room_is_asked_of_the_disk(tmp_path: Path) -> None:
    """A gigabyte of gigabytes does not fit; the reserve is real bytes, taken once and given up when asked."""
    room = Room(tmp_path / "traces.db")
    assert not room.has_room(2**60)
    assert room.has_room(0)
    assert room.keep_reserve()
    assert room.keep_reserve()
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("traces.db-reserve", RESERVE_BYTES)]
    room.give_up_reserve()
    room.give_up_reserve()
    assert list(tmp_path.iterdir()) == []


def test_room_that_cannot_be_asked_for(tmp_path: Path) -> None:
    """Where the folder has gone there is no reserve, and whether there is room is for SQLite to find out."""
    room = Room(tmp_path / "gone" / "traces.db")
    assert room.has_room(2**60)
    assert not room.keep_reserve()
    assert room.log_bytes() == 0
