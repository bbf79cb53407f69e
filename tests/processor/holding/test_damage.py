"""The file of held spans: full disks, damaged files, and what is on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from neatlogs_processor.core.stamping import Owner
from neatlogs_processor.errors import OverloadedError, ProcessorError
from neatlogs_processor.holding.file import HoldingFile, holding_file_in, is_damage, open_or_salvage
from neatlogs_processor.holding.rows import Fragment, Root, fragment_of
from neatlogs_processor.holding.sorting import join
from support.holding_parts import Queue, holding_in
from support.processor import until
from support.spans import child, request, root

USER = {"neatlogs__end_user__id": "u_1"}
PAGE = 16 * 1024


def filled(path: Path, size: int = 8_000) -> list[Fragment]:
    """Make a file with 39 fragments of about such a size, and roots for some of their traces."""
    fragments = []
    for number in range(1, 40):
        trace_id = number.to_bytes(16, "big")
        body = request(child(f"{number:04}" * (size // 4), trace_id=trace_id))
        fragments.append(fragment_of(number, trace_id, float(number), 1, body))
    file = HoldingFile(path)
    with file.transaction():
        file.insert(fragments)
        file.remember(Root(one.held.trace_id, 1.0, Owner(b"\x01", b"")) for one in fragments[::2])
    file.close()
    return fragments


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """Fragments and roots come back as they were, in order; nobody else may read the file."""
    path = tmp_path / "file"
    fragments = filled(path)
    file, salvage = open_or_salvage(path)
    assert salvage is None
    assert file.held() == [one.held for one in fragments]
    assert [file.body(one.held) for one in fragments] == [one.body for one in fragments]
    assert len(file.roots()) == 20
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """All of a group is on the disk, or nothing of it."""
    file = HoldingFile(tmp_path / "file")
    one = fragment_of(1, b"\x01" * 16, 0.0, 1, b"x")
    with pytest.raises(sqlite3.IntegrityError), file.transaction():
        file.insert([one, one])
    assert file.held() == []
    file.close()


def scrambled(path: Path) -> None:
    """Damage the middle of a file."""
    with path.open("r+b") as file:
        file.seek(PAGE * 20)
        file.write(os.urandom(PAGE * 3))


def headless(path: Path) -> None:
    """Make a file something else altogether."""
    path.write_bytes(b"not a database at all" * 1_000)


def foreign(path: Path) -> None:
    """Put somebody else's tables into a file."""
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()


@pytest.mark.parametrize(("damage", "some"), [(scrambled, True), (headless, False), (foreign, False)])
def test_a_damaged_file_is_set_aside_and_what_is_sound_goes_on(
    tmp_path: Path, damage: Callable[[Path], None], some: bool
) -> None:
    """No damage keeps the processor from starting: what passes its checksum is taken over, the rest kept aside."""
    path = tmp_path / "file"
    bodies = {one.held.id: one.body for one in filled(path)}
    damage(path)
    file, salvage = open_or_salvage(path)
    assert salvage is not None
    assert salvage.folder.name.startswith("corrupt-")
    assert (salvage.folder / "file").exists()
    held = file.held()
    assert len(held) == salvage.saved
    assert (0 < salvage.saved < len(bodies)) == some
    assert all(file.body(one) == bodies[one.id] for one in held)
    file.close()
    again, nothing = open_or_salvage(path)
    assert nothing is None
    again.close()


def test_a_salvage_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    """Killed between two steps, the next start finds either the damaged file or what was saved of it."""
    path, saved = tmp_path / "file", tmp_path / "file.saved"
    filled(path)
    path.rename(saved)
    file, salvage = open_or_salvage(path)
    assert salvage is None
    assert len(file.held()) == 39
    file.close()
    shutil.copy(path, saved)
    scrambled(path)
    file, salvage = open_or_salvage(path)
    assert salvage is not None
    assert not saved.exists()
    file.close()


async def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    """What is no file at all is named in the error."""
    holding_file_in(tmp_path).mkdir()
    with pytest.raises(ProcessorError, match=r"holding\.v1"):
        async with holding_in(tmp_path):
            pass


async def test_a_full_disk_is_answered_with_come_again_and_empties_by_itself(tmp_path: Path) -> None:
    """What finds no room is not acknowledged; what waited goes on with its root, and then there is room again."""
    async with holding_in(tmp_path, max_pages=40) as parts:
        accepted = 0
        with contextlib.suppress(OverloadedError):
            for number in range(1, 100):
                await parts.send(child("x" * 20_000, trace_id=number.to_bytes(16, "big")))
                accepted = number
        with pytest.raises(OverloadedError, match="is full"):
            await parts.send(child("x" * 20_000))
        assert parts.holding.spans == accepted > 5
        for number in range(1, accepted + 1):
            await parts.send(root("r", trace_id=number.to_bytes(16, "big"), **USER))
        await until(lambda: parts.outcome("stamped") == accepted)
        await until(lambda: parts.holding.spans == 0)
        await parts.send(child("fits again"))
        assert parts.holding.spans == 1


async def test_damage_that_shows_while_it_runs_costs_what_is_damaged(tmp_path: Path) -> None:
    """A file that breaks under the processor is replaced, what is sound goes on, and what is lost is counted."""
    path = holding_file_in(tmp_path)
    # More than goes on at once, and more than SQLite keeps in memory.
    filled(path, size=200_000)
    queue = Queue()
    queue.open.clear()
    async with holding_in(tmp_path, queue, wait=0.01) as parts:
        await until(lambda: queue.tries == 1)
        with path.open("r+b") as file:
            file.seek(PAGE)
            file.write(os.urandom(path.stat().st_size - PAGE))
        queue.open.set()
        await until(lambda: len(queue.spans) + parts.outcome("damaged") == 39)
        assert parts.outcome("damaged") > 0
        # A read of bodies alone may meet nothing that SQLite itself finds wrong; a write does.
        await until(lambda: parts.telemetry.counters.inherit_files_set_aside.total() == 1)
        await parts.send(child("held as before", trace_id=b"\xfe" * 16))
        await until(lambda: parts.telemetry.counters.inherit_spans.total() == 40)


def test_a_fragment_that_cannot_be_read_keeps_no_other_waiting() -> None:
    """It goes on as it is, and the backend says what it makes of it."""
    sound = request(child("sound"))
    assert join([(b"\x0a\x7f", 3, b""), (sound, 1, b""), (sound, 1, b"\x4a\x7f")]) == [
        (sound, 1),
        (b"\x0a\x7f", 3),
        (sound, 1),
    ]


async def test_a_disk_that_does_not_work_is_answered_with_come_again(tmp_path: Path) -> None:
    """Whatever SQLite says, nothing is acknowledged that is not on the disk."""
    async with holding_in(tmp_path) as parts:
        with sqlite3.connect(holding_file_in(tmp_path), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OverloadedError, match="does not work"):
                await parts.send(child("blocked"))
            other.execute("ROLLBACK")
        other.close()
        await parts.send(child("kept"))
        assert parts.holding.spans == 1


async def test_what_has_gone_on_is_deleted_when_the_disk_works_again(tmp_path: Path) -> None:
    """A root is taken although its file cannot be written, its children go on, and their deletion is made up for."""
    async with holding_in(tmp_path) as parts:
        await parts.send(child("llm"))
        with sqlite3.connect(holding_file_in(tmp_path), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            await parts.send(root("chat", **USER))
            await until(lambda: len(parts.queue.spans) == 2)
            other.execute("ROLLBACK")
            await until(lambda: not other.execute("SELECT count(*) FROM fragments").fetchone()[0])
        other.close()
    assert parts.outcome("stamped") == 1
    with pytest.raises(RuntimeError, match="closed"):
        await parts.send(child("too late", trace_id=b"\x09" * 16))


async def test_what_was_damaged_between_two_runs_is_reported(tmp_path: Path) -> None:
    """A file found damaged at the start is counted; its sound fragments wait on."""
    path = holding_file_in(tmp_path)
    filled(path)
    scrambled(path)
    async with holding_in(tmp_path) as parts:
        assert parts.telemetry.counters.inherit_files_set_aside.total() == 1
        assert parts.holding.spans > 0


def test_damage_is_told_from_a_disk_that_is_full(tmp_path: Path) -> None:
    """A full disk is no reason to set a file aside."""
    path = tmp_path / "file"
    filled(path)
    file, _ = open_or_salvage(path, max_pages=1)
    with pytest.raises(sqlite3.OperationalError, match="full") as refused, file.transaction():
        file.insert([fragment_of(1000, b"\x01" * 16, 0.0, 1, b"x" * 200_000)])
    assert not is_damage(refused.value)
    assert len(file.held()) == 39
    file.close()
