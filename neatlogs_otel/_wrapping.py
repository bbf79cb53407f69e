"""`wrap()`: each outermost call on a client becomes a trace of its own."""

from __future__ import annotations

import copy
import enum
import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import wrapt

from neatlogs_otel._calls import start_call
from neatlogs_otel._context import Entered
from neatlogs_otel._instrumentors import activate_instrumentor, libraries_of
from neatlogs_otel._live_results import LiveResult, finish, itself
from neatlogs_otel._warnings import warn_once

T = TypeVar("T")

# Typed as Any: wrapt 2 is generic here, and wrapt 1 is not typed at all.
_ObjectProxy: Any = wrapt.ObjectProxy

# Methods that do no work worth a trace: they return a changed copy of the client, or look after its connections.
_WITHOUT_ROOT = frozenset({"copy", "close", "aclose", "is_closed"})
_COPY_PREFIX = "with_"

_DATA = (str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, enum.Enum, BaseException)


def wrap(client_or_callable: T, *, instrument: bool = True) -> T:
    """Gives every outermost call on a client, or of a callable, a root span, so that it can have an end user.

        client = neatlogs.wrap(OpenAI())
        with neatlogs.identify(end_user_id=user.id):
            client.chat.completions.create(...)     # one trace, whose root names the user

    A call gets a root only where no span is active; inside `trace()` or an instrumented request it runs as it always
    did. The end user comes from `identify()` or `init()`. The root is named after the call
    (`OpenAI.chat.completions.create`), records an exception that the call raises, and stays open while a returned
    stream, context manager or coroutine is in use: until it is exhausted, closed or dropped. What runs on behalf of
    the call, in whatever thread or task the stream is consumed, lands below the root.

    The result behaves as the client does: `isinstance`, attributes, nested resources, `with`, `with_options()` and its
    like, synchronous and asynchronous.

    Args:
        client_or_callable: A client (of OpenAI, Anthropic, ...; or any object with methods), a function, a coroutine
            function, a generator function, or a class, whose instances are then wrapped.
        instrument: Activate the installed instrumentor of the client's library (OpenInference's before
            OpenTelemetry's), unless one is active already, so that model, tokens and messages are recorded below the
            root. An instrumentor affects every client of the process, not only this one.

    Returns:
        A proxy of the same type as far as `isinstance` can tell. What cannot be wrapped (a number, say) is returned as
        it is, with a warning. Nothing here raises.
    """
    if isinstance(client_or_callable, (_Client, _Method, LiveResult)):
        return client_or_callable
    if client_or_callable is None or isinstance(client_or_callable, (*_DATA, ModuleType)):
        kind = type(client_or_callable).__name__
        warn_once(
            "wrap_unusable", kind, "wrap() needs a client or a callable, not a %s; it is returned as it is.", kind
        )
        return client_or_callable
    if instrument:
        activate_instrumentor(client_or_callable)
    try:
        wrapped: T = _wrapped(client_or_callable)
        return wrapped
    except Exception as error:  # noqa: BLE001  # an object that cannot be proxied must still work for its owner
        kind = type(client_or_callable).__name__
        warn_once("wrap_unusable", kind, "wrap() cannot wrap a %s (%s).", kind, type(error).__name__)
        return client_or_callable


def _wrapped(target: Any) -> Any:
    if isinstance(target, type):
        return _Method(target, target.__name__, libraries_of(target), builds=True)
    if inspect.isroutine(target):
        name = str(getattr(target, "__qualname__", type(target).__name__)).rpartition("<locals>.")[2]
        return _Method(target, name, libraries_of(target), builds=False)
    if isinstance(target, functools.partial):
        return _client(target, getattr(target.func, "__name__", "partial"), libraries_of(target.func))
    return _client(target, type(target).__name__, libraries_of(target))


def _client(target: Any, name: str, libraries: frozenset[str]) -> Any:
    return (_CallableClient if callable(target) else _Client)(target, name, libraries)


class _Client(_ObjectProxy):  # type: ignore[misc]  # wrapt ships no types
    """A client, or one of the resources that hang on it (`client.chat.completions`).

    Attributes:
        _self_name: What the names of roots begin with.
        _self_libraries: The top-level packages of the client's classes: what belongs to them is a part of the client.
        _self_parts: Proxies handed out, so that `client.chat is client.chat` stays true.
    """

    def __init__(self, wrapped: Any, name: str, libraries: frozenset[str]) -> None:
        super().__init__(wrapped)
        self._self_name = name
        self._self_libraries = libraries
        self._self_parts: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name.startswith("_"):
            return value
        try:
            return self._self_part(name, value)
        except Exception:  # noqa: BLE001  # an attribute that cannot be examined is handed out as it is
            return value

    def _self_part(self, name: str, value: Any) -> Any:
        part = self._self_parts.get(name)
        if part is not None and part.__wrapped__ is value:
            return part
        if inspect.isroutine(value):
            builds = name in _WITHOUT_ROOT or name.startswith(_COPY_PREFIX)
            return _Method(value, f"{self._self_name}.{name}", self._self_libraries, builds=builds, owner=self)
        if not _is_resource(value, self._self_libraries):
            return value
        part = self._self_parts[name] = _client(value, f"{self._self_name}.{name}", self._self_libraries)
        return part

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered

    def __copy__(self) -> Any:
        return type(self)(copy.copy(self.__wrapped__), self._self_name, self._self_libraries)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)(copy.deepcopy(self.__wrapped__, memo), self._self_name, self._self_libraries)

    def __reduce__(self) -> Any:
        # A pickle holds the client itself: whoever loads it decides whether to wrap it.
        return itself, (self.__wrapped__,)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


class _CallableClient(_Client):
    """A client that is also called itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _call(self._self_name, self.__wrapped__, args, kwargs)


class _Method(_ObjectProxy):  # type: ignore[misc]  # wrapt ships no types
    """A function, method or class.

    Attributes:
        _self_builds: It makes clients instead of doing work, so it gets no root.
        _self_owner: The proxy that it was taken from, to be handed out where it returns its own object.
    """

    def __init__(
        self, wrapped: Any, name: str, libraries: frozenset[str], *, builds: bool, owner: _Client | None = None
    ) -> None:
        super().__init__(wrapped)
        self._self_name = name
        self._self_libraries = libraries
        self._self_builds = builds
        self._self_owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._self_builds:
            result = _call(self._self_name, self.__wrapped__, args, kwargs)
        else:
            result = self.__wrapped__(*args, **kwargs)
        owner = self._self_owner
        if owner is not None and result is owner.__wrapped__:
            return owner
        if not self._self_builds or not _belongs(result, self._self_libraries):
            return result
        # Named as the client, not as the method: a copy is as good as its original.
        return _client(result, self._self_name.rpartition(".")[0] or self._self_name, self._self_libraries)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.__wrapped__)

    def __subclasscheck__(self, subclass: Any) -> bool:
        return issubclass(subclass, self.__wrapped__)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # A wrapped function that is a class's attribute binds as any function does.
        bound = self.__wrapped__.__get__(instance, owner)
        return _Method(bound, self._self_name, self._self_libraries, builds=self._self_builds)

    def __copy__(self) -> Any:
        return self._self_copy(copy.copy(self.__wrapped__), self._self_owner)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._self_copy(copy.deepcopy(self.__wrapped__, memo), copy.deepcopy(self._self_owner, memo))

    def _self_copy(self, wrapped: Any, owner: _Client | None) -> Any:
        if wrapped is self.__wrapped__:
            return self  # A function or class is its own copy.
        return _Method(wrapped, self._self_name, self._self_libraries, builds=self._self_builds, owner=owner)

    def __reduce__(self) -> Any:
        # Used as a decorator, the proxy is what is found under the function's name, as pickle demands.
        found = sys.modules.get(str(getattr(self, "__module__", None)))
        name = str(getattr(self, "__qualname__", ""))
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (itself, (self.__wrapped__,))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _call(name: str, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = start_call(name)
    if call is None:
        return target(*args, **kwargs)
    try:
        with Entered(call.context):
            result = target(*args, **kwargs)
    except BaseException as error:
        call.record(error)
        call.end()
        raise
    return finish(call, result)


def _belongs(value: Any, libraries: frozenset[str]) -> bool:
    return value is not None and not isinstance(value, (*_DATA, type)) and bool(libraries & libraries_of(value))


def _is_resource(value: Any, libraries: frozenset[str]) -> bool:
    """Whether an attribute is a part of the client that has methods of its own, rather than data."""
    if not _belongs(value, libraries):
        return False
    kind = type(value)
    is_record = any(hasattr(kind, name) for name in ("__dataclass_fields__", "__pydantic_fields__", "_fields"))
    # `__slots__`-less sentinels such as a library's NOT_GIVEN are compared by identity and have no methods.
    has_methods = any(inspect.isroutine(getattr(kind, name, None)) for name in dir(kind) if not name.startswith("_"))
    return not is_record and has_methods
