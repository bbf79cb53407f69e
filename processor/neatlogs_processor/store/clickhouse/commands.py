"""What the commands of `neatlogs-processor store` do where the store is ClickHouse."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, TextIO

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import format_duration
from neatlogs_processor.query.units import timestamp
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, connect, explain
from neatlogs_processor.store.clickhouse.migrating import check, keep_days, migrate
from neatlogs_processor.store.clickhouse.schema import DEDUPLICATION_WINDOW, TABLES, VERSION, statements
from neatlogs_processor.store.found import Found

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# ruff: noqa: S608  # statements of this package; values are bound

_DAY: Final = 86_400 * 10**9
_UNKNOWN_DATABASE: Final = 81
_PARTITIONED: Final = ("otel_traces", "otel_traces_trace_id_ts", "neatlogs_roots", "neatlogs_traces")
_TRACES_A_STEP: Final = 2_000
_TRACE_COLUMNS: Final = {
    "otel_traces": "TraceId",
    "otel_traces_trace_id_ts": "TraceId",
    "neatlogs_roots": "trace_id",
    "neatlogs_traces": "trace_id",
    "neatlogs_overrides": "trace_id",
}


@contextlib.contextmanager
def opened(login: ClickHouseLogin, *, checked: bool = True) -> Iterator[Client]:
    """Connect for the length of a block, in which errors of the server become ours.

    Raises:
        ConfigError: There is no such database, or its user is not let in; with `checked`, it has not got the tables.
        ProcessorError: The server cannot be reached, or did not do something.
    """
    client: Client | None = None
    try:
        client = connect(login)
        if checked:
            check(client, login.address)
        yield client
    except ProcessorError:
        raise
    except Exception as error:  # noqa: BLE001  # what is not of the client is raised again
        explained = explain(error, login.address)
        if client is None and explained.is_about_setup:
            raise ConfigError(f"--store: {explained}") from None
        raise explained from None
    finally:
        if client is not None:
            client.close()


def print_statements(max_age: int | None, cluster: str | None, out: TextIO) -> None:
    """Print what `store migrate` would execute: for one server, or for a cluster."""
    if cluster is not None:
        out.write(
            f"-- For the cluster {cluster}: replicated tables, and Distributed ones over them by trace id.\n"
            "-- These statements have been parsed by ClickHouse and have not been run on a cluster: try them first.\n"
            "-- The macros {shard} and {replica} have to be set on each server.\n\n"
        )
    out.writelines(f"{one};\n\n" for one in statements(keep_days=keep_days(max_age), cluster=cluster))


def migrate_now(login: ClickHouseLogin, max_age: int | None, out: TextIO) -> None:
    """Make the database and its tables where they are not there, and say what was made.

    Raises:
        ConfigError: What is there cannot be used.
        ProcessorError: The server did not do it.
    """
    _make_database(login)
    with opened(login, checked=False) as client:
        done = migrate(client, login.address, max_age=max_age)
        check(client, login.address)
        (old,) = client.query("SELECT count() > 0 FROM otel_traces").first_row or (0,)
        (engine,) = client.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'otel_traces'"
        ).first_row or ("",)
    if done.made:
        out.write(f"made in {login.address.database}: {', '.join(done.made)} (schema {VERSION})\n")
    else:
        out.write(f"everything was there in {login.address.database} (schema {VERSION})\n")
    if old and "neatlogs_traces" in done.made:
        out.write("otel_traces holds spans from before; store rebuild puts them on the page\n")
    if "otel_traces" in done.found and "otel_traces" not in done.made and done.before == 0:
        out.write("otel_traces was there already and stays as it is, with the TTL that it has\n")
    if str(engine).startswith("MergeTree") and "deduplication_window" not in str(engine):
        out.write(
            "otel_traces does not recognise an insert that is repeated; to have it do so:"
            f" ALTER TABLE otel_traces MODIFY SETTING non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}\n"
        )


def _make_database(login: ClickHouseLogin) -> None:
    try:
        connect(login).close()
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  # what is not of the client is raised again
        explained = explain(error, login.address)
        if explained.code != _UNKNOWN_DATABASE:
            raise explained from None
        try:
            with contextlib.closing(connect(login, database="default")) as client:
                # An identifier: `ClickHouseAddress` has seen to that.
                client.command(f"CREATE DATABASE IF NOT EXISTS `{login.address.database}`")
        except Exception as error:  # noqa: BLE001  # what is not of the client is raised again
            raise explain(error, login.address) from None


@dataclass(frozen=True)
class ClickHouseInfo:
    """What is in a store on ClickHouse. Times are nanoseconds since the epoch; `None` in an empty store.

    Attributes:
        store: Where it is.
        schema: The version of its tables.
        bytes: What its tables take on the server's disks, compressed.
        rows: Rows of `otel_traces`: spans, those that arrived twice counted twice until they are merged.
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
    """

    store: str
    schema: int
    bytes: int
    rows: int
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


def look(login: ClickHouseLogin) -> ClickHouseInfo:
    """Count what is in a store.

    Raises:
        ConfigError: The tables are not there, or cannot be used.
        ProcessorError: The server did not answer.
    """
    with opened(login) as client:
        tables = ", ".join(f"'{table}'" for table in TABLES)
        stored = _row(
            client,
            "SELECT sum(bytes_on_disk), sumIf(rows, table = 'otel_traces') FROM system.parts"
            f" WHERE active AND database = currentDatabase() AND table IN ({tables})",
        )
        sums = _row(
            client,
            "SELECT count(), countIf(p.rank < 2 AND p.user != ''), countIf(p.rank < 2 AND p.user = ''),"
            " countIf(p.rank = 2), sum(p.n), uniqExactIf(p.user, p.user != ''), uniqExactIf(p.session, p.session != '')"
            " FROM (SELECT bitShiftRight(min(t.head), 126) AS rank, argMinMerge(t.end_user) AS user,"
            " argMinMerge(t.session) AS session, uniqExactMerge(t.spans) AS n FROM neatlogs_traces AS t"
            " GROUP BY t.trace_id) AS p",
        )
        (overrides,) = _row(client, "SELECT count() FROM neatlogs_overrides FINAL")
        first, last = _row(
            client,
            "SELECT min(p.start), max(p.start) FROM (SELECT min(t.start) AS start FROM neatlogs_traces AS t"
            " GROUP BY t.trace_id HAVING start < 9223372036854775807) AS p",
        )
    times = (int(first), int(last)) if sums[0] and first else (None, None)
    return ClickHouseInfo(str(login.address), VERSION, *map(int, (*stored, *sums, overrides)), *times)


def write_info(info: ClickHouseInfo, max_age: int | None, out: TextIO, *, as_json: bool) -> None:
    """Print what is in a store, and how long the settings let it keep that."""
    if as_json:
        out.write(json.dumps(asdict(info) | {"max_age": max_age}, ensure_ascii=False) + "\n")
        return
    age = "any age" if max_age is None else format_duration(max_age / 1e9)
    lines = (
        ("store", f"{info.store} (schema {info.schema})"),
        ("on disk", f"{info.bytes:,} bytes"),
        ("kept", f"{age} (--store-max-age when the tables were made; store prune goes by it now)"),
        (
            "traces",
            f"{info.traces:,}: {info.with_end_user:,} with an end user, {info.without_end_user:,} without,"
            f" {info.root_not_received:,} whose root was not received",
        ),
        ("spans", f"{info.spans:,} in {info.rows:,} rows"),
        ("end users", f"{info.end_users:,}"),
        ("sessions", f"{info.sessions:,}"),
        ("overrides", f"{info.overrides:,} places at which one was ignored"),
        (
            "start",
            "-" if info.first_start is None else f"{timestamp(info.first_start)} to {timestamp(info.last_start or 0)}",
        ),
    )
    out.writelines(f"{name:11}{text}\n" for name, text in lines)


def prune_now(login: ClickHouseLogin, max_age: int | None, now: int, out: TextIO) -> None:
    """Delete what starts on a day that is wholly older than `max_age`: partitions, of all tables, at once.

    Raises:
        ConfigError: Nothing is too old for settings without an age; or the tables are not there.
        ProcessorError: The server did not do it.
    """
    if max_age is None:
        raise ConfigError("--store-max-age is none: say from which age on days are deleted (--max-age 30d)")
    # The last nanosecond of the day has to be too old.
    before = datetime.fromtimestamp((now - max_age) // 10**9, timezone.utc).date() - timedelta(days=1)
    dropped: set[str] = set()
    with opened(login) as client:
        for table in _PARTITIONED:
            parts = client.query(
                "SELECT DISTINCT partition FROM system.parts WHERE active AND database = currentDatabase()"
                " AND table = {table:String} AND partition <= {before:String} ORDER BY partition",
                parameters={"table": table, "before": str(before)},
            ).result_rows
            for (day,) in parts:
                client.command(f"ALTER TABLE {table} DROP PARTITION '{day}'")
                dropped.add(str(day))
        client.command(
            "ALTER TABLE neatlogs_overrides DELETE WHERE received < {until:Int64} SETTINGS mutations_sync = 2",
            parameters={"until": now - max_age},
        )
        client.command(
            "ALTER TABLE neatlogs_users DELETE WHERE last_seen < {until:Int64} SETTINGS mutations_sync = 2",
            parameters={"until": now - max_age},
        )
    out.write(f"{len(dropped):,} days deleted, up to {before}\n")


@contextlib.contextmanager
def forgetting(login: ClickHouseLogin, end_user: str) -> Iterator[Forgetting]:
    """Connect to erase one end user; see `opened`."""
    with opened(login) as client:
        yield Forgetting(client, end_user)


class Forgetting:
    """Erases one end user from one database.

    Args:
        client: Of the database.
        end_user: The id, exactly.
    """

    def __init__(self, client: Client, end_user: str) -> None:
        self._client = client
        self._end_user = end_user

    def found(self) -> Found:
        """Return what there is to erase.

        Raises:
            Exception: Of clickhouse-connect, or of the connection.
        """
        theirs, mixed, spans = _row(
            self._client,
            "SELECT countIf(p.user = {user:String}), countIf(p.user != {user:String}),"
            " sumIf(p.n, p.user = {user:String})"
            " FROM (SELECT argMinMerge(t.end_user) AS user, uniqExactMerge(t.spans) AS n FROM neatlogs_traces AS t"
            " WHERE t.trace_id IN (SELECT trace_id FROM neatlogs_roots WHERE end_user = {user:String})"
            " GROUP BY t.trace_id) AS p",
            user=self._end_user,
        )
        return Found(int(theirs), int(spans), int(mixed))

    def erase(self) -> Found:
        """Erase, and return what was erased. Parts are written anew; the server removes the old ones within minutes.

        Raises:
            Exception: Of clickhouse-connect, or of the connection. What is not erased yet is erased by doing it again.
        """
        found = self.found()
        # The roots go last: they are what finds the rest, should this be broken off.
        while traces := self._some():
            for table, column in _TRACE_COLUMNS.items():
                if table != "neatlogs_roots":
                    self._delete(table, f"{column} IN {{traces:Array(String)}}", traces=traces)
            self._delete("neatlogs_roots", "trace_id IN {traces:Array(String)}", traces=traces)
        self._delete("neatlogs_users", "end_user = {user:String}", user=self._end_user)
        return found

    def _some(self) -> Sequence[str]:
        return [
            str(trace_id)
            for (trace_id,) in self._client.query(
                "SELECT DISTINCT trace_id FROM neatlogs_roots WHERE end_user = {user:String} LIMIT {most:UInt32}",
                parameters={"user": self._end_user, "most": _TRACES_A_STEP},
            ).result_rows
        ]

    def _delete(self, table: str, where: str, **bound: Any) -> None:
        self._client.command(f"ALTER TABLE {table} DELETE WHERE {where} SETTINGS mutations_sync = 2", parameters=bound)


def _row(client: Client, statement: str, **bound: Any) -> Sequence[Any]:
    return client.query(statement, parameters=bound).first_row or ()
