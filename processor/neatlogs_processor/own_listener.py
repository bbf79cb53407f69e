"""Recognises an upstream that is the processor itself, under whatever name it is written."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

from neatlogs_processor.formats import Endpoint, ListenAddress


async def points_at(endpoint: Endpoint, address: ListenAddress) -> bool:
    """Say whether an endpoint leads to a listener of this machine, under whatever name it is written."""
    if endpoint.path or address.path:
        return bool(endpoint.path and address.path) and Path(endpoint.path).resolve() == Path(address.path).resolve()
    if endpoint.port != address.port:
        return False
    ours = await _addresses(address.host)
    theirs = await _addresses(endpoint.host)
    if ours & theirs:
        return True
    # Every loopback address reaches a listener on this machine's loopback in practice: which of them a name such as
    # localhost means differs from one resolver to the next.
    if any(one.is_loopback for one in ours) and any(one.is_loopback or one.is_unspecified for one in theirs):
        return True
    return any(one.is_unspecified for one in ours) and any(_is_local(one) for one in theirs)


async def _addresses(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        # A name that does not resolve (yet) leads nowhere; forwarding will say so.
        return set()
    addresses = set()
    for *_, sockaddr in found:
        one = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
        addresses.add(getattr(one, "ipv4_mapped", None) or one)
    return addresses


def _is_local(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether an address belongs to this machine: only then can a socket be bound to it."""
    if one.is_unspecified or one.is_loopback:
        return True
    try:
        with socket.socket(socket.AF_INET if one.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(one), 0))
    except OSError:
        return False
    return True
