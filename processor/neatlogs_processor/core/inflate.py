"""gzip, undone within a limit: how much comes out is decided here, not by whoever compressed it."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from neatlogs_processor.errors import MalformedOtlpError

GZIP_MAGIC = b"\x1f\x8b"
"""How every gzip member begins. No OTLP message does: as a protobuf tag, 0x1f has a wire type that does not exist."""

_STEP = 256 * 1024
"""Bytes asked for at once: what a compressed byte may become before somebody looks at the size."""


_MAX_MEMBERS = 4096
"""Beginning a member costs far more than its bytes do, so a body of empty ones would be cheap to send only."""


class Inflater:
    """Decompresses a gzip stream that arrives in pieces; several members one after the other are one stream.

    The cost is linear in what goes in and comes out, and after `grown` has refused, nothing more is held.

    Args:
        grown: Called with the number of bytes about to be added to what `feed` has returned so far, before they are
            kept. It ends the work by raising.
    """

    def __init__(self, grown: Callable[[int], None]) -> None:
        self._grown = grown
        self._member: zlib._Decompress | None = None
        self._members = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces that come out of one piece.

        Raises:
            MalformedOtlpError: This is no gzip.
        """
        out: list[bytes] = []
        # A view: cutting the rest off for each member would copy it as often as there are members.
        rest = memoryview(data)
        while rest:
            if self._member is None:
                self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise MalformedOtlpError(f"the gzip body has more than {_MAX_MEMBERS} members")
            member = self._member
            taken = rest[:_STEP]
            rest = rest[_STEP:]
            pending: bytes | memoryview = taken
            while True:
                try:
                    piece = member.decompress(pending, _STEP)
                except zlib.error as error:
                    raise MalformedOtlpError(f"the gzip body cannot be read ({error})") from None
                if piece:
                    self._grown(len(piece))
                    out.append(piece)
                if member.eof:
                    unused = len(member.unused_data)
                    rest = memoryview(data)[len(data) - len(rest) - unused :]
                    self._member = None
                    break
                pending = member.unconsumed_tail
                if not pending and len(piece) < _STEP:
                    break
        return out

    def finish(self) -> None:
        """Say that nothing more comes.

        Raises:
            MalformedOtlpError: The stream ends in the middle, or never began.
        """
        if self._member is not None or not self._members:
            raise MalformedOtlpError("the gzip body ends too early")


def inflate(data: bytes, grown: Callable[[int], None]) -> bytes:
    """Decompress a whole gzip body; see `Inflater`.

    Raises:
        MalformedOtlpError: This is no gzip, or it is cut off.
    """
    inflater = Inflater(grown)
    pieces = inflater.feed(data)
    inflater.finish()
    return b"".join(pieces)
