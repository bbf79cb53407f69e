"""The open local roots of this process, and the identity that stands on each.

One registry serves all our span processors, because the span that declares an end user and the local root that takes
it may come from different providers. It is bounded and holds spans weakly: a span that is never ended costs nothing
once it is gone, and little before.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from opentelemetry.trace import Span, SpanContext

from neatlogs_otel import conventions
from neatlogs_otel._identity import (
    TOP_RANK,
    EndUser,
    Identified,
    ProcessDefault,
    auto_session_id,
    resolve,
)
from neatlogs_otel._warnings import shown, warn_once

MAX_OPEN_ROOTS: Final = 10_000
MAX_ENDED_TRACES: Final = 1_000
"""How many ended traces are remembered, so that a warning can tell "ended" from "never seen"."""


class Declaration(NamedTuple):
    """What `trace()`, `@span` or `set_end_user()` says about the trace."""

    end_user: EndUser | None = None
    session_id: str | None = None
    tags: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self.end_user is None and self.session_id is None and self.tags is None


class Outcome(Enum):
    """What became of a declaration."""

    TAKEN = "taken"
    REPEATED = "repeated"  # it says what already stands
    OUTRANKED = "outranked"  # something of the same rank stands already
    ENDED = "ended"
    ENTRY = "entry"  # an entry span, and roots="trace"
    UNKNOWN = "unknown"  # no open local root is known for this trace
    AMBIGUOUS = "ambiguous"  # several entry spans of one trace are open


class OpenRoot:
    """A local root that has not ended: the claims made on it by rank, and what they came to.

    Args:
        span: The local root.
        is_root: A root span; otherwise an entry span.
        takes_identity: Whether it may carry identity: a root span, or an entry span under `roots="entry"`.
        forget: Called when the span is collected without having ended.
    """

    __slots__ = (
        "__weakref__", "_auto_session", "_claims", "_default", "_lock", "_sessions", "_span", "_stamped", "is_root",
        "name", "span_id", "standing", "takes_identity", "trace_id",
    )  # fmt: skip

    def __init__(
        self, span: Span, *, is_root: bool, takes_identity: bool, forget: Callable[[object], None] | None = None
    ) -> None:
        context = span.get_span_context()
        self.trace_id = context.trace_id
        self.span_id = context.span_id
        self._span = weakref.ref(span, forget)
        self.name = getattr(span, "name", "")
        self.is_root = is_root
        self.takes_identity = takes_identity
        self.standing: EndUser | None = None
        self._claims: dict[int, EndUser] = {}
        self._sessions: dict[int, str] = {}
        self._stamped: dict[str, str] = {}
        self._default = ProcessDefault()
        self._auto_session = False
        # Setting an attribute may log, a log handler may be instrumented: the same thread may come back.
        self._lock = threading.RLock()

    @property
    def span(self) -> Span | None:
        """The span, while somebody else still holds it."""
        return self._span()

    @property
    def session_id(self) -> str | None:
        """The session id that stands on the span."""
        return self._stamped.get(conventions.SESSION_ID) or None

    def start(self, declared: Declaration | None, identified: Identified | None, default: ProcessDefault) -> None:
        """Settle the identity of a local root that has just been opened."""
        span = self._span()
        if span is None or not self.takes_identity:
            return
        with self._lock:
            self._default = default
            self._read_resource(span)
            if default.end_user is not None:
                self._claims[default.end_user.rank] = default.end_user
            if identified is not None and identified.end_user is not None:
                self._claims[identified.end_user.rank] = identified.end_user
            sessions = (default.session_id, identified.session_id if identified else None)
            self._sessions.update({rank: text for rank, text in enumerate(sessions, 1) if text is not None})
            self._read_attributes(span)
            if declared is not None:
                self._claim(declared)
            self._stamp(span)
            if declared is not None:
                self._stamp_tags(span, declared.tags)

    def declare(self, declared: Declaration) -> Outcome:
        """Take a declaration made while the local root is open."""
        with self._lock:
            span = self._span()
            if span is None or not span.is_recording():
                return Outcome.ENDED
            if not self.takes_identity:
                return Outcome.ENTRY
            self._read_attributes(span)
            outcome = self._claim(declared)
            self._stamp(span)
            self._stamp_tags(span, declared.tags)
            return outcome

    def restore(self) -> None:
        """Put back identity that the provider's attribute count limit has evicted; for the moment before the end."""
        with self._lock:
            span = self._span()
            if span is None or not self._stamped or not span.is_recording():
                return
            attributes = _attributes(span)
            if any(key not in attributes for key in self._stamped):
                for key, value in self._stamped.items():
                    span.set_attribute(key, value)

    def missing(self, attributes: Mapping[str, Any]) -> bool:
        """Whether identity that was put on the span is not among its final attributes."""
        return any(key not in attributes for key in self._stamped)

    def _claim(self, declared: Declaration) -> Outcome:
        outcome = Outcome.TAKEN
        if declared.end_user is not None:
            claim = declared.end_user
            first = self._claims.get(claim.rank)
            if first is not None and (first.refused or first.id is not None):
                outcome = Outcome.REPEATED if claim.same_as(self.standing) else Outcome.OUTRANKED
            else:
                self._claims[claim.rank] = resolve(first, claim, place=shown(self.name)) or claim
        if declared.session_id is not None:
            stands = self._sessions.setdefault(TOP_RANK, declared.session_id)
            if stands != declared.session_id:
                outcome = Outcome.OUTRANKED
        return outcome

    def _read_resource(self, span: Span) -> None:
        """A default on the resource, which the processor would move to this root, counts as the lowest rank."""
        attributes = getattr(getattr(span, "resource", None), "attributes", None) or {}
        found = _end_user_in(attributes, "resource")
        if found is not None:
            self._claims[found.rank] = found

    def _read_attributes(self, span: Span) -> None:
        """Identity that the application itself set as an attribute of the root stays: it was there first."""
        attributes = _attributes(span)
        written = attributes.get(conventions.END_USER_ID)
        foreign_id = written is not None and written != self._stamped.get(conventions.END_USER_ID)
        if foreign_id or not self._stamped:
            found = _end_user_in(attributes, "")
            if found is not None:
                self._claims[TOP_RANK] = found
        session = attributes.get(conventions.SESSION_ID)
        if isinstance(session, str) and session and session != self._stamped.get(conventions.SESSION_ID):
            self._sessions[TOP_RANK] = session

    def _stamp(self, span: Span) -> None:
        """Write what the claims come to, as far as the span does not say it yet."""
        resolved = resolve(*(claim for _, claim in sorted(self._claims.items(), reverse=True)), place=shown(self.name))
        resolved = self._within_limit(span, resolved)
        self.standing = resolved
        attributes = _attributes(span)
        wanted: dict[str, str] = {}
        if resolved is not None:
            metadata = resolved.metadata_json
            if metadata is None and conventions.END_USER_METADATA in attributes:
                metadata = "{}"  # OpenTelemetry cannot delete an attribute.
            if resolved.refused:
                # An empty id is no id; it covers one that stands on the span or would come from the resource.
                if conventions.END_USER_ID in attributes or 0 in self._claims:
                    wanted = {conventions.END_USER_SOURCE: resolved.source, conventions.END_USER_ID: ""}
            else:
                if resolved.source:
                    wanted[conventions.END_USER_SOURCE] = resolved.source
                if resolved.id is not None:
                    wanted[conventions.END_USER_ID] = resolved.id
            if metadata is not None and (wanted or not resolved.refused):
                wanted = {conventions.END_USER_METADATA: metadata, **wanted}
        session = self._session(resolved, attributes)
        if session is not None:
            wanted = {conventions.SESSION_ID: session, **wanted}
        # The id comes last: where a count limit evicts the oldest attribute, it is the one that stays.
        for key, value in wanted.items():
            if attributes.get(key) != value:
                span.set_attribute(key, value)
            self._stamped[key] = value

    def _session(self, resolved: EndUser | None, attributes: Mapping[str, Any]) -> str | None:
        if self._sessions:
            session = self._sessions[max(self._sessions)]
            return session if session or conventions.SESSION_ID in attributes else None
        if not self._default.auto_session:
            return None
        if resolved is not None and resolved.id is not None and resolved.source == "init":
            self._auto_session = True
            return auto_session_id()
        if resolved is not None and resolved.id is not None:
            warn_once(
                "auto_session_skipped",
                None,
                "auto_session gives one session to a process that serves one end user. Here traces have end users of "
                "their own, and get none; pass session_id=... to trace(), @span or identify().",
            )
        return "" if self._auto_session else None

    def _within_limit(self, span: Span, end_user: EndUser | None) -> EndUser | None:
        limit = _value_length_limit(span)
        if end_user is None or limit is None:
            return end_user
        if end_user.id is not None and len(end_user.id) > limit:
            error = conventions.RefusedError(f"it is longer than the provider's attribute value limit of {limit}")
            return EndUser.refuse(end_user.source, "end_user_id", error, place=f"span {shown(self.name)}")
        if end_user.metadata_json is not None and len(end_user.metadata_json) > limit:
            warn_once(
                "metadata_refused",
                (self.name, "limit"),
                "end_user_metadata on span %s is refused, because its JSON is longer than the provider's attribute "
                "value limit of %d. The end user's id is not affected.",
                shown(self.name),
                limit,
            )
            return EndUser(end_user.id, None, end_user.source)
        return end_user

    def _stamp_tags(self, span: Span, tags: str | None) -> None:
        if tags is None:
            return
        standing = _attributes(span).get(conventions.TAGS)
        both = conventions.encode_tags([standing, tags] if isinstance(standing, str) else tags)
        if both is not None:
            span.set_attribute(conventions.TAGS, both)


class _Registry:
    """Open local roots by trace; several of one trace are entry spans under one remote parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_trace: OrderedDict[int, dict[int, OpenRoot]] = OrderedDict()
        self._size = 0
        self._ended: OrderedDict[int, None] = OrderedDict()
        # Filled by weak reference callbacks, which may run at any moment, also while the lock is held.
        self._collected: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return self._size

    def open(self, span: Span, *, is_root: bool, takes_identity: bool) -> tuple[OpenRoot, bool]:
        """Register a local root. Returns it, and whether it is new (several span processors may see one span)."""
        context = span.get_span_context()
        with self._lock:
            self._forget_collected()
            roots = self._by_trace.setdefault(context.trace_id, {})
            known = roots.get(context.span_id)
            if known is not None:
                return known, False
            key = (context.trace_id, context.span_id)
            collected = self._collected
            root = OpenRoot(
                span, is_root=is_root, takes_identity=takes_identity, forget=lambda _: collected.append(key)
            )
            roots[context.span_id] = root
            self._size += 1
            while self._size > MAX_OPEN_ROOTS:
                _, oldest = self._by_trace.popitem(last=False)
                self._size -= len(oldest)
                warn_once(
                    "registry_full",
                    None,
                    "More than %d traces are open at once; the oldest can no longer be given an end user by "
                    "set_end_user(). Are there root spans that are never ended?",
                    MAX_OPEN_ROOTS,
                )
            return root, True

    def close(self, context: SpanContext) -> OpenRoot | None:
        """Take a local root out, because it ends. `None` where it is not there (any more)."""
        with self._lock:
            root = self._remove(context.trace_id, context.span_id)
            if root is not None:
                self._ended[context.trace_id] = None
                if len(self._ended) > MAX_ENDED_TRACES:
                    self._ended.popitem(last=False)
            return root

    def of_trace(self, trace_id: int) -> list[OpenRoot]:
        """The open local roots of a trace."""
        with self._lock:
            return list(self._by_trace.get(trace_id, {}).values())

    def has_ended(self, trace_id: int) -> bool:
        """Whether a local root of this trace has ended lately."""
        with self._lock:
            return trace_id in self._ended

    def _remove(self, trace_id: int, span_id: int) -> OpenRoot | None:
        roots = self._by_trace.get(trace_id)
        root = roots.pop(span_id, None) if roots is not None else None
        if root is not None:
            self._size -= 1
        if roots is not None and not roots:
            del self._by_trace[trace_id]
        return root

    def _forget_collected(self) -> None:
        while self._collected:
            self._remove(*self._collected.popleft())


registry = _Registry()


def find_open_root(near: SpanContext, parent: SpanContext | None, remembered: OpenRoot | None) -> OpenRoot | Outcome:
    """The open local root that a declaration made at a span addresses.

    Args:
        near: The span at which it is made.
        parent: Its direct parent.
        remembered: The local root that an enclosing `trace()` or `@span` of this context has found, if any.

    Returns:
        The trace's open root span; else its only open entry span; else, of several, the one that is `near`, `parent`
        or `remembered`. Otherwise `Outcome.ENDED`, `UNKNOWN` or `AMBIGUOUS`.
    """
    roots = registry.of_trace(near.trace_id)
    if not roots:
        return Outcome.ENDED if registry.has_ended(near.trace_id) else Outcome.UNKNOWN
    own = [root for root in roots if root.is_root]
    if own:
        return own[0]
    if len(roots) == 1:
        return roots[0]
    ids = {near.span_id} | ({parent.span_id} if parent is not None else set())
    for root in roots:
        if root.span_id in ids or root is remembered:
            return root
    return Outcome.AMBIGUOUS


def _attributes(span: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = getattr(span, "attributes", None)
    return found if found is not None else {}


def _end_user_in(attributes: Mapping[str, Any], source: str) -> EndUser | None:
    """Identity that stands in attributes already, in the shapes that the processor accepts.

    The source of what the application wrote by hand is `""`: the shim does not claim to have supplied it.
    """
    end_user_id = attributes.get(conventions.END_USER_ID)
    metadata = attributes.get(conventions.END_USER_METADATA)
    if isinstance(end_user_id, int) and not isinstance(end_user_id, bool):
        end_user_id = str(end_user_id)
    end_user_id = end_user_id if isinstance(end_user_id, str) and end_user_id.strip() else None
    if isinstance(metadata, Mapping):
        try:
            metadata = conventions.encode_metadata(metadata)
        except conventions.RefusedError:
            metadata = None
    metadata = metadata if isinstance(metadata, str) and metadata else None
    if end_user_id is None and metadata is None:
        return None
    return EndUser(end_user_id, metadata, source)


def _value_length_limit(span: Any) -> int | None:
    # The SDK has no public way to ask a span for its limits. A span of another make has none that we know.
    limit = getattr(getattr(span, "_limits", None), "max_span_attribute_length", None)
    return limit if isinstance(limit, int) else None


def _after_fork() -> None:
    # The parent process will end and export its open spans; here nobody will, so none can be addressed.
    global registry  # One registry per process.
    registry = _Registry()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
