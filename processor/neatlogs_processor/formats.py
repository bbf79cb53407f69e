"""The formats in which settings are written: addresses, headers, sizes, durations.

Every parser raises `ValueError` with a message that says what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

_SIZE_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_DURATION_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
# https://www.rfc-editor.org/rfc/rfc9110#name-tokens without upper case, which gRPC does not send.
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
# gRPC and HTTP write these themselves.
_RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_BASE = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", re.ASCII)
_SIGNAL_PATH = re.compile(r"(?:^|/)(v1/(?:traces|metrics|logs))/*$")
# https://www.rfc-editor.org/rfc/rfc6454#section-6.2
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d+)?", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CLICKHOUSE_EXAMPLE = "user@host:8123/database"
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # replaced here, not bound
_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1|localhost", re.ASCII)


@dataclass(frozen=True)
class ListenAddress:
    """Where a listener accepts connections: `host:port` or `unix:PATH`.

    Attributes:
        host: A name or an address without brackets; empty for a socket file.
        port: 0 asks for any free port.
        path: The socket file; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str, *, write: str = "127.0.0.1:4317") -> ListenAddress:
        """Read `host:port`, `[v6]:port` or `unix:PATH`; what cannot be read is answered with what to write."""
        if text.startswith("unix:"):
            return cls(path=_socket_path(text))
        host, port = _host_and_port(text, example=write)
        return cls(host, port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return bool(self.path) or _LOOPBACK.fullmatch(self.host.lower()) is not None

    @property
    def target(self) -> str:
        """The address as gRPC writes it."""
        return f"unix:{self.path}" if self.path else _join(self.host, self.port)

    @property
    def reachable(self) -> ListenAddress:
        """The address by which this machine reaches it: loopback, where it stands for all interfaces."""
        return replace(self, host=_LOOPBACK_OF.get(self.host, self.host))

    def with_port(self, port: int) -> ListenAddress:
        """Return the address with the port that the system chose."""
        return self if self.path else replace(self, port=port)

    def __str__(self) -> str:
        return self.target


@dataclass(frozen=True)
class Endpoint:
    """Where an upstream listens: `http(s)://host[:port][/base]`, `host:port` (no TLS) or `unix:PATH`.

    Attributes:
        host: A name or an address without brackets; empty for a socket file.
        port: 1 to 65535; 0 for a socket file.
        path: The socket file; empty for TCP.
        tls: Whether the connection is encrypted.
        base: What stands before OTLP/HTTP's own paths, without a slash at its end; gRPC has none.
        port_is_implied: The scheme chose the port.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    base: str = ""
    port_is_implied: bool = False

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint; the scheme decides about TLS."""
        text = text.strip()
        if text.startswith("unix:"):
            return cls(path=_socket_path(text))
        scheme, separator, rest = text.rpartition("://")
        if scheme.lower() not in ("", "http", "https") or (separator and not scheme):
            raise ValueError(f"{scheme}:// is not supported; write http://host:port, https://host:port or unix:PATH")
        address, slash, base = rest.partition("/")
        if "@" in address:
            raise ValueError("credentials do not belong into an endpoint; use --upstream-headers-file")
        if slash and not _BASE.fullmatch(base):
            raise ValueError("a path is written as in http://host:port/base, without query or fragment")
        if (signal := _SIGNAL_PATH.search(base)) is not None:
            raise ValueError(f"leave {signal[1]} out: it is added for each signal")
        tls = scheme.lower() == "https"
        implied = bool(separator) and re.search(r":[^\]]*$", address) is None
        if implied:
            address += ":443" if tls else ":80"
        host, port = _host_and_port(address, example=f"{scheme or 'http'}://collector:4317")
        if port == 0:
            raise ValueError("port 0 cannot be connected to; write the upstream's port")
        base = "/" + base.rstrip("/") if base.rstrip("/") else ""
        return cls(host, port, tls=tls, base=base, port_is_implied=implied)

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine and nowhere else."""
        return bool(self.path) or _LOOPBACK.fullmatch(self.host.lower()) is not None

    @property
    def target(self) -> str:
        """The endpoint as gRPC writes it."""
        return f"unix:{self.path}" if self.path else _join(self.host, self.port)

    def __str__(self) -> str:
        return self.target if self.path else f"{'https' if self.tls else 'http'}://{self.target}{self.base}"


@dataclass(frozen=True)
class ClickHouseAddress:
    """A database of a ClickHouse server, reached over HTTP: `clickhouse://[user@]host[:port]/database`.

    Attributes:
        host: A name or an address without brackets.
        port: 1 to 65535.
        user: Who asks.
        database: An identifier of letters, digits and underscores.
        tls: Whether the connection is encrypted: `clickhouses://`, or `?secure=1`.
    """

    host: str
    port: int
    user: str = "default"
    database: str = "default"
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> ClickHouseAddress:
        """Read an address. It holds no password, because a process list shows it."""
        scheme, _, rest = text.strip().partition("://")
        user, at, place = rest.rpartition("@")
        if ":" in user:
            raise ValueError(
                "a password does not belong here, where the process list shows it: write it into a file and name that"
                " with --store-password-file, or set CLICKHOUSE_PASSWORD"
            )
        place, _, query = place.partition("?")
        if query not in ("", "secure=0", "secure=1"):
            raise ValueError(
                f"{query!r} is not known here; write clickhouse://{_CLICKHOUSE_EXAMPLE}, or ?secure=1 for TLS"
            )
        tls = scheme.lower() == "clickhouses" or query == "secure=1"
        address, _, database = place.partition("/")
        if not _IDENTIFIER.fullmatch(database or "default"):
            raise ValueError(f"{database!r} is not a name of a database; write clickhouse://{_CLICKHOUSE_EXAMPLE}")
        if re.search(r":[^\]]*$", address) is None:
            address += ":8443" if tls else ":8123"
        host, port = _host_and_port(address, example=f"clickhouse://{_CLICKHOUSE_EXAMPLE}")
        if port == 0 or (at and not user):
            raise ValueError(f"write clickhouse://{_CLICKHOUSE_EXAMPLE}")
        return cls(host, port, unquote(user) or "default", database or "default", tls=tls)

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine and nowhere else."""
        return _LOOPBACK.fullmatch(self.host.lower()) is not None

    def __str__(self) -> str:
        scheme = "clickhouses" if self.tls else "clickhouse"
        return f"{scheme}://{quote(self.user, safe='')}@{_join(self.host, self.port)}/{self.database}"


def parse_listener(text: str, *, example: str) -> ListenAddress | None:
    """Read where a listener accepts connections; `none` says that there is no such listener."""
    return None if text.strip().lower() == "none" else ListenAddress.parse(text, write=f"{example} or none")


def check_origin(text: str) -> str:
    """Return a web origin as browsers write it, or say what is wrong with it."""
    origin = text.strip().lower()
    if origin == "*":
        raise ValueError("* would let every web page of the world send; name the origins")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{text!r} is not an origin; write https://app.example.com, with a port where it has one")
    return origin


def parse_size(text: str, *, maximum: int = 2**31 - 1, write: str = "64MiB or a number of bytes") -> int:
    """Read a number of bytes: `1048576`, `512KiB`, `64MiB`, `1GiB`; `KB`, `MB`, `GB` are powers of ten."""
    number, unit = _number_and_unit(text, _SIZE_UNITS, write)
    size = round(number * _SIZE_UNITS[unit])
    if not 1 <= size <= maximum:
        most = f"{maximum // 2**30}GiB" if maximum % 2**30 == 0 else f"{maximum // 2**20}MiB"
        raise ValueError(f"a size is between 1 byte and {most}")
    return size


def parse_duration(text: str, *, write: str = "8s or 500ms") -> float:
    """Read a duration and return seconds: `8s`, `500ms`, `2m`, `1h`, `30d`. The unit is required, except for 0."""
    if text.strip() == "0":
        return 0.0
    number, unit = _number_and_unit(text, _DURATION_UNITS, write)
    return number * _DURATION_UNITS[unit]


def parse_headers(text: str) -> dict[str, str]:
    """Read `name=value,name=value`. Names become lower case; a value may hold `=` but no comma."""
    headers: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        name, separator, value = part.partition("=")
        if not separator:
            # The part may be a secret whose name was forgotten, so it is not repeated.
            raise ValueError("every header is name=value, separated by commas")
        headers[name] = value
    return check_headers(headers)


def parse_header_lines(text: str) -> dict[str, str]:
    """Read a headers file: one `name=value` a line; a value may hold commas. Blank lines and `#` lines are skipped."""
    headers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise ValueError(f"line {number} is not name=value")
        headers[name] = value
    return check_headers(headers)


def check_header_name(name: str) -> str:
    """Return the name trimmed and in lower case, or say that gRPC could not send it."""
    name = name.strip().lower()
    if not _HEADER_NAME.fullmatch(name) or name.startswith("grpc-") or name in _RESERVED_HEADERS:
        raise ValueError(f"{name!r} is not a header that can be sent")
    return name


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with trimmed values and trimmed lower-case names, or say which name cannot be sent."""
    checked: dict[str, str] = {}
    for raw_name, raw_value in headers.items():
        name, value = check_header_name(raw_name), raw_value.strip()
        if name.endswith("-bin"):
            raise ValueError(f"{name} would be binary, because of the end of its name; choose another header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} holds characters that a header cannot (printable ASCII only)")
        checked[name] = value
    return checked


def format_size(size: int) -> str:
    """Write a size so that `parse_size` reads it back."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` reads it back."""
    if seconds >= 7 * 86_400 and seconds % 86_400 == 0:
        return f"{seconds / 86_400:.0f}d"
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds != math.floor(seconds):
        return f"{seconds * 1000:.10g}ms"
    return f"{seconds:.0f}s"


def _number_and_unit(text: str, units: Mapping[str, float], write: str) -> tuple[float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"write {write}")
    return float(match[1]), match[2].lower()


def _host_and_port(text: str, *, example: str) -> tuple[str, int]:
    host, separator, port = text.strip().rpartition(":")
    if not separator or not host or host.endswith(":"):
        raise ValueError(f"a host and a port are needed; write {example}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host and "/" not in host:
        raise ValueError(f"an IPv6 address needs brackets; write [{host}]:{port}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port; write {example}")
    if not host or any(character.isspace() or character in "/?#[]" for character in host):
        raise ValueError(f"{host!r} is not a host; write {example}")
    return host, int(port)


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:")
    # unix:///absolute is how gRPC writes an absolute path.
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path:
        raise ValueError("a path is needed; write unix:/run/neatlogs/otlp.sock")
    return path


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
