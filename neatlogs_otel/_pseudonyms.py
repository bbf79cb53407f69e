"""Pseudonyms: what stands for an end-user id outside, made with a key that stays inside.

    pseudonym = key id ":" hex(HMAC-SHA-256(secret, "neatlogs.end_user.id" NUL id))

The hexadecimal digits are lower case, 64 of them, never fewer: a shortened pseudonym merges two end users. The id is
its UTF-8 bytes as they came, without any normal form. The attribute's key in front of it separates this use of a secret
from any other. The processor and the TypeScript package make the same. https://www.rfc-editor.org/rfc/rfc2104
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from neatlogs_otel.conventions import END_USER_ID

MIN_SECRET_BYTES: Final = 32
"""A shorter secret could be guessed before an id is."""

_DOMAIN: Final = END_USER_ID.encode() + b"\0"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,15}")
_PSEUDONYM: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,15}):[0-9a-f]{64}")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


@dataclass(frozen=True)
class PseudonymKey:
    """A key: what it is called in front of each pseudonym, and its secret, which is never shown."""

    key_id: str
    secret: bytes = field(repr=False)

    def pseudonym(self, end_user_id: str) -> str:
        """What stands for the id under this key."""
        message = _DOMAIN + end_user_id.encode("utf-8", "surrogatepass")
        return f"{self.key_id}:{hmac.digest(self.secret, message, 'sha256').hex()}"


class PseudonymKeys:
    """The keys of a file: the first one writes, all of them are known.

    Args:
        keys: At least one; as `parse_keys` returns them.
    """

    def __init__(self, keys: Sequence[PseudonymKey]) -> None:
        self._keys = tuple(keys)
        self._known = frozenset(key.key_id for key in keys)

    def pseudonym(self, end_user_id: str) -> str:
        """What leaves for an id.

        What is a pseudonym of a known key already stays as it is, so that a shim and a processor, or two processors,
        come to the same; so does an id that names nobody.
        """
        if not end_user_id.strip() or self.is_pseudonym(end_user_id):
            return end_user_id
        return self._keys[0].pseudonym(end_user_id)

    def is_pseudonym(self, text: str) -> bool:
        """Whether the text has the form of a pseudonym of a known key."""
        match = _PSEUDONYM.fullmatch(text)
        return match is not None and match[1] in self._known


def parse_keys(text: str) -> PseudonymKeys:
    """Read a file of keys: `key-id secret`, one a line; empty lines, `#` lines and a byte order mark are skipped.

    A secret of hexadecimal digits alone is read as such, every other one as base64 (of either alphabet, with or without
    padding).

    Raises:
        ValueError: It holds no key, or a line cannot be used. The message names the line and repeats nothing of it.
    """
    keys: list[PseudonymKey] = []
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), 1):
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            key = _key(words)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if any(known.key_id == key.key_id or known.secret == key.secret for known in keys):
            raise ValueError(f"line {number}: this key id or this secret is there twice")
        keys.append(key)
    if not keys:
        raise ValueError("it holds no key; write one a line: key-id secret")
    return PseudonymKeys(keys)


def _key(words: Sequence[str]) -> PseudonymKey:
    if len(words) != 2:
        raise ValueError("write key-id secret")
    key_id, written = words
    if _KEY_ID.fullmatch(key_id) is None:
        raise ValueError(
            "a key id has 1 to 16 letters, digits, dashes and underscores, and begins with none of those two"
        )
    secret = _decoded(written)
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"a secret has at least {MIN_SECRET_BYTES} bytes; openssl rand -hex 32 makes one")
    return PseudonymKey(key_id, secret)


def _decoded(written: str) -> bytes:
    wrong = "a secret is written in hexadecimal digits (an even number of them) or base64"
    if _HEX.fullmatch(written):
        if len(written) % 2:
            raise ValueError(wrong)
        return bytes.fromhex(written)
    if _BASE64.fullmatch(written) is None:
        raise ValueError(wrong)
    digits = written.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4))
    except binascii.Error:
        raise ValueError(wrong) from None
