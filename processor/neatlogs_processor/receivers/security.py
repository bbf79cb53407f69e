"""Who may send: keys on the receivers, checked before a body is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neatlogs_processor.core.request import Signal

Authenticate = Callable[[Signal, Mapping[str, str | bytes]], None]
"""Asked with a request's signal and headers (lower-case names) before any of its body is read. Returns where the client
may send, and raises `UnauthenticatedError`, `PermissionDeniedError` or `RateLimitedError` where it may not."""
