"""The store's schema versions: `PRAGMA user_version` counts the steps that a file has taken.

A step is never changed once released; a new version is a new step at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Final

APPLICATION_ID: Final = 0x4E4C5453
"""Tells our files from other SQLite databases (`NLTS`; https://www.sqlite.org/pragma.html#pragma_application_id)."""


def _create(connection: sqlite3.Connection) -> None:
    for statement in statements(files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")):
        connection.execute(statement)


STEPS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_create,)
VERSION: Final = len(STEPS)
"""The schema version that this program writes."""


def migrate(connection: sqlite3.Connection, steps: Sequence[Callable[[sqlite3.Connection], None]] = STEPS) -> None:
    """Take the steps that a file has not taken, each in a transaction of its own.

    Two processes may try at the same time: the second one finds the step taken.

    Args:
        connection: Not in a transaction.
        steps: All steps, in order.

    Raises:
        sqlite3.Error: A step failed; the file is as it was before that step.
    """
    while connection.execute("PRAGMA user_version").fetchone()[0] < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Only now nobody else can take it.
            taken = connection.execute("PRAGMA user_version").fetchone()[0]
            if taken < len(steps):
                steps[taken](connection)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {taken + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def statements(script: str) -> Iterator[str]:
    """Divide a script into statements; unlike `executescript`, running them leaves an open transaction open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
