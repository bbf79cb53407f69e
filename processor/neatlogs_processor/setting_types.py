"""What values of settings look like: how they are read from text, checked, and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr

from neatlogs_processor.formats import (
    check_header_name,
    check_headers,
    check_origin,
    parse_duration,
    parse_headers,
    parse_size,
)


@dataclass(frozen=True)
class Meta:
    """How a setting is shown.

    Attributes:
        group: Its heading in `--help` and in the README.
        metavar: What stands for the value in `--help`.
        show: Writes a value so that it can be read back.
        secret: Whether the value is masked wherever it is shown.
        none: How the absence of a value is written, where it can be.
    """

    group: str
    metavar: str
    show: Callable[[Any], str] = str
    secret: bool = False
    none: str = ""


def from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Parse text (flags, variables, TOML strings) and let every other value through to the type's own check."""

    def parse_if_text(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(parse_if_text)


def _size(value: Any) -> Any:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return parse_size(str(value))
    raise ValueError("write 64MiB or a number of bytes")


def _disk_size(value: Any) -> Any:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return parse_size(str(value), maximum=2**50)
    raise ValueError("write 1GiB or a number of bytes")


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("write 8s or 500ms")


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


def _origins(value: Any) -> Any:
    return tuple(check_origin(origin) for origin in words(value))


def _header_names(value: Any) -> Any:
    return tuple(check_header_name(name) for name in words(value))


def _switch(value: Any) -> Any:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise ValueError("write true or false")


Size = Annotated[int, BeforeValidator(_size)]
DiskSize = Annotated[int, BeforeValidator(_disk_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
Headers = Annotated[dict[str, SecretStr], BeforeValidator(_headers)]
HeaderNames = Annotated[tuple[str, ...], BeforeValidator(_header_names)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
Switch = Annotated[bool, BeforeValidator(_switch)]


def setting(default: Any, meta: Meta, description: str, **constraints: Any) -> Any:
    """Declare a setting: its default, how it is shown, a sentence about it, and pydantic's constraints."""
    return Field(default=default, description=description, json_schema_extra={"meta": meta}, **constraints)  # type: ignore[dict-item]


def comma(words: Iterable[str]) -> str:
    """Write a list."""
    return ",".join(words)


def yes_no(value: bool) -> str:
    """Write a switch."""
    return "true" if value else "false"
