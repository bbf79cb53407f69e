"""What is done with a file that is damaged: it is set aside whole, and its sound requests go on in a new one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.file import PAGE_BYTES, QueueFile
from neatlogs_processor.queue.reading import connect, is_damage
from neatlogs_processor.queue.rows import Row, checksum, seal

_MAX_PROBES = 200_000
"""Ids that are looked for one by one where a damaged tree cannot be walked."""

_BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Recovery:
    """What became of a damaged file.

    Attributes:
        cause: What was wrong with it.
        folder: Where it lies now.
        saved: Requests that go on.
        damaged: Requests that were found and are not what was written. More may have been lost without a trace.
    """

    cause: str
    folder: Path
    saved: int
    damaged: int


@dataclass(frozen=True)
class _Found:
    row: Row
    attempts: int
    error: str
    dead: bool


def open_or_recover(
    directory: QueueDirectory, *, cause: str = "left by an earlier run", max_pages: int | None = None
) -> tuple[QueueFile, list[Recovery]]:
    """Open the directory's file; a damaged one is set aside, and what is sound of it goes on.

    Args:
        directory: Held by this process, which has no file of it open.
        cause: Why there are files set aside that nothing was taken over from yet.
        max_pages: See `QueueFile`.

    Raises:
        sqlite3.Error: The disk does not let us. What was set aside is taken over by the next call.
    """
    directory.make_private()
    try:
        file = QueueFile(directory.database, max_pages=max_pages)
    except Exception as error:
        if not is_damage(error):
            raise
        cause = str(error)
        directory.set_aside()
        directory.make_private()
        file = QueueFile(directory.database, max_pages=max_pages)
    folders = directory.unrescued()
    if not folders:
        return file, []
    recoveries = []
    try:
        for folder in folders:
            saved, damaged = _copy(folder / directory.database.name, file)
            recoveries.append(Recovery(cause, directory.rescued(folder), saved, damaged))
    finally:
        file.close()
    # Opened anew, so that it counts what it has.
    return QueueFile(directory.database, max_pages=max_pages), recoveries


def _copy(source: Path, target: QueueFile) -> tuple[int, int]:
    """Copy sound rows and return how many there were, and how many were damaged."""
    saved: set[int] = set()
    damaged: set[int] = set()
    # Reading replays the log and may write; what was set aside stays as it was found.
    scratch = source.with_name("scratch")
    for attempt in (_as_it_is, _with_a_sound_first_page):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            batch: list[_Found] = []
            for row_id, found in attempt(source, scratch):
                if row_id in saved:
                    continue
                if found is None:
                    damaged.add(row_id)
                    continue
                batch.append(found)
                saved.add(row_id)
                if sum(one.row.size for one in batch) > _BATCH_BYTES:
                    _keep(target, batch)
                    batch = []
            _keep(target, batch)
        finally:
            shutil.rmtree(scratch)
        if saved:
            break
    return len(saved), len(damaged - saved)


def _keep(target: QueueFile, batch: list[_Found]) -> None:
    with target.transaction():
        for one in batch:
            # A process that was killed here has taken some over already.
            if not target.has(one.row.id):
                target.insert(one.row, attempts=one.attempts, error=one.error, dead=one.dead)


def _as_it_is(source: Path, scratch: Path) -> Iterator[tuple[int, _Found | None]]:
    for suffix in ("", "-wal"):
        file = source.with_name(source.name + suffix)
        if file.exists():
            shutil.copyfile(file, scratch / file.name)
    yield from _rows(scratch / source.name)


def _with_a_sound_first_page(source: Path, scratch: Path) -> Iterator[tuple[int, _Found | None]]:
    """Read the file with another first page.

    The first page says how to read all others (page size, tables). It is the same in every queue but for the number of
    pages, so damage there need not cost the rest.
    """
    model = scratch / "model"
    model.touch(mode=0o600)
    QueueFile(model).close()
    page = bytearray(model.read_bytes()[:PAGE_BYTES])
    copy = scratch / source.name
    shutil.copyfile(source, copy)
    pages = copy.stat().st_size // PAGE_BYTES
    page[28:32] = pages.to_bytes(4, "big")
    # No free pages: reading does not need to know them.
    page[32:40] = bytes(8)
    with copy.open("r+b") as file:
        file.write(page)
    wal = source.with_name(source.name + "-wal")
    if wal.exists():
        shutil.copyfile(wal, scratch / wal.name)
    yield from _rows(copy)


def _rows(path: Path) -> Iterator[tuple[int, _Found | None]]:
    """Return every row that can be reached: sound ones, and `None` for damaged ones."""
    try:
        connection = connect(path)
    except sqlite3.Error:
        return
    try:
        ids, walked = _ids(connection)
        for row_id in sorted(ids):
            yield row_id, _read(connection, row_id)
        if not walked and ids:
            for row_id in _between(ids):
                found = _read(connection, row_id)
                if found is not None:
                    yield row_id, found
    finally:
        connection.close()


def _ids(connection: sqlite3.Connection) -> tuple[set[int], bool]:
    """Return the ids that both ends of the table lead to, and whether the table could be walked whole."""
    ids: set[int] = set()
    whole = True
    for table in ("requests", "bodies"):
        for order in ("ASC", "DESC"):
            try:
                for (row_id,) in connection.execute(f"SELECT id FROM {table} ORDER BY id {order}"):  # noqa: S608  # names of our own; values are bound
                    ids.add(row_id)
                break
            except sqlite3.Error:
                whole = False
    return ids, whole


def _between(ids: set[int]) -> list[int]:
    first, last = min(ids), max(ids)
    if last - first > _MAX_PROBES:
        first = last - _MAX_PROBES
    return [row_id for row_id in range(first, last) if row_id not in ids]


def _read(connection: sqlite3.Connection, row_id: int) -> _Found | None:
    try:
        found = connection.execute(
            "SELECT signal, received, spans, size, seal, checksum, attempts, error, dead, findings, body"
            " FROM requests JOIN bodies USING (id) WHERE id = ?",
            (row_id,),
        ).fetchone()
    except sqlite3.Error:
        return None
    if found is None:
        return None
    signal, received, spans, size, sealed, summed, attempts, error, dead, findings, body = found
    sound = (
        isinstance(findings, str)
        and isinstance(body, bytes)
        and sealed == seal(row_id, signal, received, spans, size)
        and summed == checksum(sealed, findings, body)
    )
    if not sound:
        return None
    row = Row(row_id, Signal(signal), received, spans, body, findings)
    return _Found(row, attempts if isinstance(attempts, int) else 0, str(error), bool(dead))
