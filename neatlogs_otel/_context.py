"""Attaching an OpenTelemetry context for the length of a block."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

from opentelemetry import context as context_api
from opentelemetry.context import Context

_here: ContextVar[None] = ContextVar("neatlogs_otel_here")


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
        try:
            _here.reset(self._mark)
        except (ValueError, RuntimeError):
            if context_api.get_current() is self._context:
                context_api.attach(self._before)
        else:
            context_api.detach(self._token)
