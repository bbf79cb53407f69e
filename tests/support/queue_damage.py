"""Damaged queue files, for tests and for the long form of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import ItemsView
from dataclasses import dataclass
from pathlib import Path

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.file import QueueFile
from neatlogs_processor.queue.journal import Journal
from neatlogs_processor.queue.reading import DamagedRowError
from neatlogs_processor.queue.rows import row_of
from neatlogs_processor.queue.stock import open_stock


@dataclass(frozen=True)
class Specimen:
    """A sound queue that nobody has open.

    Attributes:
        folder: Its directory.
        bodies: What is in it, by id.
    """

    folder: Path
    bodies: dict[int, bytes]


def specimen(folder: Path, *, requests: int = 40, size: int = 3_000) -> Specimen:
    """Make a queue as a killed processor leaves it: most in the file, some in the log, the last in the journal."""
    chance = random.Random(7)  # noqa: S311  # the same in every run
    made, left = folder / "made", folder / "left"
    directory = QueueDirectory(made)
    bodies: dict[int, bytes] = {}
    try:
        directory.make_private()
        file = QueueFile(directory.database)
        for number in range(1, requests + 1):
            body = chance.randbytes(chance.randint(1, size) if number % 10 else 20_000)
            with file.transaction():
                file.insert(row_of(Request(Signal.TRACES, body), number, 1_000.0 + number))
            bodies[number] = body
            if number == requests * 3 // 4:
                file.checkpoint()
        journal = Journal(directory.journal)
        for number in range(requests + 1, requests + 1 + requests // 10):
            bodies[number] = chance.randbytes(chance.randint(1, size))
            journal.keep([row_of(Request(Signal.TRACES, bodies[number]), number, 1_000.0 + number)], lambda _: True)
        # Copied while it is open: closing would move the log into the file.
        shutil.copytree(made, left)
        file.close()
        journal.close()
    finally:
        directory.close()
    return Specimen(left, bodies)


def surviving(folder: Path) -> ItemsView[int, bytes]:
    """Open a queue, whatever was done to it, and return what it would deliver."""
    directory = QueueDirectory(folder)
    try:
        stock, _ = open_stock(directory)
        try:
            found: dict[int, bytes] = {}
            for entry in stock.waiting(Signal.TRACES, after=0, limit=1_000):
                try:
                    content = stock.body(entry.id)
                except DamagedRowError:
                    continue
                if content is not None:
                    found[entry.id] = content[0]
            return found.items()
        finally:
            stock.close()
    finally:
        directory.close()


def flipped(path: Path, offset: int) -> None:
    """Turn one bit of a file over."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << offset % 8)]))


def truncated(path: Path, offset: int) -> None:
    """Cut a file off."""
    with path.open("r+b") as file:
        file.truncate(offset)


def offsets(size: int, within: int, chance: random.Random, count: int) -> list[int]:
    """Choose offsets of a file's first bytes."""
    return sorted(chance.sample(range(min(size, within)), min(count, size, within)))
