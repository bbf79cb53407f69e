"""`@span`: a span around each call of a function, coroutine, generator or asynchronous generator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeVar, overload
from uuid import UUID

from opentelemetry import context as context_api

from neatlogs_otel._capture import CapturedItems, Mask, input_attributes, input_content, output_attributes
from neatlogs_otel._context import Attached
from neatlogs_otel._declaring import note_named, others_named
from neatlogs_otel._identity import EndUser, IdArgument, MetadataArgument, encode_session, end_user_from, finished
from neatlogs_otel._open_root import Declaration
from neatlogs_otel._tracing import OpenSpan, checked_kind, checked_mask, checked_name, open_span
from neatlogs_otel._warnings import shown, warn_once

F = TypeVar("F", bound=Callable[..., Any])


@overload
def span(name: F) -> F: ...


@overload
def span(
    name: str | None = None,
    *,
    kind: str = "CHAIN",
    end_user_id: IdArgument = None,
    end_user_metadata: MetadataArgument = None,
    session_id: str | int | UUID | Callable[..., Any] | None = None,
    capture_input: bool = False,
    capture_output: bool = False,
    mask: Mask | None = None,
) -> Callable[[F], F]: ...


def span(
    name: Any = None,
    *,
    kind: str = "CHAIN",
    end_user_id: IdArgument = None,
    end_user_metadata: MetadataArgument = None,
    session_id: str | int | UUID | Callable[..., Any] | None = None,
    capture_input: bool = False,
    capture_output: bool = False,
    mask: Mask | None = None,
) -> Any:
    """Opens a span around each call of the decorated function, and says which end user the call serves.

        @neatlogs.span(kind="WORKFLOW", end_user_id=lambda request: request.user.id)
        def chat(request): ...

    Bare (`@neatlogs.span`) or called; on functions, methods, coroutines, generators and asynchronous generators. Where
    the end user goes is decided as for `trace()`. A generator's span starts at its first step and ends with it; each
    step runs under the generator's own current span, and nothing stays current between the steps.

    Args:
        name: The span's name; by default the function's qualified name.
        kind: `"WORKFLOW"`, `"AGENT"`, `"CHAIN"`, `"TOOL"`, `"LLM"`, ...
        end_user_id: A callable, called for each call with the function's arguments: those that it names, where its
            parameters are names of the function's parameters, else all of them. Or a constant, which then serves
            every call: right for a process with one end user.
        end_user_metadata: A JSON object or such a callable.
        session_id: An id or such a callable.
        capture_input: Put the arguments on the span as `input.value`, without `self` and `cls`.
        capture_output: Put the result on the span as `output.value`; of a generator, what it yielded.
        mask: Covers what is captured here and inside, see `trace()`.
    """
    settings: dict[str, Any] = {
        "kind": kind,
        "end_user_id": end_user_id,
        "end_user_metadata": end_user_metadata,
        "session_id": session_id,
        "capture_input": capture_input,
        "capture_output": capture_output,
        "mask": mask,
    }
    if callable(name) or isinstance(name, (staticmethod, classmethod)):
        return _decorate(name, None, settings)
    return lambda function: _decorate(function, name, settings)


def _decorate(function: Any, name: object, settings: dict[str, Any]) -> Any:
    if isinstance(function, staticmethod):
        return staticmethod(_decorate(function.__func__, name, settings))
    if isinstance(function, classmethod):
        return classmethod(_decorate(function.__func__, name, settings))
    if not callable(function) or inspect.isclass(function):
        warn_once(
            "bad_argument",
            ("span", shown(name)),
            "@span cannot decorate a %s; it is left as it is. Decorate a function or method.",
            "class" if inspect.isclass(function) else type(function).__name__,
        )
        return function
    calls = _Calls(function, name, **settings)
    body = function if inspect.isroutine(function) or isinstance(function, functools.partial) else function.__call__
    if inspect.iscoroutinefunction(body):
        return _around_coroutine(function, calls)
    if inspect.isasyncgenfunction(body):
        return _around_async_generator(function, calls)
    if inspect.isgeneratorfunction(body):
        return _around_generator(function, calls)
    return _around_function(function, calls)


class _Calls:
    """What each call of one decorated function needs."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: object,
        *,
        kind: object,
        end_user_id: object,
        end_user_metadata: object,
        session_id: object,
        capture_input: bool,
        capture_output: bool,
        mask: object,
    ) -> None:
        qualified = str(getattr(function, "__qualname__", type(function).__name__)).rsplit("<locals>.", 1)[-1]
        self.name = qualified if name is None else checked_name(name, f"@span on {shown(qualified)}")
        self.place = f"@span {shown(self.name)}"
        self.signature = _signature(function)
        self.kind = checked_kind(kind, "CHAIN", self.place)
        self.capture_output = bool(capture_output)
        self.capture_input = bool(capture_input)
        self.mask = checked_mask(mask, self.place)
        self._id = _PerCall(end_user_id, self.signature) if callable(end_user_id) else None
        self._metadata = _PerCall(end_user_metadata, self.signature) if callable(end_user_metadata) else None
        self._session = _PerCall(session_id, self.signature) if callable(session_id) else None
        self._constant_id = None if self._id else end_user_id
        self._constant_metadata = None if self._metadata else end_user_metadata
        self._constant: EndUser | None = None
        if self._id is None and self._metadata is None:
            self._constant = end_user_from("span", end_user_id, end_user_metadata, place=self.place)
        self._constant_session = None if self._session else encode_session(session_id, place=self.place)
        self._served = 0

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpenSpan:
        """Open the span of one call. Never raises."""
        opened = open_span(
            self.name, kind=self.kind, place=self.place, declared=self._declared(args, kwargs), mask=self.mask
        )
        if self.capture_input and opened.span.is_recording():
            opened.put(input_attributes(input_content(self.signature, args, kwargs), place=self.place))
        return opened

    def _declared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Declaration:
        end_user = self._constant
        if self._id is not None or self._metadata is not None:
            end_user = end_user_from(
                "span",
                self._id.bound(args, kwargs) if self._id is not None else self._constant_id,
                self._metadata.bound(args, kwargs) if self._metadata is not None else self._constant_metadata,
                place=self.place,
            )
            note_named(end_user if self._id is not None else None)
        elif end_user is not None and end_user.id is not None:
            self._served += 1
            if self._served > 1 and others_named(end_user.id):
                warn_once(
                    "constant_end_user",
                    self.place,
                    "%s gives one constant end user to every call, in a process that serves others too. Pass a "
                    "callable, which gets the call's arguments: end_user_id=lambda request: request.user.id",
                    self.place,
                )
        session = self._constant_session
        if self._session is not None:
            session = encode_session(self._session.bound(args, kwargs), place=self.place)
        return Declaration(end_user, session)


class _PerCall:
    """A callable that gets the arguments of the decorated function."""

    def __init__(self, callable_: Any, function: inspect.Signature | None) -> None:
        self._callable = callable_
        self._function = function
        self._names = _names(_signature(callable_), function)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], object]:
        """The callable with one call's arguments."""
        return lambda: self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if self._names is None or self._function is None:
            return finished(self._callable(*args, **kwargs))
        given = self._function.bind(*args, **kwargs)
        given.apply_defaults()
        return finished(self._callable(**{name: given.arguments[name] for name in self._names}))


def _names(wanted: inspect.Signature | None, offered: inspect.Signature | None) -> tuple[str, ...] | None:
    """The parameters of the function that a callable names; `None` where it is to get all arguments as they are."""
    if wanted is None or offered is None:
        return None
    parameters = wanted.parameters.values()
    if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        return None
    known = {n for n, p in offered.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if any(p.default is p.empty and p.name not in known for p in parameters):
        return None
    return tuple(p.name for p in parameters if p.name in known)


def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _around_function(function: Callable[..., Any], calls: _Calls) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        opened = calls.open(args, kwargs)
        try:
            with opened.attached():
                result = function(*args, **kwargs)
            if calls.capture_output:
                opened.put(output_attributes(result, place=calls.place))
            return result
        except BaseException as error:
            opened.fail(error)
            raise
        finally:
            opened.end()

    return wrapper


def _around_coroutine(function: Callable[..., Awaitable[Any]], calls: _Calls) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        opened = calls.open(args, kwargs)
        try:
            with opened.attached():
                result = await function(*args, **kwargs)
            if calls.capture_output:
                opened.put(output_attributes(result, place=calls.place))
            return result
        except BaseException as error:
            opened.fail(error)
            raise
        finally:
            opened.end()

    return wrapper


class _GeneratorSpan:
    """The span of a generator, and the context that was current in its body at the last `yield`."""

    __slots__ = ("_attached", "_calls", "_context", "_items", "_opened")

    def __init__(self, calls: _Calls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._calls = calls
        self._opened = calls.open(args, kwargs)
        self._context = self._opened.context
        self._items = CapturedItems() if calls.capture_output and self._opened.span.is_recording() else None

    def __enter__(self) -> None:
        self._attached = Attached(self._context)
        self._attached.__enter__()

    def __exit__(self, *_: object) -> None:
        # The body may have opened spans of its own and yielded inside them.
        self._context = context_api.get_current()
        self._attached.__exit__(None, None, None)

    def yielded(self, item: Any) -> None:
        """Keep what the generator yielded, if that is wanted."""
        if self._items is not None:
            self._items.add(item)

    def fail(self, error: BaseException) -> None:
        """Record an error; `GeneratorExit` is none."""
        self._opened.fail(error)

    def end(self) -> None:
        """End the span."""
        if self._items is not None:
            self._opened.put(output_attributes(self._items.value(place=self._calls.place), place=self._calls.place))
        self._opened.end()


def _around_generator(
    function: Callable[..., Generator[Any, Any, Any]], calls: _Calls
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        steps = _GeneratorSpan(calls, args, kwargs)
        step: Callable[[], Any] = functools.partial(next, generator)
        try:
            while True:
                try:
                    with steps:
                        item = step()
                except StopIteration as stop:
                    return stop.value
                steps.yielded(item)
                try:
                    sent = yield item
                except BaseException as thrown:  # noqa: BLE001  # GeneratorExit too: the body decides what it means
                    step = functools.partial(generator.throw, thrown)
                else:
                    step = functools.partial(generator.send, sent)
        except BaseException as error:
            steps.fail(error)
            raise
        finally:
            steps.end()

    return wrapper


def _around_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], calls: _Calls
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        steps = _GeneratorSpan(calls, args, kwargs)
        step: Callable[[], Awaitable[Any]] = functools.partial(anext, generator)
        try:
            while True:
                try:
                    with steps:
                        item = await step()
                except StopAsyncIteration:
                    return
                steps.yielded(item)
                try:
                    sent = yield item
                except BaseException as thrown:  # noqa: BLE001  # GeneratorExit too: the body decides what it means
                    step = functools.partial(generator.athrow, thrown)
                else:
                    step = functools.partial(generator.asend, sent)
        except BaseException as error:
            steps.fail(error)
            raise
        finally:
            steps.end()

    return wrapper
