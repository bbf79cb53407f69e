"""Emitting: identity under the keys that a backend looks for, on the spans that own it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from neatlogs_processor.core.identity_keys import EVERY_SPANS_OWN, Carries, IdentityKey, sought_by
from neatlogs_processor.core.metadata_text import member_texts
from neatlogs_processor.core.owner_spans import Changes, Edited, SpanAttributes, edit_owners
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.schema import END_USER_ID, END_USER_METADATA, SESSION_ID
from neatlogs_processor.core.sought import Sought

# Without one of these there is nothing to emit.
_IDENTITY: Final = Sought((END_USER_ID, SESSION_ID))


class Emitting:
    """Adds identity under other keys to spans that own it, and takes these keys from all other spans.

    A key is added only where it is absent, and only with something to say: without an end user neither id nor
    metadata, without a session no session. From children a key goes because it is an identity key now; except one
    that says something about whichever span it stands on.

    Args:
        keys: What is added.
    """

    def __init__(self, keys: Sequence[IdentityKey]) -> None:
        self._keys = [(one.wire, one.carries) for one in keys]
        # A key that is listed for something else is never that of a member, whatever the metadata holds.
        self._listed = frozenset(one.wire for one in keys if one.carries is not Carries.MEMBERS)
        self._strip = sought_by(one for one in keys if one.key not in EVERY_SPANS_OWN)
        self._beside = sought_by(keys) | Sought((END_USER_METADATA,))

    def __call__(self, body: bytes, policy: EndUserPolicy) -> Edited:
        """Emit in an enforced request.

        Raises:
            MalformedOtlpError: A container that has to be edited cannot be read.
        """
        return edit_owners(body, policy, seek=_IDENTITY, edit=self._edit, strip=self._strip, beside=self._beside)

    def _edit(self, attributes: SpanAttributes) -> Changes | None:
        # One text for each key is what the rule has left.
        end_user_id = attributes.usable(END_USER_ID)
        metadata = None if end_user_id is None else attributes.usable(END_USER_METADATA)
        texts = {Carries.USER: end_user_id, Carries.METADATA: metadata, Carries.SESSION: attributes.usable(SESSION_ID)}
        put: dict[bytes, str] = {}
        for wire, carries in self._keys:
            if carries is not Carries.MEMBERS:
                text = texts[carries]
                if text is not None and wire not in attributes:
                    put[wire] = text
            elif metadata is not None:
                for name, text in member_texts(metadata).items():
                    key = wire + name.encode()
                    if key not in attributes and key not in self._listed:
                        put.setdefault(key, text)
        return Changes(put) if put else None
