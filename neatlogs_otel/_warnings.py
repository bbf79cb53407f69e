"""What the shim says when something has no effect: once per place, bounded in number, never a value.

A server that makes the same mistake on every request must not fill a log, and nothing that goes wrong while warning may
reach the application. Every occurrence is counted, also where the log stays silent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from typing import Final

logger: Final = logging.getLogger("neatlogs_otel")

MAX_PLACES: Final = 1_000
"""How many places are remembered; beyond it new places are only counted."""

MAX_PER_MINUTE: Final = 30
"""How many places may speak up within a minute; the others are counted and speak up at their next occasion."""

MAX_SHOWN_NAME: Final = 100
"""Characters of a span or service name that a message shows."""


class _Said:
    """What was said so far in this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Hashes, because a place may hold a span's name, which has no bound.
        self.places: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.window_started = 0.0
        self.in_window = 0
        self.held_back = 0


_said = _Said()


def warn_once(topic: str, place: object, message: str, *args: object) -> None:
    """Count an occurrence of `topic` and log it, if this place has not spoken yet. Never raises.

    Args:
        topic: A short fixed name under which occurrences are counted: `"id_refused"`, `"declared_twice"`, ...
        place: What tells one place from another, besides the topic: a span's name, mostly.
        message: A logging format string: what had no effect, and what to do instead.
        *args: Its arguments. Names go through `shown()`; values of end users never appear.
    """
    try:
        held_back = _may_speak(topic, place)
        if held_back is None:
            return
        if held_back:
            message += " (%d other warnings were held back to keep this log short.)"
            args = (*args, held_back)
        logger.warning(message, *args)
    except Exception:  # noqa: BLE001, S110  # a place that cannot be hashed or a handler that raises is no reason to fail
        pass


def count(topic: str) -> int:
    """How often `topic` occurred in this process."""
    with _said.lock:
        return _said.counts[topic]


def counts() -> dict[str, int]:
    """How often each topic occurred in this process."""
    with _said.lock:
        return dict(_said.counts)


def reset() -> None:
    """Forget everything that was said and counted; for tests."""
    global _said  # One swap, so that a thread that is warning right now keeps a consistent object.
    _said = _Said()


def shown(name: object) -> str:
    """A span or service name as a message shows it: quoted, escaped, cut to `MAX_SHOWN_NAME` characters."""
    text = name if isinstance(name, str) else f"<{type(name).__name__}>"
    return ascii(text) if len(text) <= MAX_SHOWN_NAME else ascii(text[:MAX_SHOWN_NAME]) + "..."


def _may_speak(topic: str, place: object) -> int | None:
    """`None`: stay silent. Otherwise speak, and say how many places had to stay silent since."""
    said = _said
    with said.lock:
        said.counts[topic] += 1
        key = hash((topic, place))
        if key in said.places or len(said.places) >= MAX_PLACES:
            return None
        now = time.monotonic()
        if now - said.window_started >= 60.0 or said.in_window == 0:
            said.window_started, said.in_window = now, 0
        if said.in_window >= MAX_PER_MINUTE:
            said.held_back += 1
            return None
        said.in_window += 1
        said.places.add(key)
        held_back, said.held_back = said.held_back, 0
        return held_back


def _after_fork() -> None:
    # Another thread of the parent may have held the lock at the moment of the fork.
    _said.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
