"""Copying an embedded store into ClickHouse: in the order of arrival, from where it stopped last, verified at the end.

How far it has come is kept in the target, under the source's path. A batch that is copied again, because the copy was
broken off before that was noted, counts once: its token is the same, and the rollups take a span twice.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.store.clickhouse.schema import ENTRY_SPAN, UNSET_TIME
from neatlogs_processor.store.clickhouse.spans import COLUMNS, TYPES, Row, read_spans
from neatlogs_processor.store.clickhouse.writing import OVERRIDE_COLUMNS, OVERRIDE_TYPES, by_days, insert
from neatlogs_processor.store.reading import read_request

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BATCH_SPANS: Final = 20_000
BATCH_BYTES: Final = 64 * 2**20
_COMPARED_AT_ONCE: Final = 1_000
_REPAIRS: Final = 3
_ATTRIBUTES: Final = COLUMNS.index("SpanAttributes")
_POLICY: Final = EndUserPolicy()


@dataclass
class Cursor:
    """How far a copy has come.

    Attributes:
        last: `traces.id` of the last trace that is in the target.
        trace_id: Its trace id: whether the source is still the store that it was.
        traces: How many traces were copied.
        spans: How many spans.
        damaged: How many traces could not be read, and are missing.
    """

    last: int = 0
    trace_id: str = ""
    traces: int = 0
    spans: int = 0
    damaged: int = 0


@dataclass(frozen=True)
class Verified:
    """What comparing source and target showed.

    Attributes:
        traces: Traces that were compared, each with its sums, times and end user.
        spans: Spans that they hold in the source.
        different: Trace ids of those that differ, or are missing in the target.
    """

    traces: int
    spans: int
    different: tuple[str, ...]


class Copying:
    """Copies one store into one database.

    Args:
        source: Opened by `files.open_reader`; another process may write it.
        path: The source's file: it names the copy in the target.
        client: Of the database.
        said: Is told how far it is, now and then.
        clock: Returns seconds.
        batch_spans: How many spans go in together, at least.
    """

    def __init__(
        self,
        source: sqlite3.Connection,
        path: Path,
        client: Client,
        *,
        said: Callable[[Cursor], object],
        clock: Callable[[], float] = time.monotonic,
        batch_spans: int = BATCH_SPANS,
    ) -> None:
        self._source = source
        self._client = client
        self._name = f"copy sqlite:{path.resolve()}"
        self._said = said
        self._clock = clock
        self._batch_spans = batch_spans

    def cursor(self) -> Cursor:
        """Return from where it goes on: from the beginning, if the source is another store than the last time.

        Raises:
            Exception: Of clickhouse-connect, or of the connection.
        """
        rows = self._client.query(
            "SELECT value FROM neatlogs_state WHERE name = {name:String} ORDER BY at DESC LIMIT 1",
            parameters={"name": self._name},
        ).result_rows
        if not rows:
            return Cursor()
        cursor = Cursor(**json.loads(rows[0][0]))
        row = self._source.execute("SELECT trace_id FROM traces WHERE id = ?", (cursor.last,)).fetchone()
        (highest,) = self._source.execute("SELECT coalesce(max(id), 0) FROM traces").fetchone()
        # Retention may have taken the trace. Ids only grow, so a store that does not reach as far is another one.
        is_another = row[0].hex() != cursor.trace_id if row is not None else highest < cursor.last
        return Cursor() if is_another else cursor

    def copy(self) -> Cursor:
        """Copy what has not been copied, and return how far that is.

        Raises:
            sqlite3.Error: The source cannot be read.
            Exception: Of clickhouse-connect, or of the connection. Doing it again goes on from there.
        """
        cursor = self.cursor()
        said = self._clock()
        for batch in self._batches(cursor.last, cursor):
            self._put(batch)
            cursor.last, cursor.trace_id = batch.last, batch.trace_id
            cursor.traces += batch.traces
            cursor.spans += len(batch.rows)
            self._client.insert(
                "neatlogs_state", [[self._name, json.dumps(asdict(cursor))]], column_names=["name", "value"]
            )
            if self._clock() - said > 1:
                self._said(cursor)
                said = self._clock()
        self._scope_overrides()
        return cursor

    def verify(self) -> Verified:
        """Compare every trace of the source with the target: spans, errors, tokens, start, end and end user.

        What differs is copied once more before it is called different: it may have grown meanwhile.

        Raises:
            sqlite3.Error: The source cannot be read.
            Exception: Of clickhouse-connect, or of the connection.
        """
        traces = spans = 0
        different: list[str] = []
        for rows in self._compared():
            traces += len(rows)
            spans += sum(row[2] for row in rows)
            wrong = self._differing([row[0] for row in rows])
            for _ in range(_REPAIRS):
                if not wrong:
                    break
                for number in wrong:
                    # Not under the old token: that has been tried.
                    self._put(self._batch([number]), uuid4().hex)
                wrong = self._differing(wrong)
            different.extend(
                self._source.execute("SELECT trace_id FROM traces WHERE id = ?", (number,)).fetchone()[0].hex()
                for number in wrong
            )
        return Verified(traces, spans, tuple(different))

    def _batches(self, after: int, cursor: Cursor) -> Iterator[_Batch]:
        batch = _Batch()
        last = after
        while rows := self._source.execute(
            "SELECT id FROM traces WHERE id > ? ORDER BY id LIMIT ?", (last, _COMPARED_AT_ONCE)
        ).fetchall():
            for (number,) in rows:
                last = number
                try:
                    self._add(batch, number)
                except ValueError:
                    cursor.damaged += 1
                if len(batch.rows) >= self._batch_spans or batch.size >= BATCH_BYTES:
                    yield batch
                    batch = _Batch()
        if batch.traces:
            yield batch

    def _batch(self, numbers: Sequence[int]) -> _Batch:
        batch = _Batch()
        for number in numbers:
            self._add(batch, number)
        return batch

    def _add(self, batch: _Batch, number: int) -> None:
        run = self._source.execute
        run("BEGIN")
        try:
            row = run("SELECT trace_id FROM traces WHERE id = ?", (number,)).fetchone()
            if row is None:
                # Retention was faster.
                return
            request = read_request(self._source, number)
            # Which entry spans own identity was decided when they arrived, and is not asked of the settings again.
            entries = {(row[0], span_id) for (span_id,) in run(_ENTRIES, (number,))}
            overrides = run(_OVERRIDES, (number,)).fetchall()
        finally:
            run("ROLLBACK")
        spans = read_spans(request.SerializeToString(), _POLICY).rows
        for place in entries & spans.keys():
            spans[place][_ATTRIBUTES][ENTRY_SPAN] = "true"
        trace_id = row[0].hex()
        batch.rows.extend(spans.values())
        batch.overrides.extend((trace_id, span_id.hex(), *rest) for span_id, *rest in overrides)
        batch.size += request.ByteSize()
        batch.traces += 1
        batch.last, batch.trace_id = number, trace_id

    def _put(self, batch: _Batch, again: str = "") -> None:
        # What it holds names it: a trace that has grown is not taken for the one it was.
        digest = blake2b(self._name.encode(), digest_size=16)
        for row in batch.rows:
            digest.update(f"{row[1]} {row[2]}\n".encode())
        token = f"copy-{digest.hexdigest()}{again}"
        for part, rows in enumerate(by_days(batch.rows)):
            insert(self._client, "otel_traces", rows, COLUMNS, TYPES, f"{token}-{part}")
        insert(self._client, "neatlogs_overrides", batch.overrides, OVERRIDE_COLUMNS, OVERRIDE_TYPES, token)

    def _scope_overrides(self) -> None:
        """Copy what no trace has: identity on instrumentation scopes."""
        rows: list[Row] = [("", span_id.hex(), *rest) for span_id, *rest in self._source.execute(_OVERRIDES, (0,))]
        token = blake2b(repr(rows).encode(), digest_size=16).hexdigest()
        insert(self._client, "neatlogs_overrides", rows, OVERRIDE_COLUMNS, OVERRIDE_TYPES, f"copy-{token}")

    def _compared(self) -> Iterator[list[tuple[Any, ...]]]:
        last = 0
        while rows := self._source.execute(
            f"SELECT id, {_SUMS} FROM traces WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608  # names of our own
            (last, _COMPARED_AT_ONCE),
        ).fetchall():
            last = rows[-1][0]
            yield rows

    def _differing(self, numbers: Sequence[int]) -> list[int]:
        marks = ", ".join("?" * len(numbers))
        wanted = {
            row[1].hex(): row
            for row in self._source.execute(f"SELECT id, {_SUMS} FROM traces WHERE id IN ({marks})", tuple(numbers))  # noqa: S608  # values are bound
        }
        found = {
            str(row[0]): tuple(row[1:])
            for row in self._client.query(_FOUND, parameters={"traces": list(wanted), "unset": UNSET_TIME}).result_rows
        }
        return [row[0] for trace_id, row in wanted.items() if found.get(trace_id) != tuple(row[2:])]


_ENTRIES: Final = "SELECT span_id FROM spans WHERE trace = ? AND rank = 0"
_OVERRIDES: Final = "SELECT span_id, place, service, span_name, key, received FROM overrides WHERE trace = ?"
_SUMS: Final = "trace_id, spans, errors, tokens, start, \"end\", coalesce(end_user, '')"
_FOUND: Final = """
SELECT
    t.trace_id,
    toInt64(uniqExactMerge(t.spans)),
    toInt64(uniqExactIfMerge(t.errors)),
    toInt64(least(arraySum(used -> toUInt128(used.4), groupUniqArrayIfMerge(t.tokens)), toUInt128({unset:Int64}))),
    if(min(t.start) = {unset:Int64}, 0, min(t.start)),
    max(t.end),
    argMinMerge(t.end_user)
FROM neatlogs_traces AS t
WHERE t.trace_id IN {traces:Array(String)}
GROUP BY t.trace_id
"""


class _Batch:
    """Rows that go in together."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.overrides: list[Row] = []
        self.size = self.traces = self.last = 0
        self.trace_id = ""


def refuse_difference(verified: Verified) -> None:
    """Say so where source and target differ.

    Raises:
        ProcessorError: They do.
    """
    if not verified.different:
        return
    some = ", ".join(verified.different[:5]) + (" and others" if len(verified.different) > 5 else "")
    raise ProcessorError(
        f"{len(verified.different):,} of {verified.traces:,} traces differ or are missing in ClickHouse: {some};"
        " what is older than the TTL of its tables is not kept there, whatever was copied"
    )
