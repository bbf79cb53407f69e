"""Attaching an OpenTelemetry context for the length of a block, in whatever order and wherever blocks are left."""

from __future__ import annotations

import weakref
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Generic, TypeVar

from opentelemetry import context as context_api
from opentelemetry.context import Context

T = TypeVar("T")

_here: ContextVar[None] = ContextVar("neatlogs_otel_here")
_PLACE: Final = context_api.create_key("neatlogs-otel-place")


class Attached:
    """Makes `context` the current one inside the block, wherever the block is left.

    A generator that is abandoned inside a block is closed by the event loop or the garbage collector, in another
    `contextvars.Context` than the one it was entered in. There `opentelemetry.context.detach` cannot work and logs an
    error with a traceback; this class notices first, and sees that what it attached does not stay behind.
    """

    __slots__ = ("_before", "_context", "_mark", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._before = context_api.get_current()
        self._mark: Token[None] = _here.set(None)
        self._token = context_api.attach(self._context)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.leave_if_here():
            self.leave_elsewhere()

    def leave_if_here(self) -> bool:
        """Restore what was current before, if this is the `contextvars.Context` of the entry; else do nothing."""
        try:
            _here.reset(self._mark)
        except (ValueError, RuntimeError):
            return False
        context_api.detach(self._token)
        return True

    def leave_elsewhere(self) -> None:
        """Leave from another `contextvars.Context` than that of the entry."""
        if context_api.get_current() is self._context:
            context_api.attach(self._before)


class _Place:
    """Where a block has attached its context; it travels in that context, so that others find out that it was left."""

    __slots__ = ("before", "context", "left")

    before: Context
    context: weakref.ref[Context]  # Weak, because the context holds this object.

    def __init__(self) -> None:
        self.left = False


class Entered(Attached):
    """As `Attached`, for blocks that the application may leave in another order than it has entered them.

    Two generators that hold a block across a `yield` and are consumed in turn do that. Restoring what was current at
    the entry then brings back a block that has been left since, and with it another request's end user; forever,
    because nobody leaves it again. So a block that was left is passed over.
    """

    __slots__ = ("_place",)

    def __init__(self, context: Context) -> None:
        self._place = _Place()
        super().__init__(context_api.set_value(_PLACE, self._place, context))
        self._place.context = weakref.ref(self._context)

    def __enter__(self) -> None:
        super().__enter__()
        self._place.before = self._before

    def leave_if_here(self) -> bool:
        """As `Attached.leave_if_here`, past blocks that were left meanwhile."""
        left = super().leave_if_here()
        if left:
            self._pass_over()
        return left

    def leave_elsewhere(self) -> None:
        """As `Attached.leave_elsewhere`, past blocks that were left meanwhile."""
        super().leave_elsewhere()
        self._pass_over()

    def _pass_over(self) -> None:
        self._place.left = True
        # Shortened, so that blocks which overlap without end do not hold each other's contexts without end.
        self._place.before = _still_entered(self._before)
        current = context_api.get_current()
        wanted = _still_entered(current)
        if wanted is not current:
            context_api.attach(wanted)


class Entries(Generic[T]):
    """What one context manager object has open: it may be entered again, also by several threads and tasks at once."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[Entered, T]] = []

    def enter(self, context: Context, what: T) -> None:
        """Make `context` current, and keep `what` until this entry is left."""
        entered = Entered(context)
        entered.__enter__()
        self._entries.append((entered, what))

    def leave(self) -> T | None:
        """Leave the newest entry of the current thread or task, else (see `Attached`) the newest one.

        Returns:
            What was kept with it; `None` where nothing is open.
        """
        for entry in reversed(self._entries.copy()):
            if entry[0].leave_if_here():
                self._entries.remove(entry)
                return entry[1]
        try:
            entered, what = self._entries.pop()
        except IndexError:
            return None
        entered.leave_elsewhere()
        return what


def _still_entered(context: Context) -> Context:
    """The context itself, or where its block was left the nearest one around it whose block was not."""
    while True:
        place = context_api.get_value(_PLACE, context)
        if not isinstance(place, _Place) or not place.left or place.context() is not context:
            return context
        context = place.before
