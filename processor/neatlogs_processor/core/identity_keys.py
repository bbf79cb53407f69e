"""The keys under which other SDKs write, and backends look for, what the identity namespace holds.

Attributes of a span; never of a resource, whose `user.id` is the operator. What each preset names is what the backend's
ingestion reads, and what the SDK writes:

- OpenInference and Phoenix: https://arize-ai.github.io/openinference/spec/semantic_conventions.html
- MLflow takes user and session of a trace from `user.id` and `session.id` of its spans, and metadata from none:
  https://mlflow.org/docs/latest/genai/tracing/track-users-sessions
- Langfuse: https://langfuse.com/integrations/native/opentelemetry. Any span's user replaces the trace's there.
- Datadog: https://docs.datadoghq.com/tracing/guide/users-accounts
- Traceloop: `traceloop.association.properties.*`, https://www.traceloop.com/docs/openllmetry/tracing/association
- Logfire writes baggage as attributes under the names that the application gives it:
  https://logfire.pydantic.dev/docs/reference/advanced/baggage
- OpenTelemetry: https://opentelemetry.io/docs/specs/semconv/registry/attributes/ (`user`, `enduser`, `session`)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from neatlogs_processor.core.schema import NAMESPACE, SERVICE_NAME, SESSION_ID, in_namespace
from neatlogs_processor.core.sought import Sought


class Carries(str, Enum):
    """What stands under a key."""

    USER = "user"
    """The end user's id."""
    SESSION = "session"
    """The session's id."""
    METADATA = "metadata"
    """The end user's metadata: one JSON object."""
    MEMBERS = "members"
    """The members of the metadata, each in an attribute of its own: the key is what their keys begin with."""


class IdentityKey(NamedTuple):
    """A key and what stands under it."""

    key: str
    carries: Carries

    def __str__(self) -> str:
        """As it is written in a setting."""
        if self.carries is Carries.MEMBERS:
            return f"{self.key}*"
        usual = _USUAL.get(self.key, Carries.USER)
        return self.key if self.carries is usual else f"{self.key}={self.carries.value}"

    @property
    def wire(self) -> bytes:
        """The key as it stands in a request."""
        return self.key.encode()


# What is not the end user's id under a key that is written alone.
_USUAL: Final[Mapping[str, Carries]] = {
    "session.id": Carries.SESSION,
    "session_id": Carries.SESSION,
    "gen_ai.conversation.id": Carries.SESSION,
    "langfuse.session.id": Carries.SESSION,
    "traceloop.association.properties.session_id": Carries.SESSION,
    "metadata": Carries.METADATA,
    "langfuse.trace.metadata": Carries.METADATA,
}
_WRITTEN: Final = {one.value: one for one in (Carries.USER, Carries.SESSION, Carries.METADATA)}

EVERY_SPANS_OWN: Final = frozenset({"metadata"})
"""Keys that say something about the span that they stand on, whichever span that is: never taken from a child."""


def read_identity_keys(words: Iterable[str]) -> tuple[IdentityKey, ...]:
    """Read keys as they are written in a setting: `KEY`, `KEY=user`, `KEY=session`, `KEY=metadata` or `PREFIX.*`.

    Raises:
        ValueError: One of them cannot be used, or stands there twice.
    """
    keys: list[IdentityKey] = []
    for word in words:
        one = _read(word)
        if any(known.key == one.key for known in keys):
            raise ValueError(f"{one.key} stands there twice")
        keys.append(one)
    return tuple(keys)


def _read(word: str) -> IdentityKey:
    key, equals, written = (part.strip() for part in word.partition("="))
    if equals and written not in _WRITTEN:
        raise ValueError(f"{word!r}: what a key carries is one of {', '.join(_WRITTEN)}")
    if key.endswith("*"):
        prefix = key[:-1]
        if written not in ("", Carries.METADATA.value):
            raise ValueError(f"{word!r}: only metadata has an attribute for each of its members")
        if not prefix.endswith(".") or "*" in prefix or not prefix.strip("."):
            raise ValueError(f"{word!r}: write what the keys begin with, a dot and a star, such as app.user.*")
        if any(own.startswith(prefix.encode()) for own in (NAMESPACE + b".", SESSION_ID, SERVICE_NAME)):
            raise ValueError(f"{word!r} covers keys that are not another SDK's")
        carries = Carries.MEMBERS
    else:
        prefix = key
        carries = _WRITTEN[written] if equals else _USUAL.get(key, Carries.USER)
    if not prefix:
        raise ValueError(f"{word!r} names no key")
    if "*" in prefix:
        raise ValueError(f"{word!r}: a star stands at the end, behind a dot")
    wire = prefix.encode()
    if in_namespace(wire) or wire == SESSION_ID:
        raise ValueError(f"{prefix} is the processor's own key; it is read and written without being named")
    if wire == SERVICE_NAME:
        raise ValueError("service.name says which service a span comes from, not whom it served")
    return IdentityKey(prefix, carries)


def _preset(*words: str) -> tuple[IdentityKey, ...]:
    return read_identity_keys(words)


BACKENDS: Final[Mapping[str, tuple[IdentityKey, ...]]] = {
    "phoenix": _preset("user.id", "session.id", "metadata"),
    "mlflow": _preset("user.id", "session.id"),
    # Both spellings: a child with either would replace the user of the trace.
    "langfuse": _preset(
        "langfuse.user.id", "user.id", "langfuse.session.id", "session.id", "langfuse.trace.metadata.*"
    ),
    "datadog": _preset("usr.id", "session_id", "usr.*"),
    "semconv": _preset("user.id", "enduser.id", "session.id"),
}
"""What each backend reads."""

SDKS: Final[Mapping[str, tuple[IdentityKey, ...]]] = {
    "langfuse": _preset(
        "langfuse.user.id",
        "user.id",
        "langfuse.session.id",
        "session.id",
        "langfuse.trace.metadata",
        "langfuse.trace.metadata.*",
    ),
    "openinference": _preset("user.id", "session.id", "metadata"),
    "traceloop": _preset(
        "traceloop.association.properties.user_id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.*",
    ),
    "logfire": _preset("user_id", "user.id", "enduser.id", "gen_ai.conversation.id", "session_id", "session.id"),
    "semconv": _preset("user.id", "enduser.id", "enduser.pseudo.id", "session.id"),
}
"""What each SDK writes, in the order in which it is asked."""


def together(
    keys: Iterable[IdentityKey], presets: Iterable[str], known: Mapping[str, tuple[IdentityKey, ...]]
) -> tuple[IdentityKey, ...]:
    """Put keys and presets together, in order; a key that stands there more than once counts where it stands first."""
    found: dict[str, IdentityKey] = {}
    for one in (*keys, *(one for name in presets for one in known[name])):
        found.setdefault(one.key, one)
    return tuple(found.values())


def sought_by(keys: Iterable[IdentityKey]) -> Sought:
    """The keys as the search for them wants them."""
    all_keys = tuple(keys)
    return Sought(
        (one.wire for one in all_keys if one.carries is not Carries.MEMBERS),
        (one.wire for one in all_keys if one.carries is Carries.MEMBERS),
    )
