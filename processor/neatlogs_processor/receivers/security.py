"""Who may send: keys on the receivers, checked before a body is read.

    tokens file     name token                      any signal, from anywhere
    browser keys    name key origin[,origin...]     traces only, from these origins, so many requests a second

A key in a browser is public, because everybody can read the page that holds it: it opens only what a page needs. An
origin is what a browser says; other programs can say the same, so the rate is what bounds the harm.
"""

from __future__ import annotations

import hmac
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import ConfigError, PermissionDeniedError, RateLimitedError, UnauthenticatedError
from neatlogs_processor.reloading import Reloading
from neatlogs_processor.telemetry import logger

Headers = Mapping[str, "str | bytes"]

Authenticate = Callable[[Signal, Headers], "str | None"]
"""Asked with a request's signal and headers (lower-case names) before any of its body is read.

Returns the name of the header that held the key: it was meant for the processor, so the receiver leaves it out of the
request, and no setting can pass it on. Raises `UnauthenticatedError`, `PermissionDeniedError` or `RateLimitedError`.
"""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{8,4096}", re.ASCII)
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-fA-F:.]+\](:\d{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Key:
    """One line of a keys file.

    Attributes:
        name: What people call it.
        digest: SHA-256 of the key; the key itself is not kept.
        origins: For a browser key, where it may be used; empty for a token.
    """

    name: str
    digest: bytes
    origins: frozenset[str] = frozenset()


class TokenBucket:
    """Lets through so many requests a second, and bursts of twice as many.

    Args:
        rate: Requests a second.
        now: Seconds of a monotonic clock.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._size = max(1.0, 2 * rate)
        self._level = self._size
        self._then = now

    def take(self, now: float) -> float:
        """Take one request, and return 0; or, if there is none, the seconds until there is."""
        self._level = min(self._size, self._level + max(0.0, now - self._then) * self._rate)
        self._then = now
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._rate


class Authenticator:
    """Checks requests against the keys of files; see `Authenticate`.

    Args:
        tokens_file: Tokens (`--auth-tokens-file`).
        browser_keys_file: Browser keys (`--browser-keys-file`).
        browser_key_rate: Requests a second for each browser key.
        clock: Returns seconds.

    Raises:
        ConfigError: A file cannot be used.
    """

    def __init__(
        self,
        *,
        tokens_file: Path | None = None,
        browser_keys_file: Path | None = None,
        browser_key_rate: float = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files: list[Reloading[tuple[Key, ...]]] = []
        if tokens_file is not None:
            self._files.append(
                Reloading([tokens_file], lambda: read_keys(tokens_file, "--auth-tokens-file"), clock=clock)
            )
        if browser_keys_file is not None:
            self._files.append(
                Reloading(
                    [browser_keys_file],
                    lambda: read_keys(browser_keys_file, "--browser-keys-file", origins=True),
                    clock=clock,
                )
            )
        self._rate = browser_key_rate
        self._clock = clock
        self._buckets: dict[bytes, TokenBucket] = {}

    @property
    def origins(self) -> frozenset[str]:
        """Where the browser keys may be used."""
        return frozenset(origin for file in self._files for key in file.get() for origin in key.origins)

    def __call__(self, signal: Signal, headers: Headers) -> str | None:
        """See `Authenticate`."""
        found = False
        for header, presented in _presented(headers):
            found = True
            key = self._find(presented)
            if key is not None:
                if key.origins:
                    self._check_browser(key, signal, headers)
                return header
        if found:
            raise UnauthenticatedError("the key is not known")
        raise UnauthenticatedError("a key is needed: send Authorization: Bearer KEY, or x-api-key: KEY")

    def _find(self, presented: str) -> Key | None:
        digest = sha256(presented.encode("utf-8", "surrogatepass")).digest()
        match = None
        # Every key is compared, each in constant time: how long it takes tells nothing about what was nearly right.
        for file in self._files:
            for key in file.get():
                if hmac.compare_digest(key.digest, digest):
                    match = match or key
        return match

    def _check_browser(self, key: Key, signal: Signal, headers: Headers) -> None:
        if signal is not Signal.TRACES:
            raise PermissionDeniedError("a browser key may send traces only")
        if headers.get("origin") not in key.origins:
            raise PermissionDeniedError("this browser key may not be used from here; --browser-keys-file lists where")
        now = self._clock()
        bucket = self._buckets.get(key.digest)
        if bucket is None:
            bucket = self._buckets[key.digest] = TokenBucket(self._rate, now)
        wait = bucket.take(now)
        if wait > 0:
            raise RateLimitedError(
                f"more than {self._rate:g} requests a second with this key (--browser-key-rate)", retry_after=wait
            )


def read_keys(path: Path, flag: str, *, origins: bool = False) -> tuple[Key, ...]:
    """Read a keys file: `name key`, or `name key origin,origin`, one a line; empty lines and `#` lines are skipped.

    Args:
        path: The file.
        flag: Who named it, for messages.
        origins: Whether each line has origins.

    Raises:
        ConfigError: It cannot be used. The message names the line and repeats nothing of it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        readable_by_all = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise ConfigError(f"{flag}: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{flag}: {path} is not UTF-8 text") from None
    if readable_by_all:
        logger.warning("%s: every user of this machine can read %s; chmod o-r takes that away", flag, path)
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            keys.append(_key(words, keys, origins=origins))
        except ValueError as error:
            raise ConfigError(f"{flag}: {path}: line {number}: {error}") from None
    if not keys:
        raise ConfigError(f"{flag}: {path} holds no key, so nobody could send; write one a line: name key")
    return tuple(keys)


def _key(words: Sequence[str], before: Sequence[Key], *, origins: bool) -> Key:
    if len(words) != (3 if origins else 2):
        raise ValueError("write name key https://app.example.com" if origins else "write name token")
    name, secret, *rest = words
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes and underscores")
    if not _KEY.fullmatch(secret):
        raise ValueError("a key has 8 to 4096 printable ASCII characters")
    digest = sha256(secret.encode()).digest()
    if any(key.name == name or key.digest == digest for key in before):
        raise ValueError("this name or this key is there twice")
    allowed = frozenset(rest[0].split(",")) if origins else frozenset()
    if not all(_ORIGIN.fullmatch(origin) for origin in allowed):
        raise ValueError("an origin is written as https://app.example.com, without a path; several with commas")
    return Key(name, digest, frozenset(origin.lower() for origin in allowed))


def _presented(headers: Headers) -> Iterator[tuple[str, str]]:
    """Return the keys that a request holds, with their headers."""
    authorization = headers.get("authorization")
    if isinstance(authorization, str):
        scheme, _, credentials = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and credentials.strip():
            yield "authorization", credentials.strip()
    api_key = headers.get("x-api-key")
    if isinstance(api_key, str) and api_key.strip():
        yield "x-api-key", api_key.strip()
