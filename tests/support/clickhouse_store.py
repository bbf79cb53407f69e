"""A database with the store's tables, and what is in it, in the words of the oracle (`store_oracle.rollups`)."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.store.clickhouse.schema import TABLES, UNSET_TIME, statements
from neatlogs_processor.store.clickhouse.writing import ClickHouseWriter, Outcome
from neatlogs_processor.store.text import read_set
from support.clickhouse_server import ClickHouseServer

POLICY = EndUserPolicy()
NOW = 1_795_000_000 * 10**9

_NUMBERS = itertools.count(1)
_MOST = 2**63 - 1


class Database:
    """A database of a server.

    Attributes:
        name: Its name.
        login: How the store gets in.
        client: A client of it.
    """

    def __init__(self, server: ClickHouseServer, *, tables: bool = True) -> None:
        self.name = f"store_{next(_NUMBERS)}"
        self.server = server
        with contextlib.closing(server.client()) as client:
            client.command(f"CREATE DATABASE {self.name}")
        self.login = ClickHouseLogin(ClickHouseAddress.parse(server.url(self.name)), server.password)
        self.client: Client = server.client(self.name)
        if tables:
            for statement in statements():
                self.client.command(statement)
            self.client.command("INSERT INTO neatlogs_state (name, value) VALUES ('schema', '1')")

    def close(self) -> None:
        """Remove it."""
        with contextlib.suppress(Exception):
            self.client.command(f"DROP DATABASE {self.name}")
        self.client.close()

    def empty(self) -> None:
        """Remove every row."""
        for table in TABLES:
            if table != "neatlogs_state":
                self.client.command(f"TRUNCATE TABLE {table}")

    def number(self, statement: str) -> int:
        """Return the one number that a statement returns."""
        rows = self.client.query(statement).result_rows
        return int(rows[0][0])

    @contextlib.contextmanager
    def writer(
        self, policy: EndUserPolicy = POLICY, clock: Callable[[], int] = lambda: NOW
    ) -> Iterator[ClickHouseWriter]:
        """A writer of it."""
        made = ClickHouseWriter(
            self.login,
            policy=policy,
            clock=clock,
            unavailable=lambda cause: StoreUnavailableError(cause, retry_after=1.0),
        )
        try:
            yield made
        finally:
            made.close()

    def write(self, *bodies: bytes, policy: EndUserPolicy = POLICY) -> Outcome:
        """Write requests together, as they are: the rule is not applied to them."""
        with self.writer(policy) as writer:
            return writer.write([Request(Signal.TRACES, body) for body in bodies])

    def insert(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows into `otel_traces`, as somebody else does."""
        self.client.insert("otel_traces", [list(row) for row in rows], column_names=list(columns))


def rollups_of(client: Client) -> dict[bytes, dict[str, Any]]:
    """Return what the rollup says of each trace, in the oracle's words."""
    found = {}
    for row in client.query(_ROLLUPS).named_results():
        rank = int(row["head"]) >> 126
        is_known = rank < 2
        tokens = [[used[place] for used in row["tokens"]] for place in (1, 2, 3)]
        found[bytes.fromhex(row["trace_id"])] = {
            "start": 0 if row["started"] == UNSET_TIME else row["started"],
            "end": row["ended"],
            "spans": row["spans"],
            "errors": row["errors"],
            "tokens_input": min(sum(tokens[0]), _MOST),
            "tokens_output": min(sum(tokens[1]), _MOST),
            "tokens": min(sum(tokens[2]), _MOST),
            "roots": (row["entries"], row["roots"], 0)[rank],
            "services": {name.replace("\n", " ") for name in row["services"]},
            "head_rank": rank,
            "status": row["status"],
            "service": row["service"],
            "name": row["name"] if is_known else None,
            "workflow": row["workflow"] or None,
            "session": row["session"] or None,
            "end_user": row["end_user"] or None,
            "source": row["source"] or None,
            "metadata": json.loads(row["metadata"]) if row["metadata"] else None,
            "tags": read_set(row["tags"]),
        }
    return found


_ROLLUPS = """
SELECT
    t.trace_id AS trace_id, min(t.start) AS started, max(t.end) AS ended, min(t.head) AS head,
    uniqExactMerge(t.spans) AS spans, uniqExactIfMerge(t.errors) AS errors, uniqExactIfMerge(t.roots) AS roots,
    uniqExactIfMerge(t.entries) AS entries, groupUniqArrayIfMerge(t.tokens) AS tokens,
    groupUniqArrayArray(t.services) AS services, argMinMerge(t.status) AS status, argMinMerge(t.service) AS service,
    argMinMerge(t.name) AS name, argMinMerge(t.workflow) AS workflow, argMinMerge(t.session) AS session,
    argMinMerge(t.end_user) AS end_user, argMinMerge(t.source) AS source, argMinMerge(t.metadata) AS metadata,
    argMinMerge(t.tags) AS tags
FROM neatlogs_traces AS t
GROUP BY t.trace_id
"""
