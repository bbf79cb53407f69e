"""`store info`, `prune` and `forget` on ClickHouse."""

from __future__ import annotations

import io
import json

import pytest

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse import commands
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.store.clickhouse.schema import TABLES
from neatlogs_processor.store.found import Found
from support.clickhouse_store import NOW, Database
from support.store_parts import trace, traces

DAY = 86_400 * 10**9


def test_info_counts_what_is_there(database: Database) -> None:
    """Traces by whether they have an end user, spans once however often they came, and the room on the disk."""
    database.write(traces(trace(1, spans=3), trace(2, user="bob")).body)
    database.write(traces(trace(1, spans=3), trace(3, spans=2)[1:]).body)
    info = commands.look(database.login)
    assert (info.traces, info.with_end_user, info.without_end_user, info.root_not_received) == (3, 2, 0, 1)
    assert (info.spans, info.rows, info.end_users, info.sessions) == (5, 8, 2, 0)
    assert (info.first_start, info.last_start) == (NOW, NOW + 1)
    assert info.bytes > 0
    out = io.StringIO()
    commands.write_info(info, 30 * DAY, out, as_json=False)
    assert "traces     3: 2 with an end user, 0 without, 1 whose root was not received\n" in out.getvalue()
    assert "spans      5 in 8 rows\n" in out.getvalue()
    out = io.StringIO()
    commands.write_info(info, None, out, as_json=True)
    assert json.loads(out.getvalue())["store"] == str(database.login.address)


def test_info_of_an_empty_store_has_no_times(database: Database) -> None:
    """There is no first trace and no last one."""
    info = commands.look(database.login)
    assert (info.traces, info.first_start, info.last_start) == (0, None, None)
    commands.write_info(info, None, io.StringIO(), as_json=False)


def test_prune_deletes_days_that_are_wholly_too_old(database: Database) -> None:
    """Of every table; a day of which a part is young enough stays."""
    database.write(traces(trace(1, spans=3)).body)
    out = io.StringIO()
    commands.prune_now(database.login, 2 * DAY, NOW + 2 * DAY, out)
    assert out.getvalue().startswith("0 days deleted")
    commands.prune_now(database.login, DAY, NOW + 2 * DAY, out)
    assert out.getvalue().splitlines()[1] == "1 days deleted, up to 2026-11-18"
    assert {database.number(f"SELECT count() FROM {table}") for table in TABLES if table != "neatlogs_state"} == {0}  # noqa: S608  # names of the package


def test_prune_without_an_age_is_refused(database: Database) -> None:
    """ClickHouse has no limit on its size here: it goes by days alone."""
    with pytest.raises(ConfigError, match="say from which age on"):
        commands.prune_now(database.login, None, NOW, io.StringIO())


def test_forget_erases_an_end_user_from_every_table(database: Database) -> None:
    """Their traces go whole, also those in which a second root names them; nobody else's go."""
    theirs, others = trace(1, spans=3, user="alice"), trace(2, spans=2, user="bob")
    mixed = trace(3, user="bob")
    second = trace(3, user="alice")
    second[0].span.span_id = b"\x77" * 8
    second[0].span.start_time_unix_nano += 5
    database.write(traces(theirs, others, mixed, second).body)
    with commands.forgetting(database.login, "alice") as forgetting:
        assert forgetting.found() == Found(traces=1, spans=3, mixed=1)
        assert forgetting.erase() == Found(traces=1, spans=3, mixed=1)
        assert forgetting.found() == Found(0, 0, 0)
    info = commands.look(database.login)
    assert (info.traces, info.spans, info.rows, info.end_users) == (1, 2, 2, 1)
    for table in ("otel_traces_trace_id_ts", "neatlogs_roots", "neatlogs_traces", "neatlogs_users"):
        assert database.number(f"SELECT count() FROM {table}") == 1, table  # noqa: S608  # names of the package


def test_a_database_without_tables_says_what_to_do(fresh: Database) -> None:
    """The command that makes them is in the message, with the store's own address."""
    with pytest.raises(ConfigError, match=f"store migrate --store {fresh.login.address}"):
        commands.look(fresh.login)


def test_a_database_that_is_not_there_is_a_setting_that_cannot_be_used(database: Database) -> None:
    """As one without the tables is: nothing was begun, and the sentence says what to do."""
    address = ClickHouseAddress.parse(database.server.url("not_there"))
    with pytest.raises(ConfigError, match="--store: the tables of the store are not in the database not_there"):
        commands.look(ClickHouseLogin(address, database.server.password))


def test_a_server_that_is_not_there_is_an_error_of_one_line() -> None:
    """It names the server."""
    nowhere = ClickHouseLogin(ClickHouseAddress("127.0.0.1", 1))
    with pytest.raises(ProcessorError, match=r"^ClickHouse at 127\.0\.0\.1:1 cannot be reached$"):
        commands.look(nowhere)
    with pytest.raises(ProcessorError, match="cannot be reached"):
        commands.migrate_now(nowhere, None, io.StringIO())
