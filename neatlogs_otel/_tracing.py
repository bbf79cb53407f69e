"""`trace()`, and the one way in which the shim opens a span."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from uuid import UUID

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode

from neatlogs_otel import _registry, conventions
from neatlogs_otel._capture import Mask, masked
from neatlogs_otel._context import Entered, Entries
from neatlogs_otel._declaring import Block, note_named, open_block, settle, with_declaration
from neatlogs_otel._identity import IdArgument, MetadataArgument, encode_session, end_user_from
from neatlogs_otel._open_root import Declaration, OpenRoot
from neatlogs_otel._provider import tracer
from neatlogs_otel._warnings import shown, warn_once


class OpenSpan:
    """A span that the shim has opened: started, not yet attached anywhere, to be ended once.

    Attributes:
        span: The OpenTelemetry span; a non-recording one where the trace is sampled out or nothing is set up.
        context: The context in which the span is the current one.
        masks: What covers content captured under it, the innermost first.
        place: The call that opened it, as a warning names it.
    """

    __slots__ = ("_block", "_own_root", "context", "masks", "place", "span")

    def __init__(self, span: Span, context: Context, block: Block, own_root: OpenRoot | None) -> None:
        self.span = span
        self.context = context
        self.masks = block.masks
        self.place = block.place
        self._block = block
        self._own_root = own_root

    def attached(self) -> Entered:
        """A `with` block inside which the span is the current one. Any number of times, one after the other."""
        return Entered(self.context)

    def put(self, content: Mapping[str, Any]) -> None:
        """Put captured content on the span, after the masks."""
        if not content or not self.span.is_recording():
            return
        try:
            self.span.set_attributes(masked(content, self.masks, place=self.place))
        except Exception as error:  # noqa: BLE001  # what a mask left may raise when the SDK turns it into text
            _say_dropped(self.place, error)

    def fail(self, error: BaseException) -> None:
        """Record what ended the span as OpenTelemetry does: an `Exception` is an error, other exceptions are not."""
        if not isinstance(error, Exception) or not self.span.is_recording():
            return
        try:
            self.span.record_exception(error)
            self.span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        except Exception:  # noqa: BLE001  # the application's __str__ may raise; its own error must get through
            self.span.set_status(Status(StatusCode.ERROR, type(error).__name__))

    def end(self) -> None:
        """End the span. Calling it again does nothing. Never raises."""
        if not self._block.open:
            return
        self._block.open = False
        try:
            root = self._block.root
            if root is not None and _registry.registry.knows(root):
                root.restore()
            self.span.end()
        except Exception as error:  # noqa: BLE001  # some other span processor's error
            warn_once("end_failed", self.place, "%s while ending %s.", type(error).__name__, self.place)
        finally:
            if self._own_root is not None:
                _registry.registry.close(self.span.get_span_context())


def open_span(
    name: str,
    *,
    kind: str,
    place: str,
    declared: Declaration | None = None,
    mask: Mask | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> OpenSpan:
    """Start a span in the current context and settle what it declares. Never raises.

    Args:
        name: The span's name.
        kind: `"WORKFLOW"`, `"CHAIN"`, ...; written lower-case and in capitals under its two keys.
        place: The call as warnings name it: `trace('chat')`.
        declared: The end user, session and tags that it declares.
        mask: Covers the content that the shim captures on this span and on spans opened by `trace()` and `@span`
            inside it.
        attributes: Attributes of the application; they are content, so they pass the masks.
    """
    declared = declared or Declaration()
    attributes = attributes or {}
    parent = trace_api.get_current_span().get_span_context()
    enclosing = open_block(parent.trace_id) if parent.is_valid else None
    masks = ((mask,) if mask is not None else ()) + (enclosing.masks if enclosing is not None else ())
    own_root: OpenRoot | None = None
    root: OpenRoot | None = None
    span: Span = INVALID_SPAN
    try:
        raw_identity_counts = not parent.is_valid and declared.end_user is None
        content = masked(
            attributes if raw_identity_counts else _without_identity(attributes, place), masks, place=place
        )
        kinds = {conventions.SPAN_KIND: kind.lower(), conventions.OPENINFERENCE_SPAN_KIND: kind.upper()}
        context = with_declaration(declared)
        try:
            span = tracer().start_span(name, context=context, attributes={**content, **kinds})
        except Exception as error:
            if not content:
                raise
            _say_dropped(place, error)
            span = tracer().start_span(name, context=context, attributes=kinds)
        root = settle(
            span,
            parent,
            declared,
            place=place,
            enclosing=(enclosing.place, enclosing.root) if enclosing is not None else None,
        )
        if root is not None and root.span is span:
            own_root = root
    except Exception as error:  # noqa: BLE001  # a sampler or another span processor may raise; the work must go on
        warn_once("start_failed", place, "%s while opening %s.", type(error).__name__, place)
    block = Block(span.get_span_context().trace_id, place, root, masks)
    return OpenSpan(span, block.attached_to(trace_api.set_span_in_context(span)), block, own_root)


class Trace:
    """What `trace()` returns: a context manager, for `with` and `async with`, that yields the span."""

    __slots__ = ("_attributes", "_entries", "_identity", "_kind", "_mask", "_name", "_tags")

    def __init__(
        self,
        name: str,
        kind: str,
        identity: tuple[object, object, object],
        tags: object,
        mask: Mask | None,
        attributes: Mapping[str, Any],
    ) -> None:
        self._name = name
        self._kind = kind
        self._identity = identity
        self._tags = tags
        self._mask = mask
        self._attributes = attributes
        self._entries: Entries[OpenSpan] = Entries()

    def __enter__(self) -> Span:
        place = f"trace({shown(self._name)})"
        end_user_id, end_user_metadata, session_id = self._identity
        end_user = end_user_from("trace", end_user_id, end_user_metadata, place=place)
        note_named(end_user)
        declared = Declaration(end_user, encode_session(session_id, place=place), _checked_tags(self._tags, place))
        opened = open_span(
            self._name, kind=self._kind, place=place, declared=declared, mask=self._mask, attributes=self._attributes
        )
        self._entries.enter(opened.context, opened)
        return opened.span

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened = self._entries.leave()
        if opened is None:
            return
        if exc is not None:
            opened.fail(exc)
        opened.end()

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def trace(
    name: str,
    *,
    kind: str = "WORKFLOW",
    end_user_id: IdArgument = None,
    end_user_metadata: MetadataArgument = None,
    session_id: str | int | UUID | None = None,
    tags: str | list[str] | tuple[str, ...] | None = None,
    mask: Mask | None = None,
    **attributes: Any,
) -> Trace:
    """Opens a span for one unit of work, and says which end user it serves.

        with neatlogs.trace("chat", end_user_id=str(request.user.id), end_user_metadata={"plan": "pro"}) as span:
            ...

    Where no span is active it is the trace's root span and carries the end user. Where an instrumentation has opened
    the trace already (FastAPI's, for instance), the end user goes to that trace's root. Inside another `trace()` or
    `@span` it opens a child span, and naming another end user has no effect but a warning.

    Works with `with` and `async with`. Exceptions are recorded on the span and pass unchanged. Bad identity is refused
    with a warning; nothing here raises.

    Args:
        name: The span's name.
        kind: `"WORKFLOW"`, `"AGENT"`, `"CHAIN"`, `"TOOL"`, `"LLM"`, ...
        end_user_id: `str`, `int`, `UUID`, or a callable that returns one, called when the block is entered. At most
            1,024 bytes of UTF-8, never cut. `None` and blank text mean that the end user comes from `identify()` or
            `init()`.
        end_user_metadata: A JSON object of at most 16 KiB, or a callable that returns one.
        session_id: The session (a conversation, say) that the trace belongs to.
        tags: Put on the trace's root span, besides the process's own.
        mask: A function from attributes to attributes. It covers the content that the shim captures in this block:
            `attributes`, and what `@span` captures inside. It runs at the moment of capture, so no exporter sees what
            it removes; if it raises, the content is dropped. (What instrumentations capture is covered by
            `init(mask=...)`.)
        **attributes: Attributes of the span.

    Returns:
        A context manager that yields the OpenTelemetry span.
    """
    name = checked_name(name, "trace()")
    place = f"trace({shown(name)})"
    warn_near_misses(attributes, place)
    return Trace(
        name,
        checked_kind(kind, "WORKFLOW", place),
        (end_user_id, end_user_metadata, session_id),
        tags,
        checked_mask(mask, place),
        attributes,
    )


def checked_name(name: object, place: str) -> str:
    """The name; one that is not text is shown as its type, with a warning."""
    if isinstance(name, str):
        return name
    warn_once("bad_argument", (place, type(name)), "%s needs a str as name, not a %s.", place, type(name).__name__)
    return f"<{type(name).__name__}>"


def checked_kind(kind: object, fallback: str, place: str) -> str:
    """The kind, or with a warning `fallback`."""
    if isinstance(kind, str) and kind.strip():
        return str.__str__(kind)
    warn_once("bad_argument", (place, "kind"), "kind of %s must be a str such as %r.", place, fallback)
    return fallback


def checked_mask(mask: Any, place: str) -> Mask | None:
    """The mask; one that cannot be called drops all content, with a warning."""
    if mask is None:
        return None
    if callable(mask):
        checked: Mask = mask
        return checked
    warn_once("bad_argument", (place, "mask"), "mask of %s must be callable; content is dropped.", place)
    return _drop_all


_PARAMETERS: Final = ("kind", "end_user_id", "end_user_metadata", "session_id", "tags", "mask")
_MEANT: Final = {
    "user": "end_user_id",
    "userid": "end_user_id",
    "enduser": "end_user_id",
    "metadata": "end_user_metadata",
    "usermetadata": "end_user_metadata",
    "session": "session_id",
}


def warn_near_misses(attributes: Mapping[str, Any], place: str) -> None:
    """Say once where a keyword that became an attribute was probably meant as a parameter."""
    for key in attributes:
        meant = _parameter_meant_by(key)
        if meant is not None:
            warn_once(
                "near_miss",
                (place, key),
                "%s has no parameter %s; it became a plain attribute of the span. Was %s meant?",
                place,
                shown(key),
                meant,
            )


@functools.lru_cache(maxsize=1_000)  # Each call passes the same keywords again.
def _parameter_meant_by(key: str) -> str | None:
    plain = {parameter.replace("_", ""): parameter for parameter in _PARAMETERS}
    folded = "".join(filter(str.isalnum, key)).lower()
    close = difflib.get_close_matches(folded, plain, n=1, cutoff=0.85)
    return _MEANT.get(folded) or (plain[close[0]] if close else None)


def _say_dropped(place: str, error: Exception) -> None:
    warn_once(
        "content_refused", place, "Attributes of %s are dropped: reading them raised %s.", place, type(error).__name__
    )


def _checked_tags(tags: object, place: str) -> str | None:
    try:
        return conventions.encode_tags(tags)
    except Exception as error:  # noqa: BLE001  # an iterable of the application may raise anything
        reason = str(error) if isinstance(error, conventions.RefusedError) else f"they raised {type(error).__name__}"
        warn_once("tags_refused", place, "tags of %s are refused, because %s.", place, reason)
        return None


def _without_identity(attributes: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The attributes without the identity namespace: a child cannot carry it, and the parameters come first."""
    found = [key for key in attributes if conventions.is_identity_key(key)]
    if not found:
        return attributes
    warn_once(
        "override_ignored",
        ("attributes", place),
        "The identity attributes of %s have no effect: only a trace's root span carries the end user, and what "
        "end_user_id=... names comes first. Use that instead.",
        place,
    )
    return {key: value for key, value in attributes.items() if key not in found}


def _drop_all(_: dict[str, Any]) -> None:
    return None
