"""The end user: what one source supplies, which source wins, and the two sources that wait for a root.

An id and its metadata are one unit: the source that supplies the id supplies the metadata too, so that one user's id
never meets another's metadata. A source with metadata alone lends it to the id of the next source. A refused id ends
the resolution: better no identity than somebody else's.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Literal

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import Context

from neatlogs_otel import conventions
from neatlogs_otel._context import Entries
from neatlogs_otel._warnings import shown, warn_once
from neatlogs_otel.conventions import RefusedError

Source = Literal["init", "identify", "trace", "span", "set_end_user", "resource"]

RANK: Final[Mapping[str, int]] = {
    "resource": 0,
    "init": 1,
    "identify": 2,
    "trace": 3,
    "span": 3,
    "set_end_user": 3,
}
"""A higher rank replaces a lower one; at equal rank the first stays."""

TOP_RANK: Final = 3

NO_SESSION: Final = ""
"""A session id that was given and refused: it ends the resolution as a refused end-user id does."""

IdArgument = str | int | uuid.UUID | Callable[..., "str | int | uuid.UUID | None"] | None
MetadataArgument = Mapping[str, Any] | Callable[..., "Mapping[str, Any] | None"] | None


@dataclass(frozen=True)
class EndUser:
    """What one source says about the end user. Immutable; its values are already checked and encoded.

    Attributes:
        id: The end user's id, or `None` where the source has metadata alone.
        metadata_json: The metadata as it goes on the span, or `None`.
        source: Which call supplied it.
        refused: The source supplied an id that cannot be used. Then there is neither id nor metadata, and no source of
            a lower rank is asked.
    """

    id: str | None
    metadata_json: str | None
    source: str
    refused: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata as a new dictionary; empty where there is none."""
        return dict(json.loads(self.metadata_json)) if self.metadata_json else {}

    @property
    def rank(self) -> int:
        """The rank of the source, see `RANK`."""
        return RANK.get(self.source, TOP_RANK)

    @classmethod
    def of(cls, source: Source, end_user_id: object, end_user_metadata: object, *, place: str) -> EndUser | None:
        """Check and encode what an application passed. Never raises; what cannot be used is refused with a warning.

        Args:
            source: Which call it was passed to.
            end_user_id: See `conventions.encode_id`.
            end_user_metadata: See `conventions.encode_metadata`.
            place: The call as a warning names it: `trace('chat')`.

        Returns:
            `None` where neither an id nor metadata was given.
        """
        try:
            text = conventions.encode_id(end_user_id)
        except Exception as error:  # noqa: BLE001  # a foreign __str__ or __int__ may raise anything
            return cls.refuse(source, "end_user_id", error, place=place)
        metadata: str | None = None
        try:
            metadata = conventions.encode_metadata(end_user_metadata)
        except Exception as error:  # noqa: BLE001  # as above
            warn_once(
                "metadata_refused",
                place,
                "end_user_metadata of %s is refused, because %s. The end user's id is not affected.",
                place,
                _reason(error),
            )
        if text is None and metadata is None:
            return None
        return cls(text, metadata, source)

    @classmethod
    def refuse(cls, source: str, what: str, error: Exception, *, place: str) -> EndUser:
        """The end user of a source whose id cannot be used. Warns."""
        warn_once(
            "id_refused",
            place,
            "%s of %s is refused, because %s. No other source stands in for it.",
            what,
            place,
            _reason(error),
        )
        return cls(None, None, source, refused=True)

    def same_as(self, standing: EndUser | None) -> bool:
        """Whether this repeats the identity that stands: the same id, and no other metadata."""
        if standing is None or self.refused or standing.refused:
            return False
        return self.id in (None, standing.id) and self.metadata_json in (None, standing.metadata_json)


def resolve(*sources: EndUser | None, place: str = "") -> EndUser | None:
    """What the sources, the highest rank first, come to together.

    Returns:
        The first id with its own metadata and what higher sources lend; a refusal where one is met before an id; lent
        metadata alone where nobody has an id; `None` where nobody has anything.
    """
    lent: EndUser | None = None
    for source in sources:
        if source is None:
            continue
        merged = source if lent is None or source.refused else _lend(lent, source, place)
        if merged.refused or merged.id is not None:
            return merged
        lent = merged
    return lent


def _lend(lender: EndUser, taker: EndUser, place: str) -> EndUser:
    """`taker` with the metadata of both; `lender` wins a key. Without an id the lender stays the source."""
    source = lender.source if taker.id is None else taker.source
    if taker.metadata_json is None:
        return replace(taker, metadata_json=lender.metadata_json, source=source)
    try:
        merged = conventions.encode_metadata({**taker.metadata, **lender.metadata})
    except RefusedError as error:
        warn_once(
            "metadata_refused",
            (place, "merged"),
            "end_user_metadata from several sources on %s is refused, because %s. The end user's id is not affected.",
            place or "a trace",
            _reason(error),
        )
        merged = None
    return replace(taker, metadata_json=merged, source=source)


def encode_session(session_id: object, *, place: str) -> str | None:
    """A session id as text; `None` where none was given; `NO_SESSION`, with a warning, where it cannot be used."""
    try:
        return conventions.encode_id(call_argument(session_id))
    except Exception as error:  # noqa: BLE001  # a foreign __str__ may raise anything
        warn_once(
            "session_refused",
            place,
            "session_id of %s is refused, because %s. No other source stands in for it.",
            place,
            _reason(error),
        )
        return NO_SESSION


def call_argument(value: object) -> object:
    """The value, or what it returns where it is a callable.

    Raises:
        RefusedError: It returned an awaitable; identity is needed at once.
        Exception: Whatever the callable raises.
    """
    if not callable(value):
        return value
    return finished(value())


def finished(value: object) -> object:
    """The value, unless it is an awaitable.

    Raises:
        RefusedError: It is one.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # Or Python would complain that it was never awaited.
        raise RefusedError("its callable is asynchronous; await first, then call set_end_user()")
    return value


def end_user_from(source: Source, end_user_id: object, end_user_metadata: object, *, place: str) -> EndUser | None:
    """As `EndUser.of`, where both arguments may also be callables without arguments. Never raises."""
    try:
        found = call_argument(end_user_id)
    except Exception as error:  # noqa: BLE001  # the application's callable; its trace must go on
        return EndUser.refuse(source, "The callable end_user_id", error, place=place)
    try:
        metadata = call_argument(end_user_metadata)
    except Exception as error:  # noqa: BLE001  # as above
        metadata = None
        warn_once(
            "metadata_refused",
            place,
            "The callable end_user_metadata of %s is refused, because %s. The end user's id is not affected.",
            place,
            _reason(error),
        )
    return EndUser.of(source, found, metadata, place=place)


def _reason(error: Exception) -> str:
    # Only our own messages are known to hold no value.
    return str(error) if isinstance(error, RefusedError) else f"it raised {type(error).__name__}"


# identify() ---------------------------------------------------------------------------------------------------------

_IDENTIFIED: Final = context_api.create_key("neatlogs-otel-identified")
_served: ContextVar[Identified | None] = ContextVar("neatlogs_otel_served", default=None)


class Identified:
    """What the open `identify()` blocks of a context say together."""

    __slots__ = ("end_user", "outer", "session_id", "taken")

    def __init__(self, end_user: EndUser | None, session_id: str | None, outer: Identified | None) -> None:
        self.end_user: EndUser | None = resolve(end_user, outer.end_user if outer else None, place="identify()")
        self.session_id: str | None = session_id if session_id is not None or outer is None else outer.session_id
        self.outer = outer
        self.taken = False

    def take(self) -> None:
        """Note that a root was opened under this block."""
        block: Identified | None = self
        while block is not None and not block.taken:
            block.taken = True
            block = block.outer


def identified(context: Context | None = None) -> Identified | None:
    """The innermost open `identify()` of a context (of the current one where it is `None`), else what is `Served`."""
    found = context_api.get_value(_IDENTIFIED, context)
    return found if isinstance(found, Identified) else _served.get()


class Served:
    """An `identify()` block around a request, also for the root that a server's instrumentation opens inside it.

    That root starts in the context which the instrumentation has extracted from the request's headers, and the
    propagators of OpenTelemetry extract into an empty context: what `identify()` has attached is not in it. So this
    block travels beside OpenTelemetry's context, and counts where that names nobody. It may be entered again and again,
    also in other threads, one after the other.
    """

    __slots__ = ("_block", "_token")

    def __init__(self, end_user: EndUser | None, session_id: str | None) -> None:
        self._block = Identified(end_user, session_id, identified())

    def __enter__(self) -> None:
        self._token = _served.set(self._block)

    def __exit__(self, *_: object) -> None:
        # An abandoned coroutine is closed in another `contextvars.Context`, where there is nothing to take back.
        with suppress(ValueError):
            _served.reset(self._token)


class identify:  # noqa: N801  # used as a function: `with identify(...)`
    """Names the end user of the root spans that others open inside the block.

    For code that calls into an instrumented library and does not open the trace itself:

        with neatlogs.identify(end_user_id=job.user_id, session_id=job.conversation):
            client.chat.completions.create(...)

    Works with `with` and `async with`. It has no effect on a trace that is already open (there, use `trace()` or
    `set_end_user()`), and says so once when it ends. Never raises.

    Args:
        end_user_id: `str`, `int`, `UUID`, or a callable that returns one, called when the block is entered.
        end_user_metadata: A JSON object, or a callable that returns one.
        session_id: The session that the roots belong to.
    """

    def __init__(
        self,
        *,
        end_user_id: IdArgument = None,
        end_user_metadata: MetadataArgument = None,
        session_id: str | int | uuid.UUID | None = None,
    ) -> None:
        self._arguments = (end_user_id, end_user_metadata, session_id)
        self._entries: Entries[tuple[Identified, bool]] = Entries()

    def __enter__(self) -> None:
        end_user_id, end_user_metadata, session_id = self._arguments
        block = Identified(
            end_user_from("identify", end_user_id, end_user_metadata, place="identify()"),
            encode_session(session_id, place="identify()"),
            identified(),
        )
        self._entries.enter(context_api.set_value(_IDENTIFIED, block), (block, _in_open_trace()))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._entries.leave()
        if left is None:
            return
        block, in_open_trace = left
        if in_open_trace and not block.taken and (block.end_user is not None or block.session_id is not None):
            name = getattr(trace_api.get_current_span(), "name", None)
            warn_once(
                "identify_not_taken",
                name,
                "identify() had no effect: it names the end user of traces opened inside it, and here a trace was "
                "already open (at span %s). Use trace(..., end_user_id=...) or set_end_user() instead.",
                shown(name),
            )

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _in_open_trace() -> bool:
    span = trace_api.get_current_span()
    return span.is_recording() and span.get_span_context().is_valid
