"""`neatlogs-processor store info`, `prune`, `export` and `forget`: their words, and what they say."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import urlencode

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.settings import Loaded

if TYPE_CHECKING:
    from neatlogs_processor.query.view import View
    from neatlogs_processor.store.forgetting import Found

NAMES: Final = ("info", "prune", "export", "forget")
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
        raise ConfigError(f"store {name or 'alone'} is no command; write store info, prune, export or forget")
    own = parser_of(name, parser)
    given, argv[:] = own.parse_known_args(argv)
    if name == "prune":
        # The same settings under shorter names, so that they are read and refused in the same words.
        for flag, value in (("--store-max-age", given.max_age), ("--store-max-size", given.max_size)):
            argv += [] if value is None else [flag, value]
        return _prune
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


def _path(loaded: Loaded) -> Path:
    from neatlogs_processor.wiring import usual_store_path

    store = loaded.settings.store
    if store == "none":
        raise ConfigError("--store is none, and this command needs one: --store FILE")
    return store if isinstance(store, Path) else usual_store_path(os.environ)


def _info(given: argparse.Namespace) -> Callable[[Loaded], int]:
    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.commands import look, write_info
        from neatlogs_processor.wiring import store_limits

        with IgnoringClosedOutput():
            write_info(look(_path(loaded)), store_limits(loaded.settings), sys.stdout, as_json=given.json)
            sys.stdout.flush()
        return 0

    return run


def _prune(loaded: Loaded) -> int:
    from neatlogs_processor.store.commands import prune_now
    from neatlogs_processor.wiring import store_limits

    prune_now(_path(loaded), store_limits(loaded.settings), time.time_ns(), sys.stdout)
    return 0


def _export(given: argparse.Namespace) -> Callable[[Loaded], int]:
    view = _view(given)

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.store.export import Exported, export

        path = _path(loaded)
        exported: Exported | None = None
        with IgnoringClosedOutput(), _output(given.output) as out:
            exported = export(path, view, time.time_ns(), out.write)
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
        from neatlogs_processor.store.forgetting import Forgetting

        path, name = _path(loaded), shown(end_user)
        if not given.yes and not sys.stdin.isatty():
            raise ConfigError("store forget asks before it deletes, and there is no terminal to ask at; write --yes")
        with Forgetting(path, end_user) as forgetting:
            if not given.yes:
                print(f"{_sum(forgetting.found())} of {name} will be deleted from {path}, for good.")
                if not _agrees("Go on? [y/N] "):
                    print("nothing was deleted")
                    return 1
            erased = forgetting.erase()
        print(f"{_sum(erased)} of {name} deleted; the store was written anew")
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


def _sum(found: Found) -> str:
    mixed = f", and {found.mixed:,} that name them beside another end user," if found.mixed else ""
    return f"{found.traces:,} traces with {found.spans:,} spans{mixed}"
