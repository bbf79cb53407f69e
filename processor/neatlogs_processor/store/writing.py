"""One transaction: the spans of some requests go in, each once, and the rollups move by those that were new.

Whether a span is new is asked of the database inside the transaction that writes it, so a request that arrives twice,
or in part, or from two processes, counts once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.core.text import fold
from neatlogs_processor.store.blocks import compress, group
from neatlogs_processor.store.files import transaction
from neatlogs_processor.store.rows import Batch, Head, Rollup, Shared, SpanRow, Tokens
from neatlogs_processor.store.text import fold_metadata, fold_or_none, read_set, write_set

HOUR: Final = 3600 * 10**9
"""Nanoseconds: how exactly `last_used` is kept."""

_MAX_ASKED: Final = 256
_MAX_REMEMBERED: Final = 4096

_TRACE: Final = (
    'SELECT id, received, start, "end", spans, errors, tokens_input, tokens_output, tokens, roots, services,'
    " head_rank, head_start, head_span_id FROM traces WHERE trace_id = ?"
)
_SUMS: Final = (
    'start, "end", duration, spans, errors, tokens_input, tokens_output, tokens, roots, services, services_folded'
)
_HEAD: Final = (
    "head_rank, head_start, head_span_id, status, service, name, name_folded, workflow, workflow_folded, session,"
    " session_folded, end_user, end_user_folded, source, metadata, metadata_folded, tags, tags_folded"
)


def _marks(columns: str) -> str:
    return ", ".join("?" * len(columns.split(",")))


def _sets(columns: str) -> str:
    return ", ".join(f"{column.strip()} = ?" for column in columns.split(","))


# The names are constants of this file, never anything from outside.
_INSERT_TRACE: Final = (
    f"INSERT INTO traces (id, trace_id, received, {_SUMS}, {_HEAD})"  # noqa: S608  # names of our own; values are bound
    f" VALUES (?, ?, ?, {_marks(_SUMS)}, {_marks(_HEAD)})"
)
_UPDATE_SUMS: Final = f"UPDATE traces SET {_sets(_SUMS)} WHERE id = ?"  # noqa: S608  # names of our own; values are bound
_UPDATE_ALL: Final = f"UPDATE traces SET {_sets(_SUMS)}, {_sets(_HEAD)} WHERE id = ?"  # noqa: S608  # names of our own; values are bound
_INSERT_SPAN: Final = f"INSERT INTO spans VALUES ({', '.join('?' * 15)})"  # noqa: S608  # names of our own; values are bound
_INSERT_OVERRIDE: Final = (
    "INSERT INTO overrides VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET received = max(received, excluded.received)"
)


@dataclass
class Written:
    """What a transaction did.

    Attributes:
        spans: Spans that are new.
        duplicates: Spans that were there already.
    """

    spans: int = 0
    duplicates: int = 0


@dataclass
class _Trace:
    id: int
    # The latest time at which it may look as if it had arrived: the clock may have been set back since.
    received: int
    rollup: Rollup
    is_new: bool
    # As it was read: whether the head has changed shows by comparing.
    head: Head | None
    # Span ids that are known to be there, in the table or gathered in this transaction.
    spans: set[bytes] = field(default_factory=set)
    grew: bool = False


@dataclass
class Writing:
    """Writes to one store. For one thread.

    Args:
        connection: Made by `files.open_writer`.
    """

    connection: sqlite3.Connection
    # What this process knows of other rows' ids; forgotten when a transaction fails or another process has written.
    _shared: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    _data_version: int = -1

    def write(self, requests: Iterable[tuple[Batch, Sequence[Override]]], received: int) -> Written:
        """Write requests in one transaction: all of them or, where it raises, nothing.

        Args:
            requests: What each holds, and the overrides that were ignored in it.
            received: When they arrived, in nanoseconds since the epoch.

        Raises:
            sqlite3.Error: Nothing was written.
        """
        try:
            with transaction(self.connection):
                version = self.connection.execute("PRAGMA data_version").fetchone()[0]
                if version != self._data_version:
                    self._data_version = version
                    self._shared.clear()
                return _Transaction(self, received).write(requests)
        except BaseException:
            self._shared.clear()
            raise

    def forget_shared(self) -> None:
        """Forget the ids of resources and scopes, because some may have been deleted over this connection."""
        self._shared.clear()

    def shared_id(self, table: str, shared: Shared, received: int) -> int:
        """Return the id of a resource or scope, which is put in where it is not there."""
        key = (table, shared.body)
        known = self._shared.get(key)
        if known is not None and received - known[1] < HOUR:
            return known[0]
        digest = blake2b(shared.body, digest_size=16).digest()
        named = "service" if table == "resources" else "name"
        (number,) = self.connection.execute(
            f"INSERT INTO {table} (hash, last_used, {named}, body) VALUES (?, ?, ?, ?)"  # noqa: S608  # names of our own; values are bound
            " ON CONFLICT (hash) DO UPDATE SET last_used = max(last_used, excluded.last_used) RETURNING id",
            (digest, received, shared.name, shared.body),
        ).fetchone()
        if len(self._shared) >= _MAX_REMEMBERED:
            self._shared.clear()
        self._shared[key] = (number, received)
        return int(number)


class _Transaction:
    """What is known and gathered while one transaction is open."""

    def __init__(self, writing: Writing, received: int) -> None:
        self._writing = writing
        self._received = received
        self._run = writing.connection.execute
        self._traces: dict[bytes, _Trace] = {}
        self._next_trace = self._next("traces")
        self._next_block = self._next("blocks")
        self._span_rows: list[tuple[Any, ...]] = []
        self._block_rows: list[tuple[int, bytes]] = []
        self._written = Written()

    def write(self, requests: Iterable[tuple[Batch, Sequence[Override]]]) -> Written:
        overrides: list[tuple[object, ...]] = []
        for batch, ignored in requests:
            for trace_id, spans in batch.traces.items():
                self._add(trace_id, spans)
            overrides.extend(row for override in ignored if (row := self._override(override)) is not None)
        run_many = self._writing.connection.executemany
        run_many("INSERT INTO blocks VALUES (?, ?)", self._block_rows)
        # In the order of the tree that they go into.
        run_many(_INSERT_SPAN, sorted(self._span_rows))
        for trace_id, trace in self._traces.items():
            if trace.grew:
                self._write_trace(trace_id, trace)
        run_many(_INSERT_OVERRIDE, overrides)
        return self._written

    def _next(self, table: str) -> int:
        (highest,) = self._run(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608  # names of our own; values are bound
        return (highest or 0) + 1

    def _add(self, trace_id: bytes, spans: list[SpanRow]) -> None:
        trace = self._traces.get(trace_id) or self._read(trace_id)
        seen = self._seen(trace, spans)
        fresh = [span for span in spans if span.span_id not in seen]
        self._written.spans += len(fresh)
        self._written.duplicates += len(spans) - len(fresh)
        if not fresh:
            return
        trace.grew = True
        start = 0
        for count in group(len(span.body) for span in fresh):
            self._put_block(trace, fresh[start : start + count])
            start += count

    def _put_block(self, trace: _Trace, spans: list[SpanRow]) -> None:
        block = self._next_block
        self._next_block += 1
        self._block_rows.append((block, compress(span.body for span in spans)))
        # What a trace refers to must look used for as long as the trace is there.
        shared_id, received = self._writing.shared_id, trace.received
        for position, span in enumerate(spans):
            trace.rollup.add(span)
            trace.spans.add(span.span_id)
            self._span_rows.append(
                (
                    *(trace.id, span.span_id, span.parent_id, span.rank, span.name, span.kind, span.otel_kind),
                    *(span.start, span.end, span.status, span.tokens.total),
                    shared_id("resources", span.resource, received),
                    shared_id("scopes", span.scope, received),
                    *(block, position),
                )
            )

    def _read(self, trace_id: bytes) -> _Trace:
        row = self._run(_TRACE, (trace_id,)).fetchone()
        if row is None:
            trace = _Trace(self._next_trace, self._received, Rollup(), is_new=True, head=None)
            self._next_trace += 1
        else:
            number, received, start, end, spans, errors, tokens_in, tokens_out, tokens, roots, services, *head = row
            rollup = Rollup(start, end, spans, errors, Tokens(tokens_in, tokens_out, tokens), roots, read_set(services))
            rollup.head = Head(*head)
            trace = _Trace(number, max(received, self._received), rollup, is_new=False, head=rollup.head)
        self._traces[trace_id] = trace
        return trace

    def _seen(self, trace: _Trace, spans: list[SpanRow]) -> set[bytes]:
        """Return which spans of a trace are there: in the table, or gathered in this transaction."""
        seen = trace.spans
        if not trace.is_new:
            # Ask only for these, however many spans the trace has.
            ids = [span.span_id for span in spans if span.span_id not in seen]
            for begin in range(0, len(ids), _MAX_ASKED):
                some = ids[begin : begin + _MAX_ASKED]
                marks = ", ".join("?" * len(some))
                known = f"SELECT span_id FROM spans WHERE trace = ? AND span_id IN ({marks})"  # noqa: S608  # names of our own; values are bound
                found = self._run(known, (trace.id, *some))
                seen.update(span_id for (span_id,) in found)
        return seen

    def _write_trace(self, trace_id: bytes, trace: _Trace) -> None:
        rollup, head = trace.rollup, trace.rollup.head
        assert head is not None  # noqa: S101  # it has a span
        services = write_set(rollup.services)
        sums = (
            *(rollup.start, rollup.end, rollup.duration, rollup.spans, rollup.errors, *rollup.tokens, rollup.roots),
            *(services, fold(services)),
        )
        if head is trace.head:
            self._run(_UPDATE_SUMS, (*sums, trace.id))
            return
        tags = write_set(head.tags)
        says = (
            *(head.rank, head.start, head.span_id, head.status, head.service, head.name, fold_or_none(head.name)),
            *(head.workflow, fold_or_none(head.workflow), head.session, fold_or_none(head.session)),
            *(head.end_user, fold_or_none(head.end_user), head.source, head.metadata, fold_metadata(head.metadata)),
            *(tags, fold(tags)),
        )
        if trace.is_new:
            self._run(_INSERT_TRACE, (trace.id, trace_id, self._received, *sums, *says))
        else:
            self._run(_UPDATE_ALL, (*sums, *says, trace.id))

    def _override(self, override: Override) -> tuple[object, ...] | None:
        if override.place is Place.SCOPE:
            number = 0
        else:
            trace = self._traces.get(override.trace_id)
            if trace is None or not trace.spans:
                # On a completion marker or a span without an id: there is nothing to show it with.
                return None
            number = trace.id
        return (
            *(number, override.span_id, override.place.value),
            *(override.service, override.span_name, override.key, self._received),
        )
