"""Making the tables: again and again, beside a Collector's, and not over somebody else's."""

from __future__ import annotations

import io

import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse import commands
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.store.clickhouse.migrating import check, migrate
from neatlogs_processor.store.clickhouse.schema import TABLES, statements, views
from support.clickhouse_store import Database

DAY = 86_400 * 10**9
# What the exporter of the Collector 0.100 makes, with the types that matter.
COLLECTORS = """
CREATE TABLE otel_traces (
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)), TraceId String, SpanId String, ParentSpanId String,
    TraceState String, SpanName LowCardinality(String), SpanKind LowCardinality(String),
    ServiceName LowCardinality(String), ResourceAttributes Map(LowCardinality(String), String), ScopeName String,
    ScopeVersion String, SpanAttributes Map(LowCardinality(String), String), Duration {duration},
    StatusCode LowCardinality(String), StatusMessage String,
    Events Nested (Timestamp DateTime64(9), Name LowCardinality(String),
        Attributes Map(LowCardinality(String), String)),
    Links Nested (TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))
) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, toUnixTimestamp(Timestamp))
TTL toDateTime(Timestamp) + toIntervalDay(3)
"""


def tables(database: Database) -> set[str]:
    """The tables and views of a database."""
    return {str(name) for (name,) in database.client.query("SHOW TABLES").result_rows}


def test_everything_is_made_and_a_second_time_nothing(fresh: Database) -> None:
    """It says what it made; what is there stays as it is."""
    first = migrate(fresh.client, fresh.login.address, max_age=30 * DAY)
    assert (first.before, first.made, first.found) == (0, list(TABLES), [])
    assert tables(fresh) == {*TABLES, *views(), "neatlogs_spans"}
    check(fresh.client, fresh.login.address)
    again = migrate(fresh.client, fresh.login.address, max_age=30 * DAY)
    assert (again.before, again.made, again.found) == (1, [], list(TABLES))


def test_a_table_that_is_missing_is_made_again(fresh: Database) -> None:
    """Migrating mends what was broken off."""
    migrate(fresh.client, fresh.login.address, max_age=None)
    fresh.client.command("DROP TABLE neatlogs_users_mv")
    fresh.client.command("DROP TABLE neatlogs_users")
    with pytest.raises(
        ConfigError, match=r"has no neatlogs_users and neatlogs_users_mv; run: .* store migrate --store"
    ):
        check(fresh.client, fresh.login.address)
    assert migrate(fresh.client, fresh.login.address, max_age=None).made == ["neatlogs_users"]
    check(fresh.client, fresh.login.address)


@pytest.mark.parametrize("duration", ["UInt64", "Int64"])
def test_a_collectors_table_stays_as_it_is(fresh: Database, duration: str) -> None:
    """Its own TTL too; the rollups are made beside it."""
    fresh.client.command(COLLECTORS.format(duration=duration))
    before = fresh.client.command("SHOW CREATE TABLE otel_traces")
    done = migrate(fresh.client, fresh.login.address, max_age=30 * DAY)
    assert done.found == ["otel_traces"]
    assert fresh.client.command("SHOW CREATE TABLE otel_traces") == before
    check(fresh.client, fresh.login.address)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("CREATE TABLE otel_traces (a Int8) ENGINE = Memory", "Timestamp is missing there, DateTime64(9) is expected"),
        (COLLECTORS.format(duration="Float64"), "Duration is Float64 there, UInt64 is expected"),
        (
            COLLECTORS.format(duration="UInt64").replace(
                "SpanAttributes Map(LowCardinality(String), String)", "SpanAttributes JSON"
            ),
            "SpanAttributes is JSON there, Map(String,String) is expected",
        ),
    ],
    ids=["another table", "another type", "the exporter's JSON"],
)
def test_a_table_of_another_shape_is_refused(fresh: Database, made: str, says: str) -> None:
    """Nothing is made beside it, and the message names the first column that differs."""
    fresh.client.command(made)
    with pytest.raises(ConfigError) as refused:
        migrate(fresh.client, fresh.login.address, max_age=None)
    assert says in str(refused.value)
    assert tables(fresh) == {"otel_traces"}


def test_tables_of_a_newer_version_are_refused(fresh: Database) -> None:
    """An older program might read them wrongly."""
    migrate(fresh.client, fresh.login.address, max_age=None)
    fresh.client.insert("neatlogs_state", [["schema", "99"]], column_names=["name", "value"])
    for refused in (lambda: migrate(fresh.client, fresh.login.address, max_age=None),
                    lambda: check(fresh.client, fresh.login.address)):  # fmt: skip
        with pytest.raises(ConfigError, match="newer version"):
            refused()


def test_the_database_is_made_where_it_is_not_there(fresh: Database) -> None:
    """Whoever starts needs no other program."""
    address = ClickHouseAddress(fresh.login.address.host, fresh.login.address.port, database=f"{fresh.name}_new")
    out = io.StringIO()
    try:
        commands.migrate_now(ClickHouseLogin(address), 30 * DAY, out)
    finally:
        fresh.client.command(f"DROP DATABASE IF EXISTS {fresh.name}_new")
    assert out.getvalue().startswith(f"made in {fresh.name}_new: otel_traces, ")


def test_rows_go_by_themselves_after_the_age_that_was_set(fresh: Database) -> None:
    """The age becomes the TTL of every table that grows with time, in whole days."""
    migrate(fresh.client, fresh.login.address, max_age=DAY + 1)
    kept = fresh.client.query(
        "SELECT name, position(engine_full, 'toIntervalDay(2)') > 0 FROM system.tables"
        " WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
    ).result_rows
    assert {str(name) for name, has_ttl in kept if not has_ttl} == {"neatlogs_users", "neatlogs_state"}


def test_without_an_age_nothing_goes_by_itself() -> None:
    """No statement has a TTL."""
    assert "TTL" not in "".join(statements())


def test_statements_for_a_cluster_are_at_least_parsed(fresh: Database) -> None:
    """Replicated tables and Distributed ones over them: ClickHouse reads them; no cluster has run them."""
    made = statements(keep_days=30, cluster="main")
    for statement in made:
        fresh.client.query(f"EXPLAIN AST {statement}")
        assert " ON CLUSTER main" in statement
    text = "\n".join(made)
    assert (
        "ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')" in text
    )
    assert "'{replica}', received)" in text
    assert "TO neatlogs_spans_local AS" in text
    assert "ENGINE = Distributed(main, currentDatabase(), neatlogs_traces_local, sipHash64(trace_id))" in text


def test_what_is_printed_for_a_cluster_says_that_it_was_not_tried() -> None:
    """Nobody should take it for more than it is."""
    out = io.StringIO()
    commands.print_statements(30 * DAY, "main", out)
    assert "have not been run on a cluster" in out.getvalue()
