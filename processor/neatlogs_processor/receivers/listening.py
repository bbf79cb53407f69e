"""Taking an address to listen on, with errors that say what to do."""

from __future__ import annotations

import contextlib
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import ListenAddress

_BACKLOG = 1024


def cannot_listen(flag: str, address: ListenAddress) -> ConfigError:
    """Return the error of an address that cannot be taken."""
    return ConfigError(
        f"{flag}: cannot listen on {address}: the address is in use or not this machine's;"
        " stop the other process or choose another port"
    )


def check_socket_path(flag: str, path: Path) -> None:
    """Refuse a path that something else uses; whoever binds it next would unlink it without asking.

    A socket that nobody listens on was left behind by a process that died, and may be replaced.

    Raises:
        ConfigError: The path cannot be used.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ConfigError(f"{flag}: the folder of {path} does not exist; create it first") from None
        return
    except OSError as error:
        raise ConfigError(f"{flag}: cannot use {path} ({error.strerror})") from None
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{flag}: {path} exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return
    raise ConfigError(f"{flag}: another process listens on {path}; stop it or choose another path")


@dataclass(frozen=True)
class Bound:
    """Sockets that listen.

    Attributes:
        address: Where, with the port that was chosen where 0 was asked for.
        sockets: One for each address that the host's name stands for.
        inode: The socket file's, so that only our own file is removed.
    """

    address: ListenAddress
    sockets: tuple[socket.socket, ...]
    inode: int = 0

    def close(self) -> None:
        """Stop listening, and remove the socket file."""
        for one in self.sockets:
            one.close()
        if self.address.path:
            with contextlib.suppress(OSError):
                path = Path(self.address.path)
                if path.stat().st_ino == self.inode:
                    path.unlink()


def bind(flag: str, address: ListenAddress) -> Bound:
    """Listen on an address.

    Raises:
        ConfigError: The address is taken or cannot be used.
    """
    if address.path:
        return _bind_path(flag, address)
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise cannot_listen(flag, address) from None
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            # Connections of a process that ended do not keep its port; a process that still listens does.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] stands for every interface of both families, as it does for gRPC.
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
            one.bind((sockaddr[0], port, *sockaddr[2:]))
            one.listen(_BACKLOG)
            # All addresses of a name share the port that was chosen for the first.
            port = one.getsockname()[1]
    except OSError:
        for one in sockets:
            one.close()
        raise cannot_listen(flag, address) from None
    return Bound(address.with_port(port), tuple(sockets))


def _bind_path(flag: str, address: ListenAddress) -> Bound:
    path = Path(address.path)
    check_socket_path(flag, path)
    path.unlink(missing_ok=True)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(address.path)
        one.listen(_BACKLOG)
    except OSError as error:
        one.close()
        raise ConfigError(f"{flag}: cannot listen on {path} ({error.strerror or error})") from None
    return Bound(address, (one,), path.stat().st_ino)
