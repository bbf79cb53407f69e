"""One open local root: the claims made on it by rank, and the identity they come to on its span."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from neatlogs_otel import conventions
from neatlogs_otel._identity import (
    RANK,
    TOP_RANK,
    EndUser,
    Identified,
    resolve,
)
from neatlogs_otel._leaving import leaving
from neatlogs_otel._process_default import ProcessDefault, auto_session_id
from neatlogs_otel._warnings import shown, warn_once


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
        forget: Called with the dead weak reference when the span is collected without having ended.
    """

    __slots__ = (
        "__weakref__",
        "_auto_session",
        "_claims",
        "_default",
        "_lock",
        "_sessions",
        "_span",
        "_stamped",
        "is_root",
        "name",
        "span_id",
        "standing",
        "takes_identity",
        "trace_id",
    )

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
        self._stamped: dict[str, AttributeValue] = {}
        self._default = ProcessDefault()
        self._auto_session = False
        # Setting an attribute may log, a log handler may be instrumented: the same thread may come back.
        self._lock = threading.RLock()

    @property
    def span(self) -> Span | None:
        """The span, while somebody else still holds it."""
        return self._span()

    def was(self, reference: object) -> bool:
        """Whether `reference` is the weak reference to this local root's span."""
        return reference is self._span

    @property
    def session_id(self) -> str | None:
        """The session id that stands on the span."""
        session = self._stamped.get(conventions.SESSION_ID)
        return session if isinstance(session, str) and session else None

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
        leaves = None if resolved is None else leaving().of(resolved)
        left = self._within_limit(span, leaves)
        self.standing = _standing(resolved, leaves, left)
        attributes = _attributes(span)
        wanted: dict[str, AttributeValue] = {}
        session = self._session(left, attributes)
        if session is not None:
            wanted[conventions.SESSION_ID] = session
        if left is not None:
            wanted.update(self._refusal(left, attributes) if left.refused else _written(left, attributes))
        for key, value in wanted.items():
            if attributes.get(key) != value:
                span.set_attribute(key, value)
            self._stamped[key] = value

    def _refusal(self, refused: EndUser, attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
        """What covers an identity that stands on the span, or would come from its resource; nothing where none does."""
        nobody: AttributeValue
        metadata = {conventions.END_USER_METADATA: "{}"} if conventions.END_USER_METADATA in attributes else {}
        if RANK["resource"] in self._claims:
            # An empty id would not keep a default on the resource away; a value that is no string at all does.
            nobody = False
        elif conventions.END_USER_ID in attributes:
            nobody = ""
        else:
            return {**metadata}
        return {**metadata, conventions.END_USER_SOURCE: refused.source, conventions.END_USER_ID: nobody}

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


def _standing(resolved: EndUser | None, leaves: EndUser | None, left: EndUser | None) -> EndUser | None:
    """The end user as the application knows it, which goes on with the id that it gave, pseudonym or not.

    Args:
        resolved: What the claims come to.
        leaves: What of it may leave the process.
        left: What of that the span's limits let through.
    """
    if resolved is None or left is None or left is leaves:
        return resolved
    return left if left.refused else EndUser(resolved.id, None, resolved.source)


def _attributes(span: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = getattr(span, "attributes", None)
    return found if found is not None else {}


def _written(end_user: EndUser, attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """The end user as attributes; the id last, because where a count limit evicts the oldest, the last one stays."""
    written: dict[str, AttributeValue] = {}
    if end_user.metadata_json is not None:
        written[conventions.END_USER_METADATA] = end_user.metadata_json
    elif conventions.END_USER_METADATA in attributes:
        written[conventions.END_USER_METADATA] = "{}"  # OpenTelemetry cannot delete an attribute.
    if end_user.source and (end_user.id is not None or end_user.metadata_json is not None):
        written[conventions.END_USER_SOURCE] = end_user.source
    if end_user.id is not None:
        written[conventions.END_USER_ID] = end_user.id
    return written


def _end_user_in(attributes: Mapping[str, Any], source: str) -> EndUser | None:
    """Identity that stands in attributes already, in the shapes that the processor accepts.

    The source of what the application wrote by hand is `""`: the shim does not claim to have supplied it.
    """
    end_user_id = conventions.text_of(conventions.END_USER_ID, attributes.get(conventions.END_USER_ID))
    metadata = conventions.text_of(conventions.END_USER_METADATA, attributes.get(conventions.END_USER_METADATA))
    if end_user_id is not None and not end_user_id.strip():
        end_user_id = None
    if end_user_id is None and not metadata:
        return None
    return EndUser(end_user_id, metadata or None, source)


def _value_length_limit(span: Any) -> int | None:
    # The SDK has no public way to ask a span for its limits. A span of another make has none that we know.
    limit = getattr(getattr(span, "_limits", None), "max_span_attribute_length", None)
    return limit if isinstance(limit, int) else None
