"""The journal in front of the database: what is in it counts as acknowledged, whatever happens to the processor."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from support.processor import run, until
from support.queue_damage import flipped
from support.queue_parts import MIB, Destination, queue_in, rejected, traces, unavailable

KIB = 1024
NAMES = ("journal.v1.0", "journal.v1.1")


def left(path: Path, name: str = "left") -> Path:
    """Copy a queue that is in use: what a processor leaves that is killed now."""
    return Path(shutil.copytree(path, path.with_name(name)))


def in_database(path: Path) -> int:
    """How many requests the database holds."""
    with contextlib.closing(sqlite3.connect(path / "queue.v1.sqlite")) as database:
        (number,) = database.execute("SELECT count(*) FROM requests").fetchone()
        return int(number)


async def test_what_is_delivered_at_once_never_reaches_the_database(tmp_path: Path) -> None:
    """A request waits in the journal, is delivered from there, and at the end no journal is left."""
    path = tmp_path / "queue"
    destination = Destination()
    destination.open.clear()
    async with queue_in(path, destination) as parts:
        await parts.send(*(traces(f"{number}") for number in range(20)))
        assert in_database(path) == 0
        assert parts.queue.state.requests == 20
        destination.open.set()
        await parts.emptied()
        assert in_database(path) == 0
    assert not any((path / name).exists() for name in NAMES)
    assert destination.accepted == parts.sent


async def test_what_waits_at_the_end_of_a_run_is_in_the_database(tmp_path: Path) -> None:
    """A processor that is stopped leaves one file to the next one, with tries and errors."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down), workers=4) as parts:
        await parts.send(*(traces(f"{number}") for number in range(3)))
        await until(lambda: parts.telemetry.counters.retries.total() > 3)
    assert in_database(path) == 3
    assert not any((path / name).exists() for name in NAMES)
    listed = (await run("queue", "ls", "--queue-dir", str(path))).stdout.splitlines()
    assert all(line.endswith("down") for line in listed[1:4])


async def test_a_killed_processor_s_journal_is_taken_over(tmp_path: Path) -> None:
    """What was acknowledged goes out after the next start, in order; what had been delivered does not go out again."""
    path = tmp_path / "queue"
    destination = Destination(lambda body: _down(body) if b"late" in body else b"")
    async with queue_in(path, destination, workers=1) as parts:
        await parts.send(traces("early"), traces("early, too"))
        await parts.emptied()
        await parts.send(*(traces(f"late {number}") for number in range(10)))
        await until(lambda: parts.telemetry.counters.retries.total() > 0)
        killed = left(path)
    async with queue_in(killed, workers=1) as again:
        assert again.queue.state.requests == 10
        await again.send(traces("last"))
        await again.emptied()
        twice = left(killed, "twice")
    assert again.destination.accepted == [*parts.sent[2:], *again.sent]
    async with queue_in(twice) as third:
        assert third.queue.state.requests == 0


async def test_a_second_kill_loses_nothing_of_the_second_run(tmp_path: Path) -> None:
    """Ids go on where the killed run ended, although nothing was left of it: no new request is taken for an old one."""
    path = tmp_path / "queue"
    async with queue_in(path) as parts:
        await parts.send(*(traces(f"first run {number}") for number in range(5)))
        await parts.emptied()
        killed = left(path)
    async with queue_in(killed, Destination(_down)) as second:
        await second.send(*(traces(f"second run {number}") for number in range(3)))
        killed_again = left(killed, "again")
    async with queue_in(killed_again, workers=1) as third:
        await third.emptied()
    assert third.destination.accepted == second.sent


async def test_ls_shows_the_journal_beside_a_running_processor_and_after_a_kill(tmp_path: Path) -> None:
    """Waiting requests are listed by id with their tries, wherever they lie, each once."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down), workers=4, segment_bytes=8 * KIB) as parts:
        await parts.send(*(traces(f"{number}", 500) for number in range(30)))
        await until(lambda: parts.telemetry.counters.retries.total() > 60)
        beside = (await run("queue", "ls", "--queue-dir", str(path))).stdout.splitlines()
        killed = left(path)
        assert 0 < in_database(path) < 30
    after = (await run("queue", "ls", "--queue-dir", str(killed))).stdout.splitlines()
    for listed in (beside, after):
        assert [line.split()[0] for line in listed[1:-1]] == [str(number) for number in range(1, 31)]
        assert sum(line.endswith("down") for line in listed) > 0
        assert listed[-1].startswith("30 waiting (")
    finished = await run("queue", "purge", "--waiting", "--queue-dir", str(killed))
    assert finished.stdout == "30 waiting requests deleted"


async def test_what_a_processor_without_a_journal_left_is_delivered_first(tmp_path: Path) -> None:
    """The first start after an upgrade goes on where the earlier one was killed, in order, dead letters as well."""
    path = tmp_path / "queue"
    old = Destination(lambda body: _no(body) if b"dead" in body else _down(body))
    async with queue_in(path, old, segment_bytes=0) as parts:
        await parts.send(traces("dead"))
        await until(lambda: parts.queue.state.dead_requests == 1)
        await parts.send(*(traces(f"{number}") for number in range(10)))
        killed = left(path)
    assert not any((killed / name).exists() for name in NAMES)
    async with queue_in(killed, workers=1, started=False) as again:
        await again.send(traces("new"))
        assert again.queue.state.dead_requests == 1
        again.queue.start()
        await again.emptied()
    assert again.destination.accepted == [*parts.sent[1:], *again.sent]


async def test_what_stays_moves_into_the_database_and_keeps_its_order(tmp_path: Path) -> None:
    """Where the upstream is away for long, the journal stays small, and nothing is lost or overtaken."""
    path = tmp_path / "queue"
    destination = Destination()
    destination.open.clear()
    async with queue_in(path, destination, workers=1, segment_bytes=64 * KIB) as parts:
        # Every fifth is too large for the journal.
        await parts.send(*(traces(f"{number}", 40_000 if number % 5 == 4 else 3_000) for number in range(100)))
        assert in_database(path) > 50
        assert all((path / name).stat().st_size <= 64 * KIB for name in NAMES)
        destination.open.set()
        await parts.emptied()
    assert destination.accepted == parts.sent


async def test_many_bodies_are_read_back_from_the_disk(tmp_path: Path) -> None:
    """More than memory is to hold waits on the disk, and comes back as it was."""
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, workers=1) as parts:
        await parts.send(*(traces(f"{number}", 3 * MIB) for number in range(8)))
        destination.open.set()
        await parts.emptied()
    assert destination.accepted == parts.sent
    assert [one.enforced.counts.spans for one in destination.requests if one.enforced] == [1] * 8


async def test_a_refused_request_becomes_a_dead_letter_in_the_database(tmp_path: Path) -> None:
    """Dead letters stay for weeks, so they leave the journal, and a kill right afterwards brings none back."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_no)) as parts:
        await parts.send(traces())
        await until(lambda: parts.queue.state.dead_requests == 1)
        assert parts.queue.state.requests == 0
        killed = left(path)
    async with queue_in(killed) as again:
        assert (again.queue.state.requests, again.queue.state.dead_requests) == (0, 1)


async def test_a_journal_on_a_damaged_disk_is_set_aside_with_an_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damage in the midst of a journal is found at the next start, counted and logged; sound requests are delivered."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down), started=False) as parts:
        await parts.send(*(traces(f"{number}", 1_000) for number in range(10)))
        killed = left(path)
    file = killed / NAMES[0]
    flipped(file, file.read_bytes().index(b"3....."))
    async with queue_in(killed, workers=1) as again:
        await again.emptied()
        assert again.telemetry.counters.queue_files_set_aside.total() == 1
    assert again.destination.accepted == [one for one in parts.sent if b"3....." not in one]
    assert "9 requests go on, 1 that were found are lost" in caplog.text
    (folder,) = killed.glob("corrupt-*")
    assert {one.name for one in folder.iterdir()} == set(NAMES)


async def test_ids_go_on_behind_those_of_a_damaged_journal(tmp_path: Path) -> None:
    """What a damaged journal held has moved into the database: no new request gets an id that is in use there."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down), started=False) as parts:
        await parts.send(*(traces(f"{number}", 1_000) for number in range(10)))
        killed = left(path)
    file = killed / NAMES[0]
    flipped(file, file.read_bytes().index(b"3....."))
    async with queue_in(killed, started=False) as second:
        await second.send(*(traces(f"new {number}") for number in range(12)))
        assert second.queue.state.requests == 21
        killed_again = left(killed, "again")
    async with queue_in(killed_again, workers=1) as third:
        await third.emptied()
    assert third.destination.accepted == [one for one in parts.sent if b"3....." not in one] + second.sent


async def test_replay_puts_dead_letters_behind_what_a_killed_processor_left(tmp_path: Path) -> None:
    """They get ids that no request in the journal has, and go out after all of those."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(lambda body: _no(body) if b"dead" in body else _down(body))) as parts:
        await parts.send(traces("dead"))
        await until(lambda: parts.queue.state.dead_requests == 1)
        await parts.send(*(traces(f"waits {number}") for number in range(3)))
        killed = left(path)
    finished = await run("queue", "replay", "--queue-dir", str(killed))
    assert finished.stdout == "1 dead letters wait for delivery again"
    async with queue_in(killed, workers=1) as again:
        await again.emptied()
    assert again.destination.accepted == [*parts.sent[1:], parts.sent[0]]


async def test_a_damaged_request_of_the_journal_becomes_a_dead_letter(tmp_path: Path) -> None:
    """It is kept aside as it is, as unreadable as it is, and the others are delivered."""
    path = tmp_path / "queue"
    destination = Destination()
    destination.open.clear()
    async with queue_in(path, destination, workers=1, max_dead_bytes=64 * MIB) as parts:
        # So many that their bodies have to be read back.
        await parts.send(*(traces(f"{number}", 3 * MIB) for number in range(8)))
        content = (path / NAMES[1]).read_bytes()
        flipped(path / NAMES[1], content.index(b"7...."))
        destination.open.set()
        await parts.emptied()
        assert parts.left("damaged") == 1
        await until(lambda: parts.queue.state.dead_requests == 1)
    assert destination.accepted == parts.sent[:7]
    finished = await run("queue", "replay", "--queue-dir", str(path))
    assert "1 cannot be read any more: 8" in finished.stdout


def _down(_: bytes) -> bytes:
    raise unavailable()


def _no(_: bytes) -> bytes:
    raise rejected()
