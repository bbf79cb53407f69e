"""An upstream that is the processor itself, under other names."""

from __future__ import annotations

import socket

import pytest

from neatlogs_processor.formats import Endpoint, ListenAddress
from neatlogs_processor.own_listener import points_at


@pytest.mark.parametrize(
    ("listen", "endpoint", "own"),
    [
        ("127.0.0.1:4317", "127.0.0.1:4317", True),
        ("127.0.0.1:4317", "localhost:4317", True),
        ("127.0.0.1:4317", "https://localhost:4317", True),
        ("127.0.0.1:4317", "[::1]:4317", True),
        ("127.0.0.1:4317", "[::ffff:127.0.0.1]:4317", True),
        ("127.0.0.1:4317", "0.0.0.0:4317", True),
        ("0.0.0.0:4317", "127.0.0.1:4317", True),
        ("[::]:4317", "localhost:4317", True),
        ("127.0.0.1:4317", "127.0.0.1:4318", False),
        ("127.0.0.1:4317", "192.0.2.1:4317", False),
        ("0.0.0.0:4317", "192.0.2.1:4317", False),
        ("0.0.0.0:4317", "collector.invalid:4317", False),
        ("unix:/run/a.sock", "unix:/run/../run/a.sock", True),
        ("unix:/run/a.sock", "unix:/run/b.sock", False),
        ("unix:/run/a.sock", "127.0.0.1:4317", False),
    ],
)
async def test_which_endpoints_lead_back_to_the_listener(listen: str, endpoint: str, own: bool) -> None:
    """The same port on an address of this machine that the listener serves is the listener."""
    assert await points_at(Endpoint.parse(endpoint), ListenAddress.parse(listen)) is own


async def test_this_machine_s_own_name_is_recognised_behind_every_interface() -> None:
    """A listener on all interfaces is also reached under the machine's own address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing: asks the system which address it would send from. Without a network it is the loopback's.
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            probe.connect(("127.0.0.1", 9))
        address = probe.getsockname()[0]
    assert await points_at(Endpoint(address, 4317), ListenAddress("0.0.0.0", 4317))
