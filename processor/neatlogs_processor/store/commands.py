"""What `neatlogs-processor store info` and `store prune` do; both work beside a running processor."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import format_duration, format_size
from neatlogs_processor.query.units import timestamp
from neatlogs_processor.store.files import beside, checkpoint, is_busy, open_reader, open_writer, size_on_disk
from neatlogs_processor.store.retention import Limits, give_back_all, prune

_STEP_SPANS: Final = 200
"""A step too far deletes no more than this beyond what has to go."""


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store. Times are nanoseconds since the epoch; `None` in an empty store.

    Attributes:
        path: Its file.
        schema: The version of its tables.
        bytes: What it takes on disk, its log included.
        log_bytes: What the log takes of that.
        free_bytes: What the next traces use first.
        traces: How many traces.
        with_end_user: How many of them have an end user.
        without_end_user: How many have none.
        root_not_received: How many are known by their children alone.
        spans: How many spans.
        end_users: How many end users.
        sessions: How many sessions.
        overrides: Places at which an override was ignored.
        first_start: When the earliest trace starts.
        last_start: When the latest trace starts.
        first_received: When the first trace that is left arrived.
        last_received: When the last trace arrived.
    """

    path: str
    schema: int
    bytes: int
    log_bytes: int
    free_bytes: int
    traces: int
    with_end_user: int
    without_end_user: int
    root_not_received: int
    spans: int
    end_users: int
    sessions: int
    overrides: int
    first_start: int | None
    last_start: int | None
    first_received: int | None
    last_received: int | None


def look(path: Path) -> StoreInfo:
    """Count what is in a store.

    Raises:
        ConfigError: There is no store, or it cannot be used.
        ProcessorError: It cannot be read.
    """
    connection = open_reader(path)
    try:
        run = connection.execute
        run("BEGIN")
        (schema,) = run("PRAGMA user_version").fetchone()
        (free,) = run("PRAGMA freelist_count").fetchone()
        (page,) = run("PRAGMA page_size").fetchone()
        sums = run(
            "SELECT count(*), coalesce(sum(head_rank < 2 AND end_user IS NOT NULL), 0),"
            " coalesce(sum(head_rank < 2 AND end_user IS NULL), 0), coalesce(sum(head_rank = 2), 0),"
            " coalesce(sum(spans), 0), count(DISTINCT end_user), count(DISTINCT session) FROM traces"
        ).fetchone()
        (overrides,) = run("SELECT count(*) FROM overrides").fetchone()
        times = run("SELECT min(start), max(start), min(received), max(received) FROM traces").fetchone()
    except sqlite3.Error as error:
        raise ProcessorError(f"the store at {path} cannot be read ({error})") from None
    finally:
        connection.close()
    log = beside(path, "wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    counted = (*sums, overrides, *times)
    return StoreInfo(str(path), schema, size_on_disk(path), log_bytes, free * page, *counted)


def write_info(info: StoreInfo, limits: Limits, out: TextIO, *, as_json: bool) -> None:
    """Print what is in a store, and how much the settings let it keep."""
    if as_json:
        said = asdict(info) | {"max_age": limits.max_age, "max_bytes": limits.max_bytes}
        out.write(json.dumps(said, ensure_ascii=False) + "\n")
        return
    age = "any age" if limits.max_age is None else format_duration(limits.max_age / 1e9)
    size = "any size" if limits.max_bytes is None else format_size(limits.max_bytes)
    lines = (
        ("store", f"{info.path} (schema {info.schema})"),
        ("on disk", f"{info.bytes:,} bytes; {info.log_bytes:,} of them are the log, {info.free_bytes:,} are free"),
        ("kept", f"{age} (--store-max-age), {size} (--store-max-size)"),
        (
            "traces",
            f"{info.traces:,}: {info.with_end_user:,} with an end user, {info.without_end_user:,} without,"
            f" {info.root_not_received:,} whose root was not received",
        ),
        ("spans", f"{info.spans:,}"),
        ("end users", f"{info.end_users:,}"),
        ("sessions", f"{info.sessions:,}"),
        ("overrides", f"{info.overrides:,} places at which one was ignored"),
        ("start", _range(info.first_start, info.last_start)),
        ("received", _range(info.first_received, info.last_received)),
    )
    out.writelines(f"{name:11}{text}\n" for name, text in lines)


def _range(first: int | None, last: int | None) -> str:
    return "-" if first is None or last is None else f"{timestamp(first)} to {timestamp(last)}"


def prune_now(path: Path, limits: Limits, now: int, out: TextIO) -> None:
    """Delete the traces that are too old or too many, and give what that frees back to the disk.

    Args:
        path: The store's file.
        limits: How much is kept.
        now: Nanoseconds since the epoch.
        out: Where the result is said.

    Raises:
        ConfigError: There is no store, or it cannot be used.
        ProcessorError: It could not be done to the end.
    """
    if not path.is_file():
        raise ConfigError(f"--store: there is no store at {path}")
    connection = open_writer(path)
    traces = {True: 0, False: 0}
    spans = 0
    try:
        checkpoint(connection)
        before = size_on_disk(path)
        while (pruned := prune(connection, limits, now, spans=_STEP_SPANS)).more:
            traces[pruned.by_age] += pruned.traces
            spans += pruned.spans
        give_back_all(connection)
        checkpoint(connection)
    except sqlite3.Error as error:
        cause = "another process is writing to it without a pause" if is_busy(error) else str(error)
        raise ProcessorError(
            f"{sum(traces.values()):,} traces deleted, then the store could not be cleaned up further: {cause}"
        ) from None
    finally:
        connection.close()
    after = size_on_disk(path)
    by_age, by_size = traces[True], traces[False]
    out.write(
        f"{by_age + by_size:,} traces with {spans:,} spans deleted: {by_age:,} by age, {by_size:,} by size\n"
        f"the store takes {after:,} bytes, {max(0, before - after):,} fewer than before\n"
    )
