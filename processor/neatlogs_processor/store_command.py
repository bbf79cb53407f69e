"""`neatlogs-processor store info`, `prune`, `export`, `forget`, and for ClickHouse `migrate`, `rebuild` and `copy`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urlencode

from neatlogs_processor.clickhouse_command import clickhouse_command
from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.settings import Loaded

if TYPE_CHECKING:
    from neatlogs_processor.query.view import View
    from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
    from neatlogs_processor.store.found import Found

NAMES: Final = ("info", "prune", "export", "forget", "migrate", "rebuild", "copy")
"""What stands behind `store`."""


def store_command(argv: list[str], parser: type[argparse.ArgumentParser]) -> Callable[[Loaded], int]:
    """Take the command's own words out of `argv`, and return what runs it.

    Args:
        argv: What stands behind `store`; what is left in it are flags of the processor.
        parser: Makes a parser whose errors are `ConfigError`.

    Raises:
        ConfigError: There is no such command, or it is not written like this.
    """
    name = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    if name not in NAMES:
        known = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
        raise ConfigError(f"store {name or 'alone'} is no command; write store {known}")
    own = parser_of(name, parser)
    given, argv[:] = own.parse_known_args(argv)
    if name == "prune":
        # The same settings under shorter names, so that they are read and refused in the same words.
        for flag, value in (("--store-max-age", given.max_age), ("--store-max-size", given.max_size)):
            argv += [] if value is None else [flag, value]
        return _prune
    if name in ("migrate", "rebuild", "copy"):
        return clickhouse_command(name, given)
    return {"info": _info, "export": _export, "forget": _forget}[name](given)


def parser_of(name: str, parser: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser of the flags that one of `NAMES` has beside those of the processor."""
    own = parser(prog=f"store {name}", add_help=False, allow_abbrev=False)
    if name == "info":
        own.add_argument("--json", action="store_true")
    elif name == "prune":
        own.add_argument("--max-age")
        own.add_argument("--max-size")
    elif name == "export":
        own.add_argument("--filter", action="append", default=[])
        for flag in ("--last", "--from", "--to"):
            own.add_argument(flag)
        own.add_argument("--output", type=Path)
    elif name == "migrate":
        own.add_argument("--print", action="store_true")
        own.add_argument("--cluster")
    elif name == "rebuild":
        own.add_argument("--check", action="store_true")
        own.add_argument("--all", action="store_true")
    elif name == "copy":
        own.add_argument("source", nargs="?", default="")
        own.add_argument("target", nargs="?", default="")
    else:
        own.add_argument("--end-user", default="")
        own.add_argument("--yes", action="store_true")
    return own


class IgnoringClosedOutput:
    """Ends its block well where whoever reads the standard output (`| head`) has seen enough."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, BrokenPipeError):
            return False
        # Python would find that out once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True


def _place(loaded: Loaded) -> Path | ClickHouseLogin:
    from neatlogs_processor.wiring import clickhouse_login, usual_store_path

    store = loaded.settings.store
    if store == "none":
        raise ConfigError("--store is none, and this command needs one: --store FILE")
    if isinstance(store, ClickHouseAddress):
        return clickhouse_login(loaded.settings, store, os.environ)
    return store if isinstance(store, Path) else usual_store_path(os.environ)


def _info(given: argparse.Namespace) -> Callable[[Loaded], int]:
    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store import commands
        from neatlogs_processor.store.clickhouse import commands as of_clickhouse
        from neatlogs_processor.wiring import store_limits

        place, limits = _place(loaded), store_limits(loaded.settings)
        with IgnoringClosedOutput():
            if isinstance(place, Path):
                commands.write_info(commands.look(place), limits, sys.stdout, as_json=given.json)
            else:
                of_clickhouse.write_info(of_clickhouse.look(place), limits.max_age, sys.stdout, as_json=given.json)
            sys.stdout.flush()
        return 0

    return run


def _prune(loaded: Loaded) -> int:
    from neatlogs_processor.store import commands
    from neatlogs_processor.store.clickhouse import commands as of_clickhouse
    from neatlogs_processor.wiring import store_limits

    place, limits = _place(loaded), store_limits(loaded.settings)
    if isinstance(place, Path):
        commands.prune_now(place, limits, time.time_ns(), sys.stdout)
    else:
        of_clickhouse.prune_now(place, limits.max_age, time.time_ns(), sys.stdout)
    return 0


def _export(given: argparse.Namespace) -> Callable[[Loaded], int]:
    view = _view(given)

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.export import Exported, export

        path, asked = _place(loaded), _with_lookups(view, loaded)
        if not isinstance(path, Path):
            raise ConfigError(
                "store export writes an embedded store; from ClickHouse, its own client writes any format"
                " (SELECT * FROM otel_traces ... FORMAT JSONEachRow)"
            )
        exported: Exported | None = None
        with IgnoringClosedOutput(), _output(given.output) as out:
            exported = export(path, asked, time.time_ns(), out.write)
            out.flush()
        if exported is None:
            return 0
        print(f"{exported.traces:,} traces with {exported.spans:,} spans exported", file=sys.stderr)
        if exported.deep:
            print(
                f"{exported.deep:,} lines nest too deeply for JSON as the processor reads it; it will refuse them",
                file=sys.stderr,
            )
        if exported.damaged:
            raise ProcessorError(f"{exported.damaged:,} traces are missing: the store holds them damaged")
        return 0

    return run


def _view(given: argparse.Namespace) -> View:
    from neatlogs_processor.query.errors import QueryError
    from neatlogs_processor.query.view import Tab, View

    pairs = [("filter", one) for one in given.filter]
    pairs += [(name, value) for name in ("last", "from", "to") if (value := getattr(given, name)) is not None]
    if given.last is None and getattr(given, "from") is None and given.to is None:
        # The page shows the last days; who exports means everything, unless they say otherwise.
        pairs.append(("last", "all"))
    try:
        return View.from_query(Tab.TRACES, urlencode(pairs))
    except QueryError as error:
        where = f" at character {error.position + 1}" if error.parameter == "filter" else ""
        raise ConfigError(f"--{error.parameter or 'filter'}{where}: {error.message}") from None


def _with_lookups(view: View, loaded: Loaded) -> View:
    """Return the view as the store understands it, which may hold pseudonyms."""
    from neatlogs_processor.pseudonym_keys import read_keys
    from neatlogs_processor.query.errors import FilterRefusedError
    from neatlogs_processor.query.pseudonyms import with_lookups

    path = loaded.settings.pseudonymize_key_file
    try:
        return view if path is None else with_lookups(view, read_keys(path))
    except FilterRefusedError as error:
        raise ConfigError(f"--filter: {error.message}") from None


def _known_as(end_user: str, loaded: Loaded) -> tuple[str, ...]:
    """Return everything that stands for an end user in the store."""
    from neatlogs_processor.pseudonym_keys import read_keys

    path = loaded.settings.pseudonymize_key_file
    return (end_user,) if path is None else read_keys(path).lookup(end_user)


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Open what is written to. A file is there when it is complete, and for its user alone."""
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        if path.exists() and not path.is_file():
            # A pipe, or a device.
            with path.open("wb") as out:
                yield out
            return
        partial = path.with_name(path.name + ".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            yield out
        partial.replace(path)
    except OSError as error:
        raise ProcessorError(f"--output: {path} cannot be written ({error.strerror})") from None


def _forget(given: argparse.Namespace) -> Callable[[Loaded], int]:
    end_user: str = given.end_user
    if not end_user.strip():
        raise ConfigError("store forget needs --end-user ID, exactly as the traces have it")

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.core.text import shown
        from neatlogs_processor.store.clickhouse import commands as of_clickhouse
        from neatlogs_processor.store.forgetting import Forgetting
        from neatlogs_processor.store.found import NOTHING

        place, name = _place(loaded), shown(end_user)
        if not given.yes and not sys.stdin.isatty():
            raise ConfigError("store forget asks before it deletes, and there is no terminal to ask at; write --yes")
        if isinstance(place, Path):
            where, done = str(place), "the store was written anew"
        else:
            where, done = str(place.address), "ClickHouse removes what it has written anew within some minutes"

        def opening(one: str) -> contextlib.AbstractContextManager[Forgetting | of_clickhouse.Forgetting]:
            return Forgetting(place, one) if isinstance(place, Path) else of_clickhouse.forgetting(place, one)

        with contextlib.ExitStack() as opened:
            each = [opened.enter_context(opening(one)) for one in _known_as(end_user, loaded)]
            if not given.yes:
                print(f"{_sum([one.found() for one in each])} of {name} will be deleted from {where}, for good.")
                if not _agrees("Go on? [y/N] "):
                    print("nothing was deleted")
                    return 1
            # The store is written anew for each: those that are not there need it once, for what was deleted before.
            theirs = [one for one in each if one.found() != NOTHING] if len(each) > 1 else each
            erased = [one.erase() for one in theirs or each[:1]]
        print(f"{_sum(erased)} of {name} deleted; {done}")
        if loaded.settings.queue_dir is not None:
            print(f"what waits for delivery in {loaded.settings.queue_dir} is not touched; see queue ls")
        return 0

    return run


def _agrees(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _sum(found: Sequence[Found]) -> str:
    traces, spans, mixed = (sum(getattr(one, name) for one in found) for name in ("traces", "spans", "mixed"))
    beside = f", and {mixed:,} that name them beside another end user," if mixed else ""
    return f"{traces:,} traces with {spans:,} spans{beside}"
