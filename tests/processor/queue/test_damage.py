"""A queue whose file is not what was written: it starts, says so, and delivers nothing but what was acknowledged."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.recovery import open_or_recover
from support.processor import until
from support.queue_damage import Specimen, flipped, offsets, specimen, surviving, truncated
from support.queue_parts import Destination, queue_in, traces, unavailable

SAMPLE = 60
NAME = "queue.v1.sqlite"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    """A queue with requests in the file and in the log, as a killed processor leaves it."""
    return specimen(tmp_path_factory.mktemp("specimen"))


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("damage", [flipped, truncated])
def test_damage_at_any_offset_never_stops_the_queue_and_never_forges_a_request(
    sound: Specimen, tmp_path: Path, suffix: str, damage: Callable[[Path, int], None]
) -> None:
    """Whichever byte is wrong or missing: it opens, and everything in it is exactly what was acknowledged."""
    size = (sound.folder / (NAME + suffix)).stat().st_size
    chance = random.Random(f"{suffix}{damage.__name__}")  # noqa: S311  # the same in every run
    # The first bytes of a file say what the others mean.
    chosen = [*offsets(size, 120, chance, SAMPLE // 2), *offsets(size, size, chance, SAMPLE // 2)]
    for number, offset in enumerate(chosen):
        copy = tmp_path / str(number)
        shutil.copytree(sound.folder, copy)
        damage(copy / (NAME + suffix), offset)
        assert surviving(copy) <= sound.bodies.items(), f"offset {offset}"
        shutil.rmtree(copy)


def test_a_damaged_file_costs_only_what_was_damaged(sound: Specimen, tmp_path: Path) -> None:
    """One wrong byte in the file costs few requests, even in the page that describes all others."""
    for offset in (0, 17, 60, 105, 16_384 - 40):
        copy = tmp_path / str(offset)
        shutil.copytree(sound.folder, copy)
        (copy / f"{NAME}-wal").unlink()
        whole = surviving(copy)
        flipped(copy / NAME, offset)
        assert len(surviving(copy)) == len(whole) > 10, f"offset {offset}"


async def test_a_damaged_file_is_set_aside_with_an_alarm_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is kept for whoever wants to look, an error is logged and counted, sound requests are delivered."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down)) as parts:
        await parts.send(*(traces(f"{number}", 20_000) for number in range(20)))
    content = bytearray((path / NAME).read_bytes())
    broken = content.index(b"10....")
    content[broken] ^= 1
    content[50:60] = b"damaged!!!"
    (path / NAME).write_bytes(content)
    async with queue_in(path, workers=1) as again:
        await again.emptied()
        assert again.telemetry.counters.queue_files_set_aside.total() == 1
    assert again.destination.accepted == [body for body in parts.sent if b"10...." not in body]
    (folder,) = path.glob("corrupt-*")
    # SQLite counts in the header how often it opened the file.
    assert (folder / NAME).read_bytes()[100:] == content[100:]
    assert "19 requests go on, 1 that were found are lost" in caplog.text
    assert str(folder) in caplog.text


async def test_a_request_whose_bytes_changed_becomes_a_dead_letter(tmp_path: Path) -> None:
    """In a file that is sound otherwise, the checksum tells; the damaged request is never delivered."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down)) as parts:
        await parts.send(*(traces(f"{number}", 20_000) for number in range(3)))
    content = bytearray((path / NAME).read_bytes())
    content[content.index(b"1....") + 3] ^= 1
    (path / NAME).write_bytes(content)
    async with queue_in(path) as again:
        await again.emptied()
        assert again.left("damaged") == 1
        await until(lambda: again.queue.state.dead_requests == 1)
    assert sorted(again.destination.accepted) == [parts.sent[0], parts.sent[2]]


async def test_damage_while_the_processor_runs_is_recovered_from(tmp_path: Path) -> None:
    """When a read or a write finds the file damaged, it is set aside, and requests are taken and delivered again."""
    path = tmp_path / "queue"
    destination = Destination()
    destination.open.clear()
    async with queue_in(path, destination, workers=1, segment_bytes=0) as parts:
        await parts.send(*(traces(f"{number}", 20_000) for number in range(5)))
        # Somebody changes the file behind the processor's back.
        with sqlite3.connect(path / NAME) as other:
            other.execute("UPDATE requests SET received = 'yesterday' WHERE id = 3")
            other.execute("ALTER TABLE requests RENAME COLUMN attempts TO efforts")
        other.close()
        await parts.send(traces("after"))
        destination.open.set()
        await parts.emptied()
        assert parts.telemetry.counters.queue_files_set_aside.total() == 1
    assert set(parts.sent) - set(destination.accepted) <= set(parts.sent[:5])
    assert parts.sent[5] in destination.accepted


def test_a_recovery_that_was_cut_short_is_finished_by_the_next_start(sound: Specimen, tmp_path: Path) -> None:
    """A processor that is killed between setting a file aside and taking its requests over loses none of them."""
    path = tmp_path / "queue"
    shutil.copytree(sound.folder, path)
    directory = QueueDirectory(path)
    folder = directory.set_aside()
    # What a first, unfinished try may have left.
    (folder / "scratch").mkdir()
    directory.close()
    assert surviving(path) == sound.bodies.items()
    assert not list(path.glob("recovering-*"))


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    """Whatever lies there, the processor starts, and what lay there is kept."""
    path = tmp_path / "queue"
    path.mkdir()
    (path / NAME).write_bytes(b"not a database" * 1000)
    directory = QueueDirectory(path)
    try:
        file, recoveries = open_or_recover(directory)
        file.close()
    finally:
        directory.close()
    assert [(one.saved, one.damaged) for one in recoveries] == [(0, 0)]
    assert (recoveries[0].folder / NAME).read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text("x"), "is not a directory"),
        (lambda path: (path.mkdir(), (path / "thesis.txt").write_text("x")), "thesis.txt"),
        (lambda path: (path.mkdir(), (path / "queue.v9.sqlite").write_text("x")), "another version"),
    ],
    ids=["a file", "somebody's folder", "another version's queue"],
)
def test_a_directory_that_is_not_the_queue_s_is_refused(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    """Nothing is changed in a directory that belongs to something else."""
    path = tmp_path / "queue"
    make(path)
    with pytest.raises(ConfigError, match=says):
        QueueDirectory(path)


def test_a_directory_below_nothing_is_refused(tmp_path: Path) -> None:
    """A typing error does not become a queue in an unexpected place."""
    with pytest.raises(ConfigError, match="create it first"):
        QueueDirectory(tmp_path / "absent" / "queue")


def _down(_: bytes) -> bytes:
    raise unavailable()
