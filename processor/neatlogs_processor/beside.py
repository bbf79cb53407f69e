"""Work beside the event loop that nobody leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def beside(work: Callable[[], T]) -> T:
    """Do some work in a thread, and return what it returns or raise what it raises.

    A thread cannot be broken off. Whoever is cancelled meanwhile is so when the work is done: what it holds counts as
    in flight until then, or clients that leave at once could pile up work without a bound.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled = False
    while not working.done():
        try:
            await asyncio.wait((working,))
        except asyncio.CancelledError:  # noqa: PERF203  # once or twice in the life of a request
            cancelled = True
    if cancelled:
        working.exception()  # looked at, so that nobody warns of it
        raise asyncio.CancelledError
    return working.result()
