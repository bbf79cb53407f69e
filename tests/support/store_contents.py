"""What a store's file holds, in the form of `support.store_oracle`, and how it is compared."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.text import fold
from neatlogs_processor.store.files import open_reader
from neatlogs_processor.store.reading import read_request
from support.store_oracle import Sent, rollups

_FOLDED = ("name", "workflow", "session", "end_user", "services", "tags")


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Make a folder in memory where the system has such: for tests of what is written, not of how it gets to a disk."""
    memory = "/dev/shm"  # noqa: S108  # a private folder is made in it
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def rollups_of(path: Path) -> dict[bytes, dict[str, Any]]:
    """Return the traces of a store by trace id; folded columns are checked here and left out."""
    with contextlib.closing(open_reader(path)) as connection:
        rows = connection.execute("SELECT * FROM traces")
        columns = [column[0] for column in rows.description]
        found = {row["trace_id"]: row for row in (dict(zip(columns, values, strict=True)) for values in rows)}
    for row in found.values():
        for column in _FOLDED:
            folded = row.pop(f"{column}_folded")
            assert folded == (None if row[column] is None else fold(row[column])), column
        row.pop("metadata_folded")
        row["metadata"] = None if row["metadata"] is None else json.loads(row["metadata"])
        for column in ("services", "tags"):
            row[column] = {member for member in row[column].split("\n") if member}
        for column in ("id", "trace_id", "received"):
            row.pop(column)
    return found


def spans_of(path: Path) -> Counter[tuple[bytes, bytes]]:
    """Return how often each span is there, by trace id and span id, counting what can be read back whole."""
    return Counter(one.place for one in sent_of(path))


def sent_of(path: Path) -> list[Sent]:
    """Return all spans of a store as they were sent, with their resources."""
    with contextlib.closing(open_reader(path)) as connection:
        numbers = [number for (number,) in connection.execute("SELECT id FROM traces")]
        return [one for number in numbers for one in sent_in(read_request(connection, number))]


def sent_in(request: ExportTraceServiceRequest) -> list[Sent]:
    """Return the spans of a request with their resources."""
    return [
        Sent(span, resource_spans.resource)
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def assert_sound(path: Path, entry_services: Iterable[str] = ()) -> None:
    """Demand that the database is whole, its tables fit together, and each rollup is the sum of the spans."""
    with contextlib.closing(open_reader(path)) as connection:
        run = connection.execute
        assert run("PRAGMA integrity_check").fetchall() == [("ok",)]
        for what, query in _LOOSE_ENDS.items():
            assert run(query).fetchone() == (0,), what
    assert rollups_of(path) == rollups(sent_of(path), entry_services)


_LOOSE_ENDS = {
    "spans without a trace": "SELECT count(*) FROM spans WHERE trace NOT IN (SELECT id FROM traces)",
    "traces without a span": "SELECT count(*) FROM traces WHERE id NOT IN (SELECT trace FROM spans)",
    "spans without a block": "SELECT count(*) FROM spans WHERE block NOT IN (SELECT id FROM blocks)",
    "blocks without a span": "SELECT count(*) FROM blocks WHERE id NOT IN (SELECT block FROM spans)",
    "spans without a resource": "SELECT count(*) FROM spans WHERE resource NOT IN (SELECT id FROM resources)",
    "spans without a scope": "SELECT count(*) FROM spans WHERE scope NOT IN (SELECT id FROM scopes)",
    "overrides without a trace": (
        "SELECT count(*) FROM overrides WHERE trace <> 0 AND trace NOT IN (SELECT id FROM traces)"
    ),
}
