"""`neatlogs-processor store migrate`, `rebuild` and `copy`: what a store on ClickHouse needs beside the others."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.settings import Loaded

if TYPE_CHECKING:
    from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
    from neatlogs_processor.store.clickhouse.copying import Cursor

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_COPY: Final = "write store copy sqlite:FILE clickhouse://user@host:8123/database"


def clickhouse_command(name: str, given: argparse.Namespace) -> Callable[[Loaded], int]:
    """Return what runs `migrate`, `rebuild` or `copy`.

    Raises:
        ConfigError: It is not written like this.
    """
    return {"migrate": _migrate, "rebuild": _rebuild, "copy": _copy}[name](given)


def _login(loaded: Loaded) -> ClickHouseLogin:
    from neatlogs_processor.wiring import clickhouse_login

    store = loaded.settings.store
    if not isinstance(store, ClickHouseAddress):
        raise ConfigError("this command is for a store on ClickHouse: --store clickhouse://user@host:8123/database")
    return clickhouse_login(loaded.settings, store, os.environ)


def _migrate(given: argparse.Namespace) -> Callable[[Loaded], int]:
    if given.cluster is not None and not given.print:
        raise ConfigError(
            "--cluster is for --print: the statements for a cluster are printed, for whoever runs it to look at and to"
            " execute"
        )
    if given.cluster is not None and not _IDENTIFIER.fullmatch(given.cluster):
        raise ConfigError(f"--cluster: {given.cluster!r} is not a name of a cluster")

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.clickhouse import commands
        from neatlogs_processor.wiring import store_limits

        max_age = store_limits(loaded.settings).max_age
        if given.print:
            commands.print_statements(max_age, given.cluster, sys.stdout)
        else:
            commands.migrate_now(_login(loaded), max_age, sys.stdout)
        return 0

    return run


def _rebuild(given: argparse.Namespace) -> Callable[[Loaded], int]:
    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.clickhouse.commands import opened
        from neatlogs_processor.store.clickhouse.rebuilding import rebuild, report

        with opened(_login(loaded)) as client:
            if given.check:
                return 1 if report(client, sys.stdout) else 0
            rebuild(client, sys.stdout, every_day=given.all)
        return 0

    return run


def _copy(given: argparse.Namespace) -> Callable[[Loaded], int]:
    kind, _, file = given.source.partition(":")
    if kind != "sqlite" or not file:
        raise ConfigError(f"store copy takes a source of the form sqlite:FILE; {_COPY}")
    if not given.target.startswith(("clickhouse://", "clickhouses://")):
        raise ConfigError(f"store copy takes a target of the form clickhouse://...; {_COPY}")
    try:
        address = ClickHouseAddress.parse(given.target)
    except ValueError as error:
        # What was typed may hold a password.
        raise ConfigError(f"store copy: the target cannot be used: {error}") from None
    path = Path(file).expanduser()

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.clickhouse.commands import opened
        from neatlogs_processor.store.clickhouse.copying import Copying, refuse_difference
        from neatlogs_processor.store.files import open_reader
        from neatlogs_processor.wiring import clickhouse_login

        def say(cursor: Cursor) -> None:
            print(f"{cursor.traces:,} traces with {cursor.spans:,} spans so far", file=sys.stderr)

        login = clickhouse_login(loaded.settings, address, os.environ)
        with contextlib.closing(open_reader(path)) as source, opened(login) as client:
            copying = Copying(source, path, client, said=say)
            began = copying.cursor()
            if began.traces:
                print(f"going on behind the {began.traces:,} traces that were copied before", file=sys.stderr)
            cursor = copying.copy()
            print(f"{cursor.traces:,} traces with {cursor.spans:,} spans copied", flush=True)
            verified = copying.verify()
        refuse_difference(verified)
        print(f"verified: {verified.traces:,} traces with {verified.spans:,} spans are the same in both")
        if cursor.damaged:
            raise ProcessorError(f"{cursor.damaged:,} traces are missing: {path} holds them damaged")
        return 0

    return run
