"""What of an identity leaves the process: the id or its pseudonym, all metadata or what an allow-list names.

The application keeps working with the ids that it gave. What is written on spans, and what our own exporters send, is
what this module lets out; where a pseudonym was asked for and cannot be made, nothing is.
"""

from __future__ import annotations

import operator
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link

from neatlogs_otel._allowed_metadata import AllowedMetadata
from neatlogs_otel._edited_span import EditedSpan, bounded
from neatlogs_otel._identity import EndUser
from neatlogs_otel._pseudonyms import PseudonymKeys, parse_keys
from neatlogs_otel._warnings import warn_once
from neatlogs_otel.conventions import END_USER_ID, END_USER_METADATA, END_USER_SOURCE, is_identity_key, text_of

KEY_FILE_VARIABLE: Final = "NEATLOGS_PSEUDONYMIZE_KEY_FILE"
METADATA_VARIABLE: Final = "NEATLOGS_METADATA_ALLOW"

_NO_METADATA: Final = "{}"
"""What stands on a span in place of metadata that must go: OpenTelemetry cannot delete an attribute."""


@dataclass(frozen=True)
class Leaving:
    """What of an identity leaves this process.

    Attributes:
        keys: Ids leave as pseudonyms of these; `None`: as they are.
        metadata: What of metadata leaves; `None`: all of it.
        nobody: No identity leaves at all, because the keys could not be read.
    """

    keys: PseudonymKeys | None = None
    metadata: AllowedMetadata | None = None
    nobody: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether everything leaves as it is."""
        return self.keys is None and self.metadata is None and not self.nobody

    def of(self, end_user: EndUser) -> EndUser:
        """The end user as spans carry it. Never raises."""
        if self.changes_nothing or end_user.refused:
            return end_user
        if self.nobody:
            return EndUser(None, None, end_user.source, refused=True)
        end_user_id = end_user.id if end_user.id is None or self.keys is None else self.keys.pseudonym(end_user.id)
        return replace(end_user, id=end_user_id, metadata_json=self._metadata(end_user.metadata_json))

    def attributes(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Attributes of a span, an event, a link, a scope or a resource as they may leave.

        The same object where nothing has to change. Of the identity namespace only the id, the metadata and the source
        leave, as text.
        """
        if self.changes_nothing or not any(map(is_identity_key, attributes)):
            return attributes
        left: dict[str, Any] = {}
        for key, value in attributes.items():
            allowed = self._value(key, value) if is_identity_key(key) else value
            if allowed is not None:
                left[key] = allowed
        return attributes if left == dict(attributes) else left

    def span(self, span: ReadableSpan) -> ReadableSpan:
        """A span as it may leave; the same object where nothing has to change."""
        if self.changes_nothing:
            return span
        own, own_events, own_links = span.attributes or {}, span.events, span.links
        attributes = self.attributes(own)
        resource = self.resource(span.resource)
        events = [self._event(event) for event in own_events]
        links = [self._link(link) for link in own_links]
        scope = self._scope(span.instrumentation_scope)
        if (
            attributes is own
            and resource is span.resource
            and scope is span.instrumentation_scope
            and all(map(operator.is_, events, own_events))
            and all(map(operator.is_, links, own_links))
        ):
            return span
        return EditedSpan(span, attributes=attributes, resource=resource, events=events, links=links, scope=scope)

    def resource(self, resource: Resource) -> Resource:
        """A resource as it may leave; the same object where nothing has to change."""
        own = resource.attributes
        left = self.attributes(own)
        return resource if left is own else Resource(left, resource.schema_url)

    def _event(self, event: Event) -> Event:
        own = event.attributes or {}
        left = self.attributes(own)
        return event if left is own else Event(event.name, bounded(left, event.dropped_attributes), event.timestamp)

    def _link(self, link: Link) -> Link:
        own = link.attributes or {}
        left = self.attributes(own)
        return link if left is own else Link(link.context, bounded(left, link.dropped_attributes))

    def _scope(self, scope: InstrumentationScope | None) -> InstrumentationScope | None:
        own = scope.attributes if scope is not None else None
        if scope is None or not own:
            return scope
        left = self.attributes(own)
        return scope if left is own else InstrumentationScope(scope.name, scope.version, scope.schema_url, left)

    def _value(self, key: str, value: Any) -> Any:
        """The value of an identity attribute as it may leave, or `None` where it may not."""
        if key == END_USER_SOURCE:
            return value
        if key not in (END_USER_ID, END_USER_METADATA):
            return None
        text = text_of(key, value)
        if text is None:
            # False is how a refused id keeps a default away; see `OpenRoot`.
            return value if isinstance(value, bool) else None
        if not text.strip() or text == _NO_METADATA:
            return value
        if self.nobody:
            return None
        if key == END_USER_METADATA:
            return self._metadata(text)
        return text if self.keys is None else self.keys.pseudonym(text)

    def _metadata(self, text: str | None) -> str | None:
        if text is None or self.metadata is None:
            return text
        try:
            return self.metadata.of(text)
        except ValueError as error:
            warn_once(
                "metadata_refused",
                "allow",
                "end_user_metadata is refused, because %s, and only what is named may leave. The end user's id is not "
                "affected.",
                error,
            )
            return None


_leaving: Leaving | None = None


def set_leaving(wanted: Leaving | None) -> Leaving | None:
    """Set what leaves this process; `None`: what the environment says, read anew.

    Returns:
        What was set before, for putting it back.
    """
    global _leaving  # One choice per process.
    before, _leaving = _leaving, wanted
    return before


def leaving() -> Leaving:
    """What leaves this process. Where nothing was set, it is read from the environment, once. Never raises."""
    global _leaving  # One choice per process.
    if _leaving is None:
        _leaving = chosen(None, None, os.environ)
    return _leaving


def chosen(
    key_file: str | os.PathLike[str] | None, metadata_allow: str | Iterable[str] | None, environ: Mapping[str, str]
) -> Leaving:
    """What leaves by these arguments, and where one is `None` by its variable.

    Args:
        key_file: The file of keys, see `init(pseudonymize_key_file=...)`.
        metadata_allow: Names, see `init(metadata_allow=...)`.
        environ: `NEATLOGS_PSEUDONYMIZE_KEY_FILE` and `NEATLOGS_METADATA_ALLOW` (with commas) are read; one that is
            blank counts as unset.

    Raises:
        TypeError: An argument is of a type that can never work.
        ValueError: The file of the argument cannot be used. (One that the environment names is logged instead, and then
            no identity leaves.)
    """
    names = _names(environ.get(METADATA_VARIABLE, "").strip() or None if metadata_allow is None else metadata_allow)
    allowed = None if names is None else AllowedMetadata(names)
    by_variable = environ.get(KEY_FILE_VARIABLE, "")
    if key_file is None and not by_variable.strip():
        return Leaving(None, allowed)
    # Who hides ids has not said that e-mail addresses may leave beside them.
    allowed = allowed or AllowedMetadata(())
    if key_file is not None:
        return Leaving(_read(key_file, "pseudonymize_key_file"), allowed)
    try:
        return Leaving(_read(by_variable, KEY_FILE_VARIABLE), allowed)
    except ValueError as error:
        # Whoever changes the environment of a service must not be able to stop it, nor to undress its end users.
        warn_once("no_pseudonyms", str(error), "No end user leaves this process: %s.", error)
        return Leaving(None, allowed, nobody=True)


def _read(path: str | os.PathLike[str], place: str) -> PseudonymKeys:
    try:
        file = Path(path)
    except TypeError:
        raise TypeError(f"{place} must be a path, not {type(path).__name__}") from None
    try:
        text = file.read_text(encoding="utf-8")
        readable_by_all = file.stat().st_mode & stat.S_IROTH
    except UnicodeDecodeError:
        raise ValueError(f"{place}: {file} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(f"{place}: cannot read {file} ({reason})") from None
    if readable_by_all and os.name == "posix":
        warn_once("readable_secret", str(file), "Every user of this machine can read %s; chmod o-r ends that.", file)
    try:
        return parse_keys(text)
    except ValueError as error:
        raise ValueError(f"{place}: {file}: {error}") from None


def _names(given: str | Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    words = given.split(",") if isinstance(given, str) else given
    if isinstance(words, (bytes, Mapping)) or not isinstance(words, Iterable):
        raise TypeError(f"metadata_allow must be strings, not {type(given).__name__}")
    names = [word.strip() if isinstance(word, str) else word for word in words]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"metadata_allow must be strings, and one of them is {type(name).__name__}")
    return frozenset(filter(None, names))
