"""Which headers travel on to the upstream, over either protocol."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping

from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import MalformedOtlpError

API_KEY_HEADER = "x-api-key"

WITHHELD_API_KEY = (
    f"the request carried {API_KEY_HEADER}, which the processor does not pass on unless it is started with"
    f" --forward-headers {API_KEY_HEADER}"
)
"""What to say where an upstream misses a key that the client did send."""

# What both gRPC and HTTP carry; a line end or a NUL would let a client write headers of its own.
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)


class OutgoingHeaders:
    """The configured headers and those of a request that are allowed to travel on.

    Args:
        configured: Sent with every request.
        forward: Names of request headers that travel on. A configured header wins over a forwarded one.
    """

    def __init__(self, configured: Mapping[str, str], forward: Iterable[str]) -> None:
        self._configured = tuple((name.lower(), value) for name, value in configured.items())
        self._forward = frozenset(name.lower() for name in forward) - {name for name, _ in self._configured}

    def text(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Return the headers for HTTP; binary ones are in base64, as gRPC writes them on the wire.

        Raises:
            MalformedOtlpError: A header that is to travel on holds what a header cannot.
        """
        forwarded = []
        for name, value in self._forwarded(request):
            text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
            forwarded.append((name, text))
        return (*self._configured, *forwarded)

    def metadata(self, request: Request) -> tuple[tuple[str, str | bytes], ...]:
        """Return the headers for gRPC, which takes the binary ones as bytes.

        Raises:
            MalformedOtlpError: A header that is to travel on holds what a header cannot.
        """
        forwarded: list[tuple[str, str | bytes]] = []
        for name, value in self._forwarded(request):
            if name.endswith("-bin") and isinstance(value, str):
                try:
                    forwarded.append((name, base64.b64decode(value + "=" * (-len(value) % 4), validate=True)))
                except binascii.Error:
                    raise MalformedOtlpError(f"the header {name} is not base64, as its name says it is") from None
            else:
                forwarded.append((name, value))
        return (*self._configured, *forwarded)

    def withholds_api_key(self, request: Request) -> bool:
        """Say whether the client sent an API key that did not travel on, and no other was sent in its place."""
        sent = self._forward | {name for name, _ in self._configured}
        return API_KEY_HEADER not in sent and any(name == API_KEY_HEADER for name, _ in request.headers)

    def _forwarded(self, request: Request) -> Iterable[tuple[str, str | bytes]]:
        for name, value in request.headers:
            if name not in self._forward:
                continue
            if isinstance(value, str) and not _VALUE.fullmatch(value):
                raise MalformedOtlpError(f"the header {name} holds characters that cannot travel on")
            yield name, value
