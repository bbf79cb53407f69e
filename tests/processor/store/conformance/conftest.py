"""A ClickHouse server and a database in it, filled anew by each case.

`CLICKHOUSE=http://user:password@host:8123` takes a real server instead of the engine that the tests bring: see
`make interop-clickhouse`. It makes databases called `case_...` in it, and removes them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clickhouse_server import clickhouse_server
from support.two_engines import Database


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A database with the store's tables."""
    with clickhouse_server() as server:
        made = Database(server)
        yield made
        made.close()
