"""One ClickHouse server for all tests of this folder, and a database of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.clickhouse_store import Database


@pytest.fixture(scope="session")
def server() -> Iterator[ClickHouseServer]:
    """A server with nothing in it."""
    with clickhouse_server() as running:
        yield running


@pytest.fixture(scope="session")
def shared(server: ClickHouseServer) -> Iterator[Database]:
    """The database that `database` empties."""
    made = Database(server)
    yield made
    made.close()


@pytest.fixture
def database(shared: Database) -> Iterator[Database]:
    """A database with the store's tables and nothing in them. To make it takes longer than to empty it."""
    shared.empty()
    yield shared
    shared.server.recover()


@pytest.fixture
def fresh(server: ClickHouseServer) -> Iterator[Database]:
    """A database without any table, for a test alone."""
    made = Database(server, tables=False)
    yield made
    server.recover()
    made.close()
