"""Files whose content is in use while the process runs: read again when they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.telemetry import logger

T = TypeVar("T")

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloading(Generic[T]):
    """What was made of some files, made anew when one of them changes. Safe to use from any thread.

    The files are looked at when the value is asked for, at most once a second; nothing runs in the background. A
    change is seen by time, size or inode, so a replaced file, a rewritten one and the symbolic links that Kubernetes
    swaps all count. What cannot be read is logged once, and the value before it stays in use.

    Args:
        paths: The files.
        read: Makes the value; raises `ConfigError`.
        clock: Returns seconds.
        every: Seconds between two looks.

    Raises:
        ConfigError: The value cannot be made the first time.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[], T],
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = 1.0,
    ) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._clock = clock
        self._every = every
        self._lock = threading.Lock()
        self._looked = clock()
        # Before the reading: a change between the two is seen at the next look.
        self._stamp = self._look()
        self._value = read()

    def get(self) -> T:
        """Return the value of the files as they are."""
        with self._lock:
            now = self._clock()
            if now - self._looked < self._every:
                return self._value
            self._looked = now
            stamp = self._look()
            if stamp == self._stamp:
                return self._value
            self._stamp = stamp
            try:
                self._value = self._read()
            except ConfigError as error:
                logger.error("%s; what was read before stays in use", error)
            else:
                logger.info("read again, because of a change: %s", ", ".join(str(path) for path in self._paths))
            return self._value

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
