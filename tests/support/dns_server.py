"""A DNS server that knows one name, as of a headless Service: its addresses are those of the processors that run."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator

_A, _IN = 1, 1
_RESPONSE = 0x8580
"""An answer (QR), authoritative (AA), with recursion as it was asked for (RD, RA), and no error."""


class Names(asyncio.DatagramProtocol):
    """Answers every question for A records with `addresses`; there is no other kind of record.

    Args:
        addresses: IPv4 addresses; may be changed at any time.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # the only kind
        """Remember where answers go."""
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question (https://www.rfc-editor.org/rfc/rfc1035#section-4)."""
        assert self._transport is not None
        end = 12
        while data[end]:
            end += 1 + data[end]
        question = data[12 : end + 5]
        kind = int.from_bytes(question[-4:-2], "big")
        addresses = self.addresses if kind == _A else []
        self.asked += kind == _A
        header = data[:2] + struct.pack("!5H", _RESPONSE, 1, len(addresses), 0, 0)
        # A pointer to the name in the question, then type, class, seconds to live and the address.
        answers = [
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4) + ipaddress.IPv4Address(one).packed for one in addresses
        ]
        self._transport.sendto(header + question + b"".join(answers), addr)


@contextlib.asynccontextmanager
async def dns_server(*addresses: str) -> AsyncIterator[Names]:
    """Serve these addresses on a port of 127.0.0.1 until the block ends."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Names(*addresses), local_addr=("127.0.0.1", 0)
    )
    try:
        yield names
    finally:
        transport.close()
