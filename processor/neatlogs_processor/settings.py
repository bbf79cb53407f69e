"""The settings: one model from which flags, variables, file, `--help`, `--print-config` and the README's table come.

Precedence: flag > `NEATLOGS_PROCESSOR_*` variable > TOML file > default.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import (
    Endpoint,
    ListenAddress,
    check_header_name,
    check_headers,
    format_duration,
    format_size,
    parse_duration,
    parse_header_lines,
    parse_headers,
    parse_size,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENV_PREFIX = "NEATLOGS_PROCESSOR_"
CONFIG_VARIABLE = "NEATLOGS_PROCESSOR_CONFIG"

# Kubernetes puts these into every pod beside a Service that is named neatlogs-processor:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(
    ENV_PREFIX + r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True)
class Meta:
    """How a setting is shown.

    Attributes:
        group: Its heading in `--help` and in the README.
        metavar: What stands for the value in `--help`.
        show: Writes a value so that it can be read back.
        secret: Whether the value is masked wherever it is shown.
    """

    group: str
    metavar: str
    show: Callable[[Any], str] = str
    secret: bool = False


def _from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Parse text (flags, variables, TOML strings) and let every other value through to the type's own check."""

    def parse_if_text(value: Any) -> Any:
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(parse_if_text)


def _size(value: Any) -> Any:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return parse_size(str(value))
    raise ValueError("write 64MiB or a number of bytes")


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


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        return tuple(value)
    raise ValueError("write names separated by commas")


def _header_names(value: Any) -> Any:
    return tuple(check_header_name(name) for name in _words(value))


def _switch(value: Any) -> Any:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise ValueError("write true or false")


Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
Headers = Annotated[dict[str, SecretStr], BeforeValidator(_headers)]
HeaderNames = Annotated[tuple[str, ...], BeforeValidator(_header_names)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Switch = Annotated[bool, BeforeValidator(_switch)]


def _setting(default: Any, meta: Meta, description: str, **constraints: Any) -> Any:
    return Field(default=default, description=description, json_schema_extra={"meta": meta}, **constraints)  # type: ignore[dict-item]


_RECEIVE, _FORWARD, _RULE, _WATCH = "Receiving", "Forwarding", "The rule", "Watching"


def _comma(words: Iterable[str]) -> str:
    return ",".join(words)


def _yes_no(value: bool) -> str:
    return "true" if value else "false"


class Settings(BaseModel):
    """Everything that can be configured. Values are parsed and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    grpc_listen: Annotated[ListenAddress, _from_text(ListenAddress.parse)] = _setting(
        ListenAddress("127.0.0.1", 4317),
        Meta(_RECEIVE, "ADDRESS"),
        "Where OTLP/gRPC is received: host:port or unix:PATH. Port 0 takes any free port.",
    )
    allow_insecure: Annotated[tuple[Literal["grpc"], ...], BeforeValidator(_words)] = _setting(
        (),
        Meta(_RECEIVE, "LISTENER", _comma),
        "Listeners (grpc) that may be reached from other machines without TLS.",
    )
    max_message_size: Size = _setting(
        64 * 2**20, Meta(_RECEIVE, "SIZE", format_size), "The largest request accepted, after decompression."
    )
    max_concurrent_requests: int = _setting(
        100,
        Meta(_RECEIVE, "NUMBER"),
        "Requests handled at the same time; more are asked to come back in a second or two.",
        ge=1,
    )
    shutdown_timeout: Duration = _setting(
        10.0,
        Meta(_RECEIVE, "DURATION", format_duration),
        "How long requests in flight may take after SIGTERM or SIGINT.",
        ge=0,
    )

    upstream_endpoint: Annotated[Endpoint | None, _from_text(Endpoint.parse)] = _setting(
        None,
        Meta(_FORWARD, "ENDPOINT"),
        "Where requests are sent: http://host:port, https://host:port (TLS), host:port (no TLS) or unix:PATH.",
    )
    upstream_protocol: Literal["grpc"] = _setting(
        "grpc", Meta(_FORWARD, "PROTOCOL"), "How the upstream is spoken to: grpc."
    )
    upstream_headers: Headers = _setting(
        {},
        Meta(_FORWARD, "HEADERS", secret=True),
        "Headers sent with every request: name=value,name=value. They show in the process list; prefer the file.",
    )
    upstream_headers_file: Path | None = _setting(
        None,
        Meta(_FORWARD, "FILE"),
        "A file with one header a line, name=value. Its headers win over --upstream-headers.",
    )
    upstream_ca_file: Path | None = _setting(
        None, Meta(_FORWARD, "FILE"), "PEM certificates that TLS to the upstream trusts, instead of the usual ones."
    )
    upstream_timeout: Duration = _setting(
        8.0,
        Meta(_FORWARD, "DURATION", format_duration),
        "How long all tries of one request may take together. A client's own deadline shortens it.",
        gt=0,
    )
    upstream_compression: Literal["none", "gzip"] = _setting(
        "none", Meta(_FORWARD, "NAME"), "How requests are compressed: none or gzip."
    )
    forward_headers: HeaderNames = _setting(
        (),
        Meta(_FORWARD, "NAMES", _comma),
        "Request headers that travel on to the upstream, such as x-api-key. None unless named.",
    )

    roots: Literal["trace", "entry"] = _setting(
        "trace",
        Meta(_RULE, "KIND"),
        "Which spans own the end user: trace (root spans) or entry (also entry spans of --entry-services).",
    )
    entry_services: Words = _setting(
        (),
        Meta(_RULE, "NAMES", _comma),
        "With --roots entry: the service.name values whose entry spans count as roots.",
    )

    console: Switch = _setting(
        False,
        Meta(_WATCH, "", _yes_no),
        "Print one line per trace and request on stdout, end users included. Without an upstream, requests are"
        " acknowledged and go nowhere else.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", Meta(_WATCH, "LEVEL"), "What is logged on stderr: debug, info, warning or error."
    )
    log_format: Literal["text", "json"] = _setting(
        "text", Meta(_WATCH, "FORMAT"), "How it is logged: text or json (one object a line)."
    )


@dataclass(frozen=True)
class Entry:
    """One setting as the outside sees it."""

    name: str
    meta: Meta
    description: str
    default: Any

    @property
    def flag(self) -> str:
        """Its flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def is_switch(self) -> bool:
        """Whether its flag takes no value."""
        return isinstance(self.default, bool)

    def show(self, value: Any) -> str:
        """Write a value, masked where it is a secret; empty where there is none."""
        if value is None or value in ((), {}):
            return ""
        if self.meta.secret:
            return _comma(f"{name}=***" for name in value)
        return self.meta.show(value)


def entries() -> list[Entry]:
    """Return every setting, in the order of `--help`."""
    found = []
    for name, field in Settings.model_fields.items():
        meta: Meta = cast("dict[str, Any]", field.json_schema_extra)["meta"]
        found.append(Entry(name, meta, field.description or "", field.default))
    return found


@dataclass(frozen=True)
class Loaded:
    """Settings and where each came from.

    Attributes:
        settings: The settings.
        sources: For each setting's name: the flag, the variable, the file, or `"default"`.
    """

    settings: Settings
    sources: Mapping[str, str]


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, config: Path | None = None, config_flag: str = "--config"
) -> Loaded:
    """Put the layers together.

    Args:
        flags: Values given as flags, by setting name.
        environ: The environment; only names that start with `NEATLOGS_PROCESSOR_` are read.
        config: The TOML file, if one was named.
        config_flag: Who named it, for messages.

    Raises:
        ConfigError: An unknown key, a value that cannot be used, or a file that cannot be read.
    """
    known = {entry.name: entry for entry in entries()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = dict.fromkeys(known, "default")
    if config is not None:
        for key, value in _read_toml(config, config_flag).items():
            if key not in known:
                raise ConfigError(f"{config}: unknown key {key!r}{_suggestion(key, known)}")
            values[key], sources[key] = value, f"file {config}"
    for variable, text in sorted(environ.items()):
        # An empty variable counts as unset, as everywhere in OpenTelemetry.
        if not variable.startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE or not text:
            continue
        if _OF_KUBERNETES.fullmatch(variable):
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        if key not in known or known[key].variable != variable:
            suggestion = _suggestion(key, [*known, "config"], lambda name: ENV_PREFIX + name.upper())
            raise ConfigError(f"unknown variable {variable}{suggestion}")
        values[key], sources[key] = text, f"variable {variable}"
    for key, value in flags.items():
        values[key], sources[key] = value, f"flag {known[key].flag}"
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values, sources, known)) from None
    return Loaded(_with_headers_file(settings), sources)


def _read_toml(path: Path, flag: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{flag}: cannot read {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return content


def _suggestion(key: str, known: Iterable[str], write: Callable[[str], str] = str) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f"; did you mean {write(near[0])}?" if near else "; --help lists what there is"


def _explain(
    error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str], known: Mapping[str, Entry]
) -> str:
    """Return one line about the first mistake. A secret's value is not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    place = sources[name].partition(" ")[2]
    if sources[name].startswith("file"):
        place = f"{place}: {name}"
    if known[name].meta.secret:
        return f"{place}: {message}"
    return f"{place}: {values[name]!r} cannot be used: {message}"


def check_together(settings: Settings) -> None:
    """Refuse settings that are fine alone and wrong together.

    Raises:
        ConfigError: They cannot be run with. (`--print-config` and `health` still can.)
    """
    if settings.roots == "entry" and not settings.entry_services:
        raise ConfigError("--roots entry needs --entry-services: name the services whose entry spans count as roots")
    if settings.entry_services and settings.roots != "entry":
        raise ConfigError("--entry-services has no effect without --roots entry: add it, or drop the list")
    if settings.upstream_endpoint is None and not settings.console:
        raise ConfigError(
            "nothing to do with what arrives: name an upstream with --upstream-endpoint, or use --console to look at"
            " traces without forwarding them"
        )
    if not settings.grpc_listen.is_loopback and "grpc" not in settings.allow_insecure:
        raise ConfigError(
            f"--grpc-listen {settings.grpc_listen} can be reached from other machines without TLS or a token;"
            " if the network around it is trusted, say so with --allow-insecure grpc"
        )
    if settings.upstream_ca_file is not None and not (settings.upstream_endpoint and settings.upstream_endpoint.tls):
        raise ConfigError("--upstream-ca-file has no effect without TLS: write --upstream-endpoint https://host:port")


def _with_headers_file(settings: Settings) -> Settings:
    path = settings.upstream_headers_file
    if path is None:
        return settings
    try:
        headers = parse_header_lines(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--upstream-headers-file: cannot read {path} ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--upstream-headers-file: {path} is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"--upstream-headers-file: {path}: {error}") from None
    merged = {**settings.upstream_headers, **{name: SecretStr(value) for name, value in headers.items()}}
    return settings.model_copy(update={"upstream_headers": merged})
