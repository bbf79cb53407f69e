"""Pseudonymizing: ids leave as pseudonyms and metadata by allow-list, wherever the rule and other SDKs have put them.

It comes behind the rule, so that the identity namespace stands on the spans that own identity alone, and before what is
emitted. What is accepted or emitted under other keys is identity too, and treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from neatlogs_processor.core.allowed_metadata import AllowedMetadata
from neatlogs_processor.core.identity_keys import EVERY_SPANS_OWN, Carries, IdentityKey, sought_by
from neatlogs_processor.core.metadata_text import MAX_METADATA_CHARS, object_text
from neatlogs_processor.core.owner_spans import Changes, Edited, SpanAttributes, edit_owners
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.pseudonyms import PseudonymKeys
from neatlogs_processor.core.schema import END_USER_ID, END_USER_METADATA, END_USER_SOURCE, NAMESPACE, in_namespace
from neatlogs_processor.core.sought import Sought

_Fate: TypeAlias = "str | bool"
"""What becomes of an attribute: it stays as it is, goes, or stands there with another text."""


class Pseudonymizing:
    """Lets of identity out what may leave.

    On spans that own identity: ids become pseudonyms, metadata is cut to what is allowed and removed where it is no
    JSON object, and of the identity namespace nothing else but the source stays. Other keys that carry an id or
    metadata are treated alike, and go from all other spans. Sessions stay as they are.

    Args:
        keys: Returns the keys as they are now; `None` leaves ids as they are.
        metadata: What of metadata may leave.
        others: The other keys that identity is accepted from or emitted under.
    """

    def __init__(
        self,
        keys: Callable[[], PseudonymKeys] | None,
        metadata: AllowedMetadata,
        others: Sequence[IdentityKey] = (),
    ) -> None:
        self._keys = keys
        self._metadata = metadata
        carrying = {Carries.METADATA, Carries.MEMBERS, *([] if keys is None else [Carries.USER])}
        treated = [one for one in others if one.carries in carrying]
        # A key may be accepted as one thing and emitted as another: then the one that is treated counts.
        self._listed = {one.wire: one for one in (*others, *treated) if one.carries is not Carries.MEMBERS}
        # The longest first: of prefixes inside each other it says most about a key.
        prefixes = {one.wire for one in treated if one.carries is Carries.MEMBERS}
        self._prefixes = sorted(prefixes, key=len, reverse=True)
        self._treated = frozenset(treated)
        self._seek = sought_by(treated) | Sought((), (NAMESPACE,))
        self._strip = sought_by(one for one in treated if one.key not in EVERY_SPANS_OWN)

    def __call__(self, body: bytes, policy: EndUserPolicy) -> Edited:
        """Pseudonymize an enforced request.

        Raises:
            MalformedOtlpError: A container that has to be edited cannot be read.
        """
        work = _Work(None if self._keys is None else self._keys(), self._metadata)

        def edit(attributes: SpanAttributes) -> Changes | None:
            fates = {key: self._fate(key, attributes, work) for key in attributes}
            put = {key: fate for key, fate in fates.items() if isinstance(fate, str)}
            removed = {key for key, fate in fates.items() if fate is False}
            return Changes(put, removed) if put or removed else None

        edited = edit_owners(body, policy, seek=self._seek, edit=edit, strip=self._strip)
        edited.invalid = work.invalid
        return edited

    def _fate(self, key: bytes, attributes: SpanAttributes, work: _Work) -> _Fate:
        if in_namespace(key):
            return work.of_the_namespace(key, attributes)
        one = self._listed.get(key)
        if one is None:
            # An attribute that readers could disagree about may stand under any key.
            prefix = next((prefix for prefix in self._prefixes if key.startswith(prefix)), None)
            return prefix is None or work.allows(key[len(prefix) :].decode("utf-8", "replace"))
        if one not in self._treated:
            return True
        return work.end_user_id(key, attributes) if one.carries is Carries.USER else work.object(key, attributes)


class _Work:
    """The work on one request, which keeps to the keys of its beginning.

    Attributes:
        invalid: Identity attributes that were removed because of their value.
    """

    def __init__(self, keys: PseudonymKeys | None, metadata: AllowedMetadata) -> None:
        self._keys = keys
        self._metadata = metadata
        self.invalid = 0

    def of_the_namespace(self, key: bytes, attributes: SpanAttributes) -> _Fate:
        """Say what becomes of an attribute of the identity namespace. The rule has left one string for each key."""
        if key == END_USER_ID:
            # An id that names nobody may stay.
            return self._keys is None or self.end_user_id(key, attributes) or True
        if key == END_USER_METADATA:
            return self.object(key, attributes, counted=True)
        if key == END_USER_SOURCE:
            return True
        self.invalid += 1
        return False

    def end_user_id(self, key: bytes, attributes: SpanAttributes) -> _Fate:
        """Say what becomes of an id: what no id can be goes."""
        text = attributes.usable(key)
        return False if text is None or self._keys is None else self._keys.pseudonym(text)

    def object(self, key: bytes, attributes: SpanAttributes, *, counted: bool = False) -> _Fate:
        """Say what becomes of metadata: what is no JSON object goes, and is `counted` where that makes it invalid."""
        value = next(attributes.values(key))
        text = value.string_value if value.HasField("string_value") else object_text(value)
        try:
            left = "" if text is None or len(text) > MAX_METADATA_CHARS else self._metadata.of(text)
        except ValueError:
            left = ""
        self.invalid += counted and left == ""
        return left or False

    def allows(self, name: str) -> bool:
        """Tell whether a member of metadata that has an attribute of its own stays."""
        return self._metadata.allows(name)
