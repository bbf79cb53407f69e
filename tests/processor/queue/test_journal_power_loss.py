"""A machine that loses power: what was acknowledged is there, whatever became of what was being written."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.journal import Journal
from neatlogs_processor.queue.rows import Row

KIB = 1024
SECTOR = 512
PAGE = 4096


class Machine:
    """A journal, and a disk that keeps sectors in any order until it is told to keep them all.

    Attributes:
        journal: The journal.
        waiting: What was acknowledged and has not left.
        ever: All that was ever sent, with its id.
        fails: Whether the disk says, after it has taken bytes, that it has not.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._on_disk = [b"", b""]
        self._last = 0
        self.waiting: dict[int, bytes] = {}
        self.ever: set[tuple[int, bytes]] = set()
        self.fails = False
        self._chance = chance
        # Whether more may be there than was acknowledged.
        self._is_vague = False
        self.journal = self._open()

    @property
    def _paths(self) -> tuple[Path, Path]:
        return self._folder / "0", self._folder / "1"

    def _open(self) -> Journal:
        journal = Journal(self._paths, segment_bytes=16 * KIB, sync=self._sync)
        # Nobody else knows which ids were in use.
        self._last = journal.last_id
        return journal

    def _sync(self, file: int) -> None:
        (number,) = (number for number, path in enumerate(self._paths) if path.stat().st_ino == os.fstat(file).st_ino)
        if not self.fails:
            # Of the other file nobody knows.
            self._on_disk[number] = self._paths[number].read_bytes()
            return
        self._is_vague = True
        # The system takes pages that it could not write for written: later ones are what the disk has, if it forgets.
        old = self._on_disk[number]
        for at in range(0, self._paths[number].stat().st_size, PAGE):
            if self._chance.random() < 0.5:
                os.pwrite(file, old[at : at + PAGE].ljust(PAGE, b"\0"), at)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def keep(self, sizes: list[int], *, has_room: bool = True) -> None:
        """Send requests; those that were acknowledged wait."""
        rows = [
            Row(self._last + 1 + at, Signal.TRACES, 1.0, 1, bytes([at + 65]) * size, "")
            for at, size in enumerate(sizes)
        ]
        self._last += len(rows)
        self.ever.update((one.id, one.body) for one in rows)
        while rows:
            try:
                kept = self.journal.keep(rows, lambda _: has_room)
            except OSError:
                return
            if not kept:
                self.leave(self.journal.in_the_way())
            self.waiting.update((one.id, one.body) for one in rows[:kept])
            rows = rows[kept:]

    def leave(self, ids: list[int]) -> None:
        """Deliver requests."""
        self.journal.forget(ids)
        for number in ids:
            self.waiting.pop(number, None)
        self.journal.write_notes()

    def kill(self) -> None:
        """End the process, and start another."""
        self.journal.close()
        self.journal = self._open()
        if not self._is_vague:
            assert self._found() == self.waiting
            assert self.journal.damaged == 0
        self._check()

    def breaks_off(self, sizes: list[int]) -> None:
        """Lose power while requests are being written."""
        waiting, on_disk = dict(self.waiting), list(self._on_disk)
        self.keep(sizes)
        # They have not been acknowledged, and nothing of them need be on the disk.
        self.waiting = {number: body for number, body in self.waiting.items() if number in waiting}
        self._on_disk = on_disk
        self.lose_power()

    def lose_power(self) -> None:
        """End the machine: of what was not on the disk, any sectors are."""
        self.journal.close()
        self._is_vague = True
        for number, path in enumerate(self._paths):
            old, new = self._on_disk[number], path.read_bytes()
            size = self._chance.choice([len(old), len(new), max(len(old), len(new))])
            share = self._chance.random()
            mixed = bytearray(size)
            for at in range(0, size, SECTOR):
                one = (new if self._chance.random() < share else old)[at : min(at + SECTOR, size)]
                mixed[at : at + len(one)] = one
            path.write_bytes(mixed)
            self._on_disk[number] = bytes(mixed)
        self.journal = self._open()
        self._check()

    def _check(self) -> None:
        found = self._found()
        assert self.waiting.items() <= found.items()
        assert found.items() <= self.ever
        assert list(found) == sorted(found)

    def _found(self) -> dict[int, bytes]:
        return {entry.id: self.journal.row(entry.id).body for entry in self.journal.entries}


_SIZES = st.lists(st.integers(0, 3_000), min_size=1, max_size=4)
_STEPS = st.one_of(
    st.tuples(st.just("keep"), _SIZES),
    st.tuples(st.just("keep"), _SIZES),
    st.tuples(st.just("deliver"), st.lists(st.integers(0, 12), max_size=8)),
    st.tuples(st.just("deliver all"), st.just([])),
    st.tuples(st.just("room"), st.just([])),
    st.tuples(st.just("kill"), st.just([])),
    st.tuples(st.just("full"), _SIZES),
    st.tuples(st.just("fail"), _SIZES),
    st.tuples(st.just("power"), _SIZES),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(steps=st.lists(_STEPS, max_size=40), seed=st.integers(0, 2**32))
def test_what_was_acknowledged_outlives_any_loss_of_power(
    steps: list[tuple[str, list[int]]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever was sent, delivered, refused or failed before, and whichever sectors reached the disk."""
    chance = random.Random(seed)  # noqa: S311  # the same in every run
    machine = Machine(tmp_path_factory.mktemp("journal"), chance)
    try:
        for what, numbers in steps:
            if what == "keep":
                machine.keep(numbers)
            elif what == "full":
                machine.keep(numbers, has_room=False)
            elif what == "deliver":
                known = list(machine.waiting)
                machine.leave([known[number % len(known)] for number in numbers if known])
            elif what == "deliver all":
                machine.leave([entry.id for entry in machine.journal.entries])
            elif what == "room":
                machine.journal.make_room()
            elif what == "kill":
                machine.kill()
            elif what == "fail":
                machine.fails = True
                machine.keep(numbers)
                machine.fails = False
            else:
                machine.breaks_off(numbers)
    finally:
        machine.journal.close()
