"""The queue's directory: who may read it, who holds it, and what is put aside in it.

queue.v1.sqlite (-wal, -shm)   the requests; the number is the version of the schema
journal.v1.0, journal.v1.1     the newest ones, while a processor runs or after one was killed (see `Journal`)
lock                           held (flock) by the one process that may write; names its pid
holding.v1.sqlite (-wal, -shm) spans that wait for the root of their trace (see `neatlogs_processor.holding`)
reserve                        room that is given up when the disk is full, so that deleting still works
corrupt-...                    files that were damaged, kept for whoever wants to look
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
from pathlib import Path

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.telemetry import logger

VERSION = 1
RESERVE_BYTES = 4 * 2**20
"""Deleting writes to the log before it frees anything; this is several times what one transaction needs."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OURS = ("queue.v", "journal.v", "holding.v", "lock", "reserve", "corrupt-", "recovering-", "lost+found")


class QueueDirectory:
    """A directory that this process holds alone, until `close`.

    Args:
        path: The directory; it is made where it does not exist, its parent is not.

    Raises:
        ConfigError: It cannot be used, it belongs to something else, or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prepare()
        self._lock = self._take()

    @property
    def database(self) -> Path:
        """The file with the requests."""
        return database_in(self.path)

    @property
    def journal(self) -> tuple[Path, Path]:
        """The two files of the journal."""
        return journal_in(self.path)

    def close(self) -> None:
        """Let another process have the directory."""
        os.close(self._lock)

    def make_private(self) -> None:
        """Create the database's file, if it is not there, such that nobody else can read it.

        SQLite gives the files beside it the same permissions.
        """
        os.close(os.open(self.database, os.O_RDWR | os.O_CREAT, 0o600))
        self.database.chmod(0o600)

    def set_aside(self) -> Path:
        """Move the database's files to a folder of their own and return it; see `rescued`."""
        folder = self.new_folder("recovering")
        for suffix in ("", "-wal", "-shm"):
            file = self.database.with_name(self.database.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                file.rename(folder / file.name)
        return folder

    def new_folder(self, what: str) -> Path:
        """Make a folder whose name begins with `what` and return it."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for number in itertools.count(1):
            folder = self.path / f"{what}-{stamp}-{number}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                break
        return folder

    def unrescued(self) -> list[Path]:
        """Return the folders that a process left before it had taken over what they hold."""
        return sorted(self.path.glob("recovering-*"))

    def rescued(self, folder: Path) -> Path:
        """Write down that a folder holds nothing any more that must go on; return its new name."""
        return folder.rename(self.path / folder.name.replace("recovering-", "corrupt-", 1))

    def has_room(self, size: int) -> bool:
        """Say whether the disk has room for so many bytes.

        What is in the database's log already has to reach the file as well: a log that cannot be emptied could only
        grow, even by deletions.
        """
        log = self.database.with_name(self.database.name + "-wal")
        try:
            return self.room() >= size + log.stat().st_size
        except OSError:
            # SQLite will find out.
            return True

    def room(self) -> int:
        """Return how many bytes the disk has for us.

        Raises:
            OSError: It does not say.
        """
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def keep_reserve(self) -> bool:
        """Take the reserve, and say whether the disk has room for it."""
        reserve = self.path / "reserve"
        with contextlib.suppress(FileNotFoundError):
            if reserve.stat().st_size == RESERVE_BYTES:
                return True
        try:
            file = os.open(reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                # Zeros that were really written: a hole in a file holds no room.
                os.pwrite(file, bytes(RESERVE_BYTES), 0)
                if os.fstat(file).st_size != RESERVE_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:
            self.give_up_reserve()
            return False
        return True

    def give_up_reserve(self) -> None:
        """Let deletions have the room."""
        with contextlib.suppress(OSError):
            (self.path / "reserve").unlink()

    def _prepare(self) -> None:
        path = self.path
        try:
            path.mkdir(mode=0o700)
            return
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise ConfigError(f"--queue-dir: the folder of {path} does not exist; create it first") from None
        except OSError as error:
            raise ConfigError(f"--queue-dir: cannot create {path} ({error.strerror})") from None
        if not path.is_dir():
            raise ConfigError(f"--queue-dir: {path} is not a directory; choose another path")
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            raise ConfigError(f"--queue-dir: cannot read {path} ({error.strerror})") from None
        # Its permissions are about to be narrowed, which must not happen to somebody's home.
        foreign = [name for name in names if not name.startswith(_OURS)]
        if foreign:
            raise ConfigError(
                f"--queue-dir: {path} holds other files ({foreign[0]!r}); the queue needs a directory of its own"
            )
        for name in names:
            if name.startswith(("queue.v", "journal.v")) and f".v{VERSION}." not in name:
                raise ConfigError(
                    f"--queue-dir: {path} holds the queue of another version of the processor ({name!r});"
                    " deliver it with that version first, or choose another directory"
                )
        if path.stat().st_mode & _OTHERS:
            try:
                path.chmod(0o700)
            except OSError as error:
                logger.warning(
                    "--queue-dir: %s can be read by others and cannot be made private (%s); its files are",
                    path,
                    error.strerror,
                )

    def _take(self) -> int:
        path = self.path / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"--queue-dir: cannot write to {self.path} ({error.strerror})") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ConfigError(f"--queue-dir: {self.path} cannot be locked ({error.strerror})") from None
            raise ConfigError(
                f"--queue-dir: {self.path} is in use by another process (pid {_holder(path)}); stop it first,"
                " or choose another directory"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock


def database_in(path: Path) -> Path:
    """Return the file with the requests."""
    return path / f"queue.v{VERSION}.sqlite"


def journal_in(path: Path) -> tuple[Path, Path]:
    """Return the two files of the journal, which need not be there."""
    return path / f"journal.v{VERSION}.0", path / f"journal.v{VERSION}.1"


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="ascii").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"
