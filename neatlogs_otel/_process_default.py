"""The process default: what `init()` or the environment gives to roots that nobody else claims."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from neatlogs_otel._identity import EndUser, encode_session, resolve
from neatlogs_otel._warnings import warn_once

END_USER_ID_VARIABLE: Final = "NEATLOGS_END_USER_ID"
END_USER_METADATA_VARIABLE: Final = "NEATLOGS_END_USER_METADATA"
SESSION_ID_VARIABLE: Final = "NEATLOGS_SESSION_ID"


@dataclass(frozen=True)
class ProcessDefault:
    """What a process that serves one end user gives to roots that nobody else claims.

    Attributes:
        end_user: The end user of a single-user process.
        session_id: An explicit session of the process, already encoded.
        auto_session: Give each trace whose identity comes from `end_user` the one generated session of this process.
    """

    end_user: EndUser | None = None
    session_id: str | None = None
    auto_session: bool = False

    def over(self, lower: ProcessDefault) -> ProcessDefault:
        """This default where it says something, else `lower`: an id and its metadata are one unit here too."""
        return ProcessDefault(
            resolve(self.end_user, lower.end_user, place="the process"),
            lower.session_id if self.session_id is None else self.session_id,
            self.auto_session or lower.auto_session,
        )


_default: ProcessDefault | None = None
_auto_session: str | None = None
_auto_session_lock = threading.Lock()


def set_process_default(default: ProcessDefault | None) -> ProcessDefault | None:
    """Set the process default; `None` takes it away, so that the environment's counts again.

    Returns:
        What was set before, for putting it back.
    """
    global _default  # One default per process.
    before, _default = _default, default
    return before


def process_default() -> ProcessDefault:
    """The process default. Where none was set, it is read from the environment, once."""
    global _default  # One default per process.
    if _default is None:
        _default = environment_default(os.environ)
    return _default


def environment_default(environ: Mapping[str, str]) -> ProcessDefault:
    """The process default of the environment variables; what cannot be used is refused with a warning. Never raises.

    Args:
        environ: `NEATLOGS_END_USER_ID`, `NEATLOGS_END_USER_METADATA` (a JSON object) and `NEATLOGS_SESSION_ID` are
            read; one that is blank counts as unset, as everywhere in OpenTelemetry.
    """
    end_user = EndUser.of("init", environ.get(END_USER_ID_VARIABLE), None, place=END_USER_ID_VARIABLE)
    if end_user is None or not end_user.refused:
        metadata = EndUser.of("init", None, _metadata(environ), place=END_USER_METADATA_VARIABLE)
        end_user = resolve(metadata, end_user)
    return ProcessDefault(end_user, encode_session(environ.get(SESSION_ID_VARIABLE), place=SESSION_ID_VARIABLE))


def _metadata(environ: Mapping[str, str]) -> Any:
    text = environ.get(END_USER_METADATA_VARIABLE, "").strip()
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"it is no JSON (character {error.pos})" if isinstance(error, json.JSONDecodeError) else "of its size"
        warn_once(
            "metadata_refused",
            END_USER_METADATA_VARIABLE,
            "end_user_metadata of %s is refused, because %s. The end user's id is not affected.",
            END_USER_METADATA_VARIABLE,
            reason,
        )
        return None


def auto_session_id() -> str:
    """The generated session id of this process: made at first use, another one after a fork."""
    global _auto_session  # One id per process.
    with _auto_session_lock:
        if _auto_session is None:
            _auto_session = str(uuid.uuid4())
        return _auto_session


def _after_fork() -> None:
    global _auto_session, _auto_session_lock  # A forked worker is another process.
    _auto_session, _auto_session_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
