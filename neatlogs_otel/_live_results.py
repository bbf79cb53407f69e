"""Results that outlive the call that returned them: streams, coroutines, context managers, unread responses.

Such a result is returned inside a proxy that looks like it (`isinstance` and attributes included). Each step on the
proxy (the next item, entering, leaving, any method) runs under the context of the call, wherever it is taken, and what
a step returns is treated in the same way. The call ends as `OpenCall` says.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from functools import lru_cache
from typing import Any

import wrapt
from opentelemetry import context as context_api

from neatlogs_otel._calls import OpenCall
from neatlogs_otel._context import Attached, Entered
from neatlogs_otel._warnings import warn_once

_CLOSING = frozenset({"close", "aclose"})
_STEPPING = frozenset({"send", "throw", "asend", "athrow"})


def finish(call: OpenCall, result: Any) -> Any:
    """Hand out what a call returned: as it is, with the call ended, or as a proxy that keeps the call open."""
    try:
        if _outlives(result):
            call.keep_open()
            return _linked(call, result)
    except Exception as error:  # noqa: BLE001  # a class that cannot be proxied; its object must still arrive
        kind = type(result).__name__
        warn_once(
            "wrap_result", kind, "The root span of a call that returned a %s ends now (%s).", kind, type(error).__name__
        )
    call.end()
    return result


def _linked(call: OpenCall, result: Any) -> Any:
    """A result of the call, or of one of its results, in the form that the application gets."""
    if isinstance(result, LiveResult) and result._self_call is call:
        return result
    if not _outlives(result):
        return result
    if inspect.iscoroutine(result):
        # Not a proxy: the event loop wants a real coroutine.
        return _in_place_of(result, _await(call, result))
    if asyncio.isfuture(result):
        # Already running, in a copy of the call's context; a proxy would confuse the event loop.
        result.add_done_callback(lambda future: _future_done(call, future))
        return result
    kind: Any = type(result)
    return _proxy_class(kind)(result, call)


def _outlives(result: Any) -> bool:
    kind = type(result)
    if any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__")):
        return True
    try:
        closed = getattr(result, "is_closed", None)
        if (hasattr(kind, "__enter__") and hasattr(kind, "__exit__")) or (
            hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")
        ):
            return closed is not True and getattr(result, "closed", None) is not True
        # An HTTP response whose body was not read yet, as clients return it for "raw" calls.
        return closed is False
    except Exception:  # noqa: BLE001  # a property of a foreign object
        return False


def itself(wrapped: Any) -> Any:
    """What unpickling a proxy calls."""
    return wrapped


def _future_done(call: OpenCall, future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        call.record(error)
    call.end()


async def _await(call: OpenCall, awaitable: Awaitable[Any]) -> Any:
    """Await what the call returned, and treat its result as the call's."""
    try:
        with Entered(call.context):
            result = await awaitable
    except BaseException as error:
        call.record(error)
        call.end()
        raise
    return finish(call, result)


def _in_place_of(awaitable: Any, ours: Any) -> Any:
    """Our coroutine, which awaits the application's one, under its name.

    A task may be cancelled before its first step. Then nothing of ours runs, and Python would complain that the inner
    coroutine was never awaited.
    """
    if inspect.iscoroutine(awaitable):
        ours.__name__, ours.__qualname__ = awaitable.__name__, awaitable.__qualname__
        weakref.finalize(ours, _close_unstarted, awaitable).atexit = False
    return ours


def _close_unstarted(coroutine: Coroutine[Any, Any, Any]) -> None:
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


# wrapt 2 has a base without `__iter__`, so that a proxy is iterable only if its object is. Typed as Any: wrapt 2 is
# generic here, and wrapt 1 is not typed at all.
_Proxy: Any = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)


class LiveResult(_Proxy):  # type: ignore[misc]  # wrapt ships no types
    """A proxy of something that belongs to an open call. `_proxy_class` adds the protocols that the object has."""

    def __init__(self, wrapped: Any, call: OpenCall) -> None:
        super().__init__(wrapped)
        self._self_call = call
        self._self_is_generator = inspect.isgenerator(wrapped) or inspect.isasyncgen(wrapped)
        self._self_context = call.context

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name.startswith("_") or not inspect.isroutine(value):
            return value
        ends, steps = name in _CLOSING, name in _STEPPING

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._self_step(lambda: value(*args, **kwargs), ends=ends, fatal=ends or steps)

        return method

    # A copy or pickle is one of the plain object: the call ends with the result that it has returned.

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce__(self) -> Any:
        return itself, (self.__wrapped__,)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    # A step.

    def _self_step(self, step: Callable[[], Any], *, ends: bool = False, fatal: bool = False) -> Any:
        """Take one step under the call's context.

        Args:
            step: What to do.
            ends: The call is over afterwards, whatever happens.
            fatal: An error means that no further step can succeed.
        """
        call = self._self_call
        try:
            with Attached(self._self_context):
                result = step()
                self._self_keep_context()
        except (StopIteration, StopAsyncIteration):
            call.exhausted()
            raise
        except BaseException as error:
            call.record(error)
            if fatal:
                call.end()
            raise
        if inspect.isawaitable(result):
            return _in_place_of(result, self._self_async_step(result, ends=ends, fatal=fatal))
        if ends:
            call.end()
        return self if result is self.__wrapped__ else _linked(call, result)

    async def _self_async_step(self, awaitable: Awaitable[Any], *, ends: bool, fatal: bool) -> Any:
        call = self._self_call
        try:
            with Attached(self._self_context):
                result = await awaitable
                self._self_keep_context()
        except StopAsyncIteration:
            call.exhausted()
            raise
        except BaseException as error:
            call.record(error)
            if fatal:
                call.end()
            raise
        if ends:
            call.end()
        return self if result is self.__wrapped__ else _linked(call, result)

    def _self_keep_context(self) -> None:
        # A generator may hold a span of its own across a `yield`; its next step continues under it.
        if self._self_is_generator:
            self._self_context = context_api.get_current()


# The protocols: functions that become methods of a proxy class whose objects have them.


def _iter(self: LiveResult) -> Any:
    iterator = iter(self.__wrapped__)
    return self if iterator is self.__wrapped__ else _linked(self._self_call, iterator)


def _next(self: LiveResult) -> Any:
    return self._self_step(self.__wrapped__.__next__, fatal=True)


def _aiter(self: LiveResult) -> Any:
    iterator = self.__wrapped__.__aiter__()
    return self if iterator is self.__wrapped__ else _linked(self._self_call, iterator)


def _anext(self: LiveResult) -> Any:
    return self._self_step(self.__wrapped__.__anext__, fatal=True)


def _await_proxy(self: LiveResult) -> Generator[Any, Any, Any]:
    return _await(self._self_call, self.__wrapped__).__await__()


def _enter(self: LiveResult) -> Any:
    entered = self._self_step(self.__wrapped__.__enter__, fatal=True)
    self._self_call.enter()
    return entered


def _exit(self: LiveResult, kind: Any, error: Any, traceback: Any) -> Any:
    call = self._self_call
    if error is not None:
        call.record(error)
    try:
        return self._self_step(lambda: self.__wrapped__.__exit__(kind, error, traceback))
    finally:
        call.leave()


async def _aenter(self: LiveResult) -> Any:
    entered = await self._self_step(self.__wrapped__.__aenter__, fatal=True)
    self._self_call.enter()
    return entered


async def _aexit(self: LiveResult, kind: Any, error: Any, traceback: Any) -> Any:
    call = self._self_call
    if error is not None:
        call.record(error)
    try:
        return await self._self_step(lambda: self.__wrapped__.__aexit__(kind, error, traceback))
    finally:
        call.leave()


_METHODS: dict[str, Callable[..., Any]] = {
    "__iter__": _iter,
    "__next__": _next,
    "__aiter__": _aiter,
    "__anext__": _anext,
    "__await__": _await_proxy,
    "__enter__": _enter,
    "__exit__": _exit,
    "__aenter__": _aenter,
    "__aexit__": _aexit,
}


@lru_cache(maxsize=256)
def _proxy_class(kind: Hashable) -> type[LiveResult]:
    """The proxy class for objects of `kind`: libraries ask for a protocol by looking for its methods."""
    methods = {name: method for name, method in _METHODS.items() if hasattr(kind, name)}
    return type("LiveResult", (LiveResult,), methods)
