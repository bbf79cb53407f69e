"""Accepting: what other SDKs say about the end user becomes the identity of spans that own one and have none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.identity_keys import Carries, IdentityKey, sought_by
from neatlogs_processor.core.metadata_text import members_text, object_text
from neatlogs_processor.core.owner_spans import Changes, Edited, SpanAttributes, edit_owners
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.schema import END_USER_ID, END_USER_METADATA, END_USER_SOURCE, NAMESPACE, SESSION_ID
from neatlogs_processor.core.sought import Sought

# What Logfire leaves of a value that might be a secret: under "session" always, else of values such as "auth0|812".
_SCRUBBED: Final = "[Scrubbed due to "


# What a span may say of its own.
_OWN: Final = Sought((SESSION_ID,), (NAMESPACE,))


class Accepting:
    """Gives spans that own identity, and have none, the one that stands there under other keys.

    The first key with a usable value counts: text that is not blank and was not scrubbed, or an int. Id and metadata
    are one unit: a span with an id of its own takes no metadata, and one whose own id is of no use takes nobody's. What
    stands under the other keys stays there.

    Args:
        keys: What is looked for, in this order.
        strip: Whether the keys are removed from all other spans.
    """

    def __init__(self, keys: Sequence[IdentityKey], *, strip: bool) -> None:
        self._of = {what: [(one.wire, one.key) for one in keys if one.carries is what] for what in Carries}
        self._metadata = [(one.wire, one.carries) for one in keys if one.carries in (Carries.METADATA, Carries.MEMBERS)]
        # A key that is listed for something else is not a member of the metadata, whatever it begins with.
        self._listed = frozenset(one.wire for one in keys if one.carries is not Carries.MEMBERS)
        self._seek = sought_by(keys)
        self._strip = sought_by(keys) if strip else Sought()

    def __call__(self, body: bytes, policy: EndUserPolicy) -> Edited:
        """Accept in a request that the rule has not seen yet.

        Raises:
            MalformedOtlpError: The framing around one of the keys does not add up, or what has to be read or edited
                cannot be read.
        """
        return edit_owners(body, policy, seek=self._seek, edit=self._edit, strip=self._strip, beside=_OWN)

    def _edit(self, attributes: SpanAttributes) -> Changes | None:
        put: dict[bytes, str] = {}
        identity = attributes.identity()
        if identity.end_user_id is None and not identity.refused:
            accepted = self._first(attributes, Carries.USER)
            if accepted is not None:
                put[END_USER_ID], put[END_USER_SOURCE] = accepted
            metadata = self._accepted_metadata(attributes)
            if metadata is not None and END_USER_METADATA not in identity.values:
                put[END_USER_METADATA] = metadata
        session = self._first(attributes, Carries.SESSION)
        if session is not None and all(_is_blank(value) for value in attributes.values(SESSION_ID)):
            put[SESSION_ID] = session[0]
        return Changes(put) if put else None

    def _first(self, attributes: SpanAttributes, what: Carries) -> tuple[str, str] | None:
        """The first usable value, and the key that it stands under."""
        for wire, key in self._of[what]:
            text = attributes.usable(wire)
            # Else all whose ids were scrubbed would be one end user.
            if text is not None and not text.startswith(_SCRUBBED):
                return text, key
        return None

    def _accepted_metadata(self, attributes: SpanAttributes) -> str | None:
        for wire, carries in self._metadata:
            if carries is Carries.METADATA:
                texts = (object_text(value) for value in attributes.values(wire))
                text = next((text for text in texts if text is not None), None)
            else:
                text = members_text(self._members(attributes, wire))
            if text is not None:
                return text
        return None

    def _members(self, attributes: SpanAttributes, prefix: bytes) -> dict[str, AnyValue]:
        members: dict[str, AnyValue] = {}
        for key in attributes:
            if key.startswith(prefix) and key != prefix and key not in self._listed:
                members[key[len(prefix) :].decode("utf-8", "replace")] = next(attributes.values(key))
        return members


def _is_blank(value: AnyValue) -> bool:
    return value.HasField("string_value") and not value.string_value.strip()
