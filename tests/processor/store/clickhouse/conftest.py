"""One ClickHouse server for the tests of a module, and a database of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.clickhouse_store import Database


@pytest.fixture(scope="module")
def server() -> Iterator[ClickHouseServer]:
    """A server with nothing in it."""
    with clickhouse_server() as running:
        yield running


@pytest.fixture
def database(server: ClickHouseServer) -> Iterator[Database]:
    """A database with the store's tables."""
    made = Database(server)
    yield made
    server.recover()
    made.close()
