"""The journal by itself: it returns what was written to it, or nothing, whatever becomes of its files."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.journal import Journal, look_at
from neatlogs_processor.queue.reading import DamagedRowError
from neatlogs_processor.queue.rows import Row
from neatlogs_processor.queue.segment import HEAD_BYTES
from neatlogs_processor.queue.stock import DiskFullError, open_stock
from support.queue_damage import flipped, truncated
from support.queue_parts import MIB

KIB = 1024


def row(row_id: int, body: bytes = b"body", findings: str = "") -> Row:
    """A request on its way."""
    return Row(row_id, Signal.TRACES, 1_000.0 + row_id, 1, body, findings)


@contextlib.contextmanager
def journal_in(path: Path, segment_bytes: int = MIB) -> Iterator[Journal]:
    """Open a journal whose files lie in an existing directory."""
    journal = Journal((path / "0", path / "1"), segment_bytes=segment_bytes)
    try:
        yield journal
    finally:
        journal.close()


def bodies(journal: Journal) -> dict[int, bytes]:
    """What a journal holds, by id."""
    return {entry.id: journal.row(entry.id).body for entry in journal.entries}


def much(_: int) -> bool:
    """A disk with room."""
    return True


@pytest.mark.parametrize("damage", [flipped, truncated])
def test_damage_at_any_offset_forges_nothing_and_costs_few(tmp_path: Path, damage: Callable[[Path, int], None]) -> None:
    """Whichever byte is wrong or missing: the journal opens, and what is in it is what was written."""
    sound = tmp_path / "sound"
    sound.mkdir()
    chance = random.Random(5)  # noqa: S311  # the same in every run
    with journal_in(sound, 64 * KIB) as journal:
        for number in range(1, 60, 3):
            rows = [row(number + more, chance.randbytes(chance.randint(0, 900)), "é" * more) for more in range(3)]
            assert journal.keep(rows, much) == 3
            journal.forget([number])
            journal.failed(number + 1, number, "down")
        written = bodies(journal)
    size = (sound / "0").stat().st_size
    for offset in sorted({*range(0, 4096, 97), *chance.sample(range(4096, size), 150)}):
        copy = Path(shutil.copytree(sound, tmp_path / "copy"))
        damage(copy / "0", offset)
        with journal_in(copy, 64 * KIB) as journal:
            found = bodies(journal)
            # A lost note brings a request back that had been delivered.
            known = {number: body for number, body in found.items() if number in written}
            assert known.items() <= written.items()
            assert all(number % 3 == 1 for number in found.keys() - known.keys())
            if damage is flipped:
                assert len(known) >= len(written) - 1
        shutil.rmtree(copy)


def test_what_was_being_written_at_the_end_is_no_damage(tmp_path: Path) -> None:
    """A machine that stops in the midst of a write leaves a torn end, which nobody was told of: no alarm."""
    (whole := tmp_path / "whole").mkdir()
    with journal_in(whole) as journal:
        journal.keep([row(1), row(2)], much)
        end = (whole / "0").stat().st_size
        journal.keep([row(3, b"x" * 500), row(4, b"y" * 500)], much)
    for offset in range(end + 1, (whole / "0").stat().st_size, 50):
        copy = Path(shutil.copytree(whole, tmp_path / f"{offset}"))
        flipped(copy / "0", offset)
        with journal_in(copy) as journal:
            assert {1, 2} <= bodies(journal).keys() < {1, 2, 3, 4}
            assert journal.damaged == 0
            # What comes next is written over it.
            journal.keep([row(5, b"z" * 2_000)], much)
        with journal_in(copy) as journal:
            assert {1, 2, 5} <= bodies(journal).keys()
            assert journal.damaged == 0


def test_a_body_that_looks_like_a_journal_is_a_body(tmp_path: Path) -> None:
    """Not even where damage makes it look for the next record is a client's own one taken for it."""
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    with journal_in(tmp_path / "theirs") as theirs:
        theirs.keep([row(7, b"forged"), row(8, b"forged, too")], much)
    trojan = (tmp_path / "theirs" / "0").read_bytes()
    with journal_in(tmp_path / "ours") as journal:
        journal.keep([row(1, trojan)], much)
        journal.keep([row(2, trojan), row(3)], much)
    content = (tmp_path / "ours" / "0").read_bytes()
    flipped(tmp_path / "ours" / "0", content.index(trojan) - 40)
    with journal_in(tmp_path / "ours") as journal:
        assert bodies(journal) == {2: trojan, 3: b"body"}
        assert journal.damaged == 1


def test_a_lost_body_is_found_out_when_it_is_read(tmp_path: Path) -> None:
    """Damage that happens while the processor runs makes one request unreadable, never wrong."""
    with journal_in(tmp_path) as journal:
        journal.keep([row(1, b"first"), row(2, b"second")], much)
        flipped(tmp_path / "0", (tmp_path / "0").read_bytes().index(b"first"))
        with pytest.raises(DamagedRowError):
            journal.row(1)
        assert journal.row(2).body == b"second"


def test_a_request_that_was_refused_hides_none_that_was_taken_afterwards(tmp_path: Path) -> None:
    """What a failing disk kept of it may begin where a note is lost, and reach over all that came later."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with journal_in(tmp_path) as journal:
        journal.keep([row(1)], much)
    end = (tmp_path / "0").stat().st_size
    journal = Journal((tmp_path / "0", tmp_path / "1"), segment_bytes=MIB, sync=fails)
    with pytest.raises(OSError, match="Input/output error"):
        journal.keep([row(2, bytes(9_000))], much)
    refused = (tmp_path / "0").read_bytes()[end:][:HEAD_BYTES]
    journal.close()
    with (tmp_path / "0").open("r+b") as file:
        file.truncate(end)
    with journal_in(tmp_path) as journal:
        journal.failed(1, 1, "down")
        journal.write_notes()
        journal.keep([row(3, b"taken")], much)
    with (tmp_path / "0").open("r+b") as file:
        file.seek(end)
        file.write(refused)
        file.seek(0, os.SEEK_END)
        file.write(bytes(9_000))
    with journal_in(tmp_path) as journal:
        assert bodies(journal) == {1: b"body", 3: b"taken"}


def test_a_segment_without_its_first_page_is_read_by_its_first_record(tmp_path: Path) -> None:
    """Both copies of the preamble lie in one page of the disk: what it costs is an alarm, and no request."""
    with journal_in(tmp_path, 16 * KIB) as journal:
        for number in range(1, 9):
            journal.keep([row(number, bytes(3_000))], much)
            journal.forget([number - 3])
            journal.write_notes()
        written = bodies(journal)
    for name in ("0", "1"):
        copy = Path(shutil.copytree(tmp_path, tmp_path.with_name(name)))
        with (copy / name).open("r+b") as file:
            file.write(bytes([7]) * 4096)
        with journal_in(copy, 16 * KIB) as journal:
            assert bodies(journal).items() >= written.items()
            assert journal.damaged == 1


def test_tries_that_were_not_noted_leave_room_for_requests(tmp_path: Path) -> None:
    """However many have failed while the disk took no notes, the next request finds its place."""
    with journal_in(tmp_path, 16 * KIB) as journal:
        for number in range(1, 40):
            assert journal.keep([row(number)], much) == 1
        for number in range(1, 40):
            journal.failed(number, 1, "d" * 1_000)
        while not journal.keep([row(40, bytes(4_000))], much):
            journal.forget(journal.in_the_way())
        assert 40 in journal


def test_a_disk_without_room_refuses_and_what_is_there_stays(tmp_path: Path) -> None:
    """A journal grows only where there is room; over what has left it writes without any."""
    with journal_in(tmp_path) as journal:
        assert journal.keep([row(1, bytes(10_000))], much) == 1
        with pytest.raises(OSError, match=r".*") as full:
            journal.keep([row(2)], lambda _: False)
        assert full.value.errno == errno.ENOSPC
        assert bodies(journal).keys() == {1}
    with journal_in(tmp_path, 20_000) as journal:
        journal.forget([1])
        assert journal.keep([row(2)], lambda _: False) == 1
        assert bodies(journal).keys() == {2}


def test_a_full_disk_leaves_the_journal_to_the_next_start(tmp_path: Path) -> None:
    """Where the database has no room for what waits at the end, it waits where it is."""
    directory = QueueDirectory(tmp_path / "queue")
    try:
        stock, _ = open_stock(directory, max_pages=8)
        assert stock.keep([row(number, bytes(100_000)) for number in range(1, 9)]) == 8
        with pytest.raises((DiskFullError, sqlite3.OperationalError)):
            stock.gather()
        stock.close()
        again, recoveries = open_stock(directory, max_pages=8)
        assert recoveries == []
        assert (again.totals.requests, again.last_id, again.newest) == (8, 8, 1_008.0)
        again.close()
        with pytest.raises((DiskFullError, sqlite3.OperationalError)):
            open_stock(directory, max_pages=8, segment_bytes=0)
        roomy, _ = open_stock(directory, segment_bytes=0)
        assert roomy.file.totals.requests == 8
        roomy.close()
        assert not any(one.exists() for one in directory.journal)
    finally:
        directory.close()


@dataclass
class Model:
    """What a journal should hold."""

    kept: dict[int, bytes] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    last: int = 0


_STEPS: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("keep"), st.lists(st.integers(0, 3_000), min_size=1, max_size=4)),
    st.tuples(st.just("forget"), st.lists(st.integers(0, 30), max_size=8)),
    st.tuples(st.just("fail"), st.lists(st.integers(0, 30), max_size=2)),
    st.tuples(st.just("reopen"), st.just([])),
    st.tuples(st.just("look"), st.just([])),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(steps=st.lists(_STEPS, max_size=40))
def test_a_journal_holds_what_was_kept_and_not_forgotten(
    steps: list[tuple[str, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the order of keeping, forgetting, failing and being killed."""
    path = tmp_path_factory.mktemp("journal")
    model = Model()
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(journal_in(path, 16 * KIB))
        for what, numbers in steps:
            if what == "keep":
                rows = [row(model.last + 1 + at, bytes([at]) * size) for at, size in enumerate(numbers)]
                model.last += len(rows)
                while rows:
                    kept = journal.keep(rows, much)
                    if not kept:
                        moved = journal.in_the_way()
                        assert moved
                        journal.forget(moved)
                        model.kept = {number: body for number, body in model.kept.items() if number not in moved}
                    model.kept.update((one.id, one.body) for one in rows[:kept])
                    rows = rows[kept:]
            elif what == "forget":
                ids = [model.last - number for number in numbers]
                journal.forget(ids)
                journal.write_notes()
                for number in ids:
                    model.kept.pop(number, None)
            elif what == "fail":
                for number in (model.last - number for number in numbers):
                    if number in model.kept:
                        model.tries[number] = model.tries.get(number, 0) + 1
                        journal.failed(number, model.tries[number], "down")
                        journal.write_notes()
            elif what == "look":
                assert [one.id for one in look_at((path / "0", path / "1"))] == list(model.kept)
            else:
                stack.close()
                journal = stack.enter_context(journal_in(path, 16 * KIB))
                assert {one.id: one.attempts for one in journal.entries} == {
                    number: model.tries.get(number, 0) for number in model.kept
                }
            assert bodies(journal) == model.kept
            assert len(journal) == len(model.kept)
            assert journal.size == sum(one.size for one in journal.entries)
