"""The file of the keys that pseudonyms are made with, read again when it changes."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from pathlib import Path

from neatlogs_processor.core.pseudonyms import PseudonymKeys, parse_keys
from neatlogs_processor.errors import ConfigError
from neatlogs_processor.reloading import Reloading
from neatlogs_processor.telemetry import logger

_FLAG = "--pseudonymize-key-file"


def current_keys(path: Path, *, clock: Callable[[], float] = time.monotonic) -> Callable[[], PseudonymKeys]:
    """Return what returns the keys of the file as it is now; see `Reloading`.

    Args:
        path: The file.
        clock: Returns seconds.

    Raises:
        ConfigError: The file cannot be used.
    """
    return Reloading([path], lambda: read_keys(path), clock=clock).get


def read_keys(path: Path) -> PseudonymKeys:
    """Read the keys of `--pseudonymize-key-file`; see `parse_keys`.

    Raises:
        ConfigError: The file cannot be used. The message names the line and repeats nothing of it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        readable_by_all = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise ConfigError(f"{_FLAG}: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{_FLAG}: {path} is not UTF-8 text") from None
    if readable_by_all:
        logger.warning("%s: every user of this machine can read %s; chmod o-r takes that away", _FLAG, path)
    try:
        return parse_keys(text)
    except ValueError as error:
        raise ConfigError(f"{_FLAG}: {path}: {error}") from None
