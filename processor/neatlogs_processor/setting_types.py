"""What values of settings look like: how they are read from text, checked, and shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr

from neatlogs_processor.core.identity_keys import IdentityKey, read_identity_keys
from neatlogs_processor.formats import (
    ClickHouseAddress,
    check_header_name,
    check_headers,
    check_origin,
    parse_duration,
    parse_headers,
    parse_listener,
    parse_size,
)

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_CLICKHOUSE: Final = re.compile(r"clickhouses?://", re.IGNORECASE)
_ROOT_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?", re.ASCII)


@dataclass(frozen=True)
class Meta:
    """How a setting is shown.

    Attributes:
        group: Its heading in `--help` and in the README.
        metavar: What stands for the value in `--help`.
        show: Writes a value so that it can be read back.
        secret: Whether the value is masked wherever it is shown.
        none: How the absence of a value is written, where it can be.
        expand: Says what a value is short for, where it is.
    """

    group: str
    metavar: str
    show: Callable[[Any], str] = str
    secret: bool = False
    none: str = ""
    expand: Callable[[Any], str] | None = None


def from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Parse text (flags, variables, TOML strings) and let every other value through to the type's own check."""

    def parse_if_text(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(parse_if_text)


def listener(example: str) -> BeforeValidator:
    """Read where a listener accepts connections, or none; `example` is what a mistake is answered with."""
    return from_text(partial(parse_listener, example=example))


def _size(write: str, maximum: int) -> Callable[[Any], Any]:
    """Read a size; a mistake is answered with what to write."""

    def read_size(value: Any) -> Any:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return parse_size(str(value), maximum=maximum, write=write)
        raise ValueError(f"write {write}")

    return read_size


def _duration(write: str) -> Callable[[Any], Any]:
    """Read a duration; a mistake is answered with what to write."""

    def read_duration(value: Any) -> Any:
        if isinstance(value, str):
            return parse_duration(value, write=write)
        raise ValueError(f"write {write}")

    return read_duration


def _unless_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Read `none` as the absence of a value, and everything else as `read` does."""

    def read_unless_none(value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() == "none" else read(value)

    return read_unless_none


def _store(value: Any) -> Any:
    if isinstance(value, str):
        if _CLICKHOUSE.match(value.strip()):
            return ClickHouseAddress.parse(value)
        if "://" not in value:
            return "none" if value.strip().lower() == "none" else Path(value).expanduser()
    raise ValueError("write a path, clickhouse://user@host:8123/database, or none")


def _headers(value: Any) -> Any:
    if isinstance(value, str):
        value = parse_headers(value)
    elif isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values()):
        value = check_headers(value)
    else:
        raise ValueError("write name=value,name=value (in a file also a table of texts)")
    return {name: SecretStr(text) for name, text in value.items()}


def words(value: Any) -> Any:
    """Read a list: text with commas, or a list of texts."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise ValueError("write names separated by commas")


def identity_keys(value: Any) -> Any:
    """Read keys of other SDKs and backends: text with commas, or a list of texts."""
    if isinstance(value, tuple) and all(isinstance(one, IdentityKey) for one in value):
        return value
    return read_identity_keys(words(value))


def names_of(known: Iterable[str]) -> BeforeValidator:
    """Read a list of which every word is one of these."""
    all_known = sorted(known)

    def read(value: Any) -> Any:
        names = words(value)
        for name in names:
            if name not in all_known:
                raise ValueError(f"{name!r} is not known; there are {', '.join(all_known)}")
        return tuple(dict.fromkeys(names))

    return BeforeValidator(read)


def _origins(value: Any) -> Any:
    return tuple(check_origin(origin) for origin in words(value))


def _header_names(value: Any) -> Any:
    return tuple(check_header_name(name) for name in words(value))


def _hosts(value: Any) -> Any:
    hosts = tuple(host.lower().rstrip(".") for host in words(value))
    for host in hosts:
        if host != "*" and _HOST.fullmatch(host) is None:
            raise ValueError(f"{host!r} is no host name: write traces.example.com, *.example.com or *, without a port")
    return hosts


def _root_path(value: Any) -> Any:
    if not isinstance(value, str) or (value.strip("/") and _ROOT_PATH.fullmatch(value) is None):
        raise ValueError("write a path such as /traces-ui, of letters, digits and the characters . _ ~ -")
    return value.rstrip("/")


def _switch(value: Any) -> Any:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise ValueError("write true or false")


_MEMORY, _DISK = 2**31 - 1, 2**50
Size = Annotated[int, BeforeValidator(_size("64MiB or a number of bytes", _MEMORY))]
DiskSize = Annotated[int, BeforeValidator(_size("1GiB or a number of bytes", _DISK))]
DiskSizeOrNone = Annotated[
    "int | None", BeforeValidator(_unless_none(_size("10GiB, a number of bytes or none", _DISK)))
]
Duration = Annotated[float, BeforeValidator(_duration("8s or 500ms"))]
Age = Annotated[float, BeforeValidator(_duration("72h or 30d"))]
AgeOrNone = Annotated["float | None", BeforeValidator(_unless_none(_duration("30d, 12h or none")))]
StorePlace = Annotated[Path | ClickHouseAddress | Literal["none"] | None, BeforeValidator(_store)]
Headers = Annotated[dict[str, SecretStr], BeforeValidator(_headers)]
HeaderNames = Annotated[tuple[str, ...], BeforeValidator(_header_names)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
IdentityKeys = Annotated[tuple[IdentityKey, ...], BeforeValidator(identity_keys)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
HostNames = Annotated[tuple[str, ...], BeforeValidator(_hosts)]
RootPath = Annotated[str, BeforeValidator(_root_path)]
Switch = Annotated[bool, BeforeValidator(_switch)]


def setting(default: Any, meta: Meta, description: str, **constraints: Any) -> Any:
    """Declare a setting: its default, how it is shown, a sentence about it, and pydantic's constraints."""
    return Field(default=default, description=description, json_schema_extra={"meta": meta}, **constraints)  # type: ignore[dict-item]  # an object rather than JSON: no schema is ever printed


def comma(words: Iterable[object]) -> str:
    """Write a list."""
    return ",".join(map(str, words))


def yes_no(value: bool) -> str:
    """Write a switch."""
    return "true" if value else "false"
