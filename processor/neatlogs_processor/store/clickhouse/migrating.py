"""Making the tables, and telling whether those that are there can be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse.schema import TABLES, VERSION, statements, views
from neatlogs_processor.store.clickhouse.spans import COLUMNS, TYPES

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_DAY: Final = 86_400 * 10**9
_ENCODED: Final = ("LowCardinality(", "Nullable(")
# Older exporters of the Collector had a signed one, which holds the same bits.
_AS_GOOD: Final = {"Int64": "UInt64"}


@dataclass
class Migrated:
    """What `migrate` did.

    Attributes:
        before: The version of the tables before; 0 where there were none.
        made: Tables that were not there.
        found: Tables that were there, the Collector's among them.
    """

    before: int
    made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


def keep_days(max_age: int | None) -> int | None:
    """Return how many whole days rows are kept, from a number of nanoseconds."""
    return None if max_age is None else max(1, math.ceil(max_age / _DAY))


def migrate(client: Client, address: ClickHouseAddress, *, max_age: int | None) -> Migrated:
    """Make the tables and views that are not there, or bring them to this version. Safe to do again, and at any time.

    `otel_traces`, where a Collector made it, is left as it is: also its TTL.

    Args:
        client: Of the database.
        address: Of the database, for messages.
        max_age: For how long rows are kept, in nanoseconds; `None` for ever.

    Raises:
        ConfigError: There is a table of another shape, or the tables are of a newer version.
        Exception: Of clickhouse-connect, or of the connection.
    """
    there = _tables(client)
    if "otel_traces" in there:
        _refuse_foreign_shape(client, address)
    version = _version(client, there)
    _refuse_newer(version, address)
    for statement in statements(keep_days=keep_days(max_age)):
        client.command(statement)
    for step in STEPS[version:] if version else ():
        step(client)
    if version < VERSION:
        client.insert("neatlogs_state", [["schema", str(VERSION)]], column_names=["name", "value"])
    return Migrated(version, [name for name in TABLES if name not in there], [name for name in TABLES if name in there])


STEPS: Final[Sequence[Callable[[Client], None]]] = ((lambda _: None),)
"""What brings the tables from one version to the next; the first one is `schema.sql` itself."""


def check(client: Client, address: ClickHouseAddress) -> None:
    """Refuse a database that cannot be written and read as it is.

    Raises:
        ConfigError: Tables are missing, of another shape or of another version. The message says what to do.
        Exception: Of clickhouse-connect, or of the connection.
    """
    there = _tables(client)
    missing = [name for name in (*TABLES, *views()) if name not in there]
    again = f"run: neatlogs-processor store migrate --store {address}"
    if missing:
        raise ConfigError(f"--store: {address.database} has no {_list(missing)}; {again}")
    _refuse_foreign_shape(client, address)
    version = _version(client, there)
    _refuse_newer(version, address)
    if version < VERSION:
        raise ConfigError(
            f"--store: {address.database} has tables of an older version ({version}, here {VERSION}); {again}"
        )


def _tables(client: Client) -> set[str]:
    return {
        str(name)
        for (name,) in client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    }


def _version(client: Client, there: set[str]) -> int:
    if "neatlogs_state" not in there:
        return 0
    rows = client.query("SELECT value FROM neatlogs_state WHERE name = 'schema' ORDER BY at DESC LIMIT 1").result_rows
    return int(rows[0][0]) if rows else 0


def _refuse_newer(version: int, address: ClickHouseAddress) -> None:
    if version > VERSION:
        raise ConfigError(
            f"--store: {address.database} has tables of a newer version (schema {version}, here {VERSION});"
            " use that version, or another database"
        )


def _refuse_foreign_shape(client: Client, address: ClickHouseAddress) -> None:
    found = {
        str(name): _plain(str(kind))
        for name, kind in client.query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'otel_traces'"
        ).result_rows
    }
    wanted = {name: _plain(kind) for name, kind in zip(COLUMNS, TYPES, strict=True)}
    wrong = [name for name, kind in wanted.items() if _AS_GOOD.get(found.get(name, ""), found.get(name)) != kind]
    if not wrong:
        return
    name = wrong[0]
    has = f"is {found[name]} there" if name in found else "is missing there"
    raise ConfigError(
        f"--store: otel_traces in {address.database} is not as the Collector's exporter makes it: {name} {has},"
        f" {wanted[name]} is expected ({len(wrong)} columns differ; its option json makes another table);"
        " use another database"
    )


def _plain(kind: str) -> str:
    """Return a type without what does not matter to whoever reads and writes it."""
    for encoded in _ENCODED:
        while encoded in kind:
            head, _, rest = kind.partition(encoded)
            inner, _, tail = rest.partition(")")
            kind = head + inner + tail
    return kind.replace("DateTime64(9, 'UTC')", "DateTime64(9)").replace(" ", "")


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
