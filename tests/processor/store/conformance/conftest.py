"""A ClickHouse server and a database in it, filled anew by each case.

`CLICKHOUSE=http://user:password@host:8123` takes a real server instead of the engine that the tests bring: see
`make interop-clickhouse`. It makes databases called `case_...` in it, and removes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.two_engines import Database


@pytest.fixture(scope="session")
def server() -> Iterator[ClickHouseServer]:
    """A server with nothing in it."""
    with clickhouse_server() as running:
        yield running


@pytest.fixture(scope="session")
def database(server: ClickHouseServer) -> Iterator[Database]:
    """A database with the store's tables. To make it takes longer than to empty it."""
    made = Database(server)
    yield made
    made.close()
