"""The store's file: where it is by default, who may read it, and how it is opened for writing and for reading."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.store.migrations import APPLICATION_ID, VERSION, migrate

PAGE_BYTES: Final = 8 * 1024
"""A block of small spans fits one page, and few pages change with each commit."""

BUSY_SECONDS: Final = 10.0
"""How long a writer waits for another process that writes (`store prune`, `store forget`)."""

CACHE_BYTES: Final = 64 * 2**20
LOG_BYTES: Final = 64 * 2**20
"""The log is cut back to this where it had to grow: by a long transaction, or because somebody was reading."""
_LOG_PAGES: Final = 4096
_CHECKPOINT_MILLISECONDS: Final = 200
_LEAST_SQLITE: Final = (3, 37)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def default_path(environ: Mapping[str, str], home: Callable[[], Path], platform: str) -> Path:
    """Return where the store is kept unless somebody says otherwise: in the user's data directory.

    Args:
        environ: The environment. `XDG_DATA_HOME` counts where it is absolute, as its specification says
            (https://specifications.freedesktop.org/basedir-spec/latest/).
        home: Returns the user's home directory; asked only where that is needed.
        platform: As `sys.platform` writes it.
    """
    data = Path(environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = home() / ("Library/Application Support" if platform == "darwin" else ".local/share")
    return data / "neatlogs" / "traces.db"


def open_writer(path: Path, *, patience: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a store for writing; make it, and the directory around it, where it does not exist.

    Nobody but its user can read the file and what SQLite puts beside it. A directory that we make is as private.

    Args:
        path: The file.
        patience: Seconds for which a transaction waits for another process that writes.

    Raises:
        ConfigError: It cannot be used: no permission, not a store, damaged, or written by a newer version.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise ConfigError(f"--store needs SQLite 3.37 or newer; this Python has {sqlite3.sqlite_version}")
    _make(path)
    connection = _connect(path, "rw", patience)
    try:
        run = connection.execute
        if not run("PRAGMA page_count").fetchone()[0]:
            run(f"PRAGMA page_size = {PAGE_BYTES}")
            run("PRAGMA auto_vacuum = INCREMENTAL")
        check(connection, path)
        # Only now it is known to be ours, and not a file that others are meant to read.
        _make_private(path)
        run("PRAGMA journal_mode = WAL")
        # An acknowledged span must survive a loss of power, not only a crash of the process.
        run("PRAGMA synchronous = FULL")
        # Only macOS has this: there, a plain fsync does not reach the disk.
        run("PRAGMA fullfsync = ON")
        run("PRAGMA secure_delete = FAST")
        run(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        run(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        run(f"PRAGMA cache_size = {-CACHE_BYTES // 1024}")
        migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"--store: {path} cannot be used ({error})") from None
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a store for reading; another process may write it at the same time.

    The connection may be used by one thread at a time, whichever that is. It sees what was committed before its
    transaction began, and holds up no writer.

    Raises:
        ConfigError: There is no store, or it cannot be used.
    """
    if not path.exists():
        raise ConfigError(f"--store: there is no store at {path}; the processor makes one when it runs with --store")
    connection = _connect(path, "ro", BUSY_SECONDS)
    try:
        check(connection, path, at_least=VERSION)
        connection.execute(f"PRAGMA cache_size = {-CACHE_BYTES // 1024}")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"--store: {path} cannot be read ({error})") from None
    except BaseException:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path, *, at_least: int = 0) -> None:
    """Refuse what is not a store of ours, or not of a version that can be used.

    Raises:
        ConfigError: Another program's database, a newer version's store, or one of a version before `at_least`.
        sqlite3.Error: Not a database, or damaged.
    """
    ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise ConfigError(f"--store: {path} is the database of another program; choose another path")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if ours and version > VERSION:
        raise ConfigError(
            f"--store: {path} was written by a newer version (schema {version}, here {VERSION});"
            " use that version, or choose another path"
        )
    if version < at_least:
        raise ConfigError(
            f"--store: {path} was written by an older version (schema {version}, here {VERSION});"
            " start the processor with it once, which brings it up to date"
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Make what happens inside durable when the block ends, all of it or nothing. Only one writer is inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled back after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def beside(path: Path, what: str) -> Path:
    """Return a file beside a store's: its log (`wal`), the log's index (`shm`) or its `reserve`."""
    return path.with_name(f"{path.name}-{what}")


def size_on_disk(path: Path) -> int:
    """Return how many bytes the store takes, its log included."""
    size = 0
    for file in (path, beside(path, "wal"), beside(path, "shm")):
        # The log goes when the last process closes the store, at any moment.
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the log into the file and empty it, as far as readers let that happen at once.

    Raises:
        sqlite3.Error: It did not happen: no room.
    """
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_MILLISECONDS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(patience)}")


def is_full(error: sqlite3.Error) -> bool:
    """Say whether there is no room on the disk. (Python 3.10 knows no error codes of SQLite.)

    For want of room in a file's index or under a limit on file sizes SQLite speaks of an I/O error.
    """
    return "full" in str(error) or "disk I/O error" in str(error)


def is_damaged(error: sqlite3.Error) -> bool:
    """Say whether the file is not what SQLite wrote."""
    return "malformed" in str(error) or "not a database" in str(error)


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether another process holds the store's lock."""
    return "locked" in str(error) or "busy" in str(error)


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the files beside it the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _not_writable(path, error) from None


def _make_private(path: Path) -> None:
    try:
        for file in (path, beside(path, "wal"), beside(path, "shm")):
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mode & _OTHERS:
                    file.chmod(0o600)
    except OSError as error:
        raise _not_writable(path, error) from None


def _not_writable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--store: cannot write {path} ({error.strerror}); choose another path, or none")


def _connect(path: Path, mode: str, patience: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=patience,
            check_same_thread=False,
            cached_statements=1024,
        )
    except sqlite3.Error as error:
        raise ConfigError(f"--store: {path} cannot be opened ({error})") from None
