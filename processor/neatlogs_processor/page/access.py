"""Who may see the page: the name it is asked for under, and the token that it asks for.

A page without a token relies on the loopback interface. A web site cannot reach it there under its own name, because
the `Host` of every request is checked (DNS rebinding); it can send requests, but it cannot read the answers, and
nothing changes by GET.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from neatlogs_processor.errors import ConfigError

COOKIE: Final = "neatlogs_page"
SESSION_SECONDS: Final = 30 * 86_400
MIN_TOKEN_CHARS: Final = 16
_MAX_CLIENTS: Final = 1000
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/?#@\[\]]+))(?::[0-9]{1,5})?")


def read_token(path: Path) -> str:
    """Return the token of a page-token file: its only line that is not empty.

    Raises:
        ConfigError: It cannot be read, or holds no token that is hard to guess.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--page-token-file: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--page-token-file: {path} is not UTF-8 text") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or len(lines[0]) < MIN_TOKEN_CHARS:
        raise ConfigError(
            f"--page-token-file: {path} must hold one line with a token of at least {MIN_TOKEN_CHARS} characters;"
            " openssl rand -hex 24 makes one"
        )
    return lines[0]


def host_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Tell whether a page may be asked for under this name.

    Addresses are always allowed, and so are `localhost` and names below it: rebinding needs a name in the DNS.

    Args:
        host: The `Host` header, with or without a port.
        allowed: Names in lower case; `*` allows all, `*.example.com` every name below it.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return True
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return any(one in ("*", name) or (one.startswith("*.") and name.endswith(one[1:])) for one in allowed)


class PageToken:
    """Compares tokens, and signs and reads the cookie of those who knew it. Safe to use from any thread.

    A new token ends all sessions. Nothing about sessions is stored.

    Args:
        token: Returns the token as it is now.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, token: Callable[[], str], *, clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._clock = clock

    def matches(self, offered: str) -> bool:
        """Tell whether this is the token, in a time that says nothing about it."""
        return hmac.compare_digest(_digest(offered), _digest(self._token()))

    def cookie(self) -> str:
        """Return the value of a cookie that is good from now for `SESSION_SECONDS`."""
        expires = str(int(self._clock()) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def accepts(self, cookie: str) -> bool:
        """Tell whether a cookie is ours and still good."""
        expires, _, signature = cookie.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        ours = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return ours and self._clock() < int(expires)

    def _sign(self, text: str) -> str:
        key = _digest("cookie:" + self._token())
        return base64.urlsafe_b64encode(hmac.digest(key, text.encode(), "sha256")).decode().rstrip("=")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Attempts:
    """Bounds wrong tokens: so many a client in a row, and ten times as many of all clients, which then refill slowly.

    A client that has known the token is not held up by the guesses of others.

    Args:
        burst: How many wrong tokens one client may offer at once.
        refill: Seconds until it may offer one more.
        clock: Returns seconds.
    """

    def __init__(self, *, burst: int = 10, refill: float = 6.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._refill = refill
        self._clock = clock
        self._lock = threading.Lock()
        # For each client the time at which its allowance is whole again.
        self._whole: OrderedDict[str, float] = OrderedDict()
        self._all_whole = 0.0
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait(self, client: str) -> float:
        """Return the seconds until this client may try; 0 where it may now."""
        with self._lock:
            now = self._clock()
            allowance = self._burst * self._refill
            own = self._whole.get(client, 0.0) + self._refill - allowance - now
            everyone = self._all_whole + self._refill / 10 - allowance - now
            return max(0.0, own) if client in self._known else max(0.0, own, everyone)

    def succeeded(self, client: str) -> None:
        """Remember that this client knew the token."""
        with self._lock:
            self._known[client] = None
            self._known.move_to_end(client)
            while len(self._known) > _MAX_CLIENTS:
                self._known.popitem(last=False)

    def failed(self, client: str) -> None:
        """Count a wrong token."""
        with self._lock:
            now = self._clock()
            self._whole[client] = max(now, self._whole.get(client, 0.0)) + self._refill
            self._whole.move_to_end(client)
            while len(self._whole) > _MAX_CLIENTS:
                self._whole.popitem(last=False)
            self._all_whole = max(now, self._all_whole) + self._refill / 10
