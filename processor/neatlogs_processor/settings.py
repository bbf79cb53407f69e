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
from typing import Any, cast

from pydantic import SecretStr, ValidationError

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import ClickHouseAddress, parse_header_lines
from neatlogs_processor.setting_types import Meta, comma
from neatlogs_processor.settings_model import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONFIG_VARIABLE", "ENV_PREFIX", "Entry", "Loaded", "Settings", "check_together", "entries", "load"]

ENV_PREFIX = "NEATLOGS_PROCESSOR_"
CONFIG_VARIABLE = "NEATLOGS_PROCESSOR_CONFIG"

_PASSWORD = re.compile(r"(://[^/@]*?:).*@", re.DOTALL)

# Kubernetes puts these into every pod beside a Service that is named neatlogs-processor:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(
    ENV_PREFIX + r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
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
        if value is None:
            return self.meta.none
        if value in ((), {}):
            return ""
        if self.meta.secret:
            return comma(f"{name}=***" for name in value)
        return self.meta.show(value)

    def expand(self, value: Any) -> str:
        """Say what a value is short for; empty where it is not."""
        return f": {self.meta.expand(value)}" if self.meta.expand is not None and value else ""


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
    # A URL may hold a password although none should.
    value = _PASSWORD.sub(r"\1***@", values[name]) if isinstance(values[name], str) else values[name]
    return f"{place}: {value!r} cannot be used: {message}"


def check_together(settings: Settings) -> None:
    """Refuse settings that are fine alone and wrong together.

    Raises:
        ConfigError: They cannot be run with. (`--print-config` and `health` still can.)
    """
    if settings.roots == "entry" and not settings.entry_services:
        raise ConfigError("--roots entry needs --entry-services: name the services whose entry spans count as roots")
    if settings.entry_services and settings.roots != "entry":
        raise ConfigError("--entry-services has no effect without --roots entry: add it, or drop the list")
    if settings.accept_strip and not (settings.accept or settings.accept_from):
        raise ConfigError("--accept-strip has no effect without --accept or --accept-from: name what is accepted")
    if settings.upstream_endpoint is None and settings.store == "none" and not settings.console:
        raise ConfigError(
            "nothing to do with what arrives: name an upstream with --upstream-endpoint, drop --store none, or use"
            " --console to look at traces without keeping or forwarding them"
        )
    # A compressed request counts in both forms while it is undone; one that fits nowhere would come back for ever.
    if settings.max_bytes_in_flight < 2 * settings.max_message_size:
        raise ConfigError(
            "--max-bytes-in-flight must be at least twice --max-message-size, so that every request that is accepted"
            " fits"
        )
    _check_listeners(settings)
    _check_browsers(settings)
    _check_admin(settings)
    _check_upstream(settings)
    _check_queue(settings)
    _check_clickhouse(settings)
    if settings.store_required and (settings.upstream_endpoint is None or settings.store in (None, "none")):
        raise ConfigError(
            "--store-required is for a store beside an upstream: name both with --store and --upstream-endpoint"
            " (a store alone is always required)"
        )


def _check_listeners(settings: Settings) -> None:
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        given, missing = ("cert", "key") if settings.tls_cert_file is not None else ("key", "cert")
        raise ConfigError(f"--tls-{given}-file needs --tls-{missing}-file: TLS takes a certificate and its key")
    if settings.tls_client_ca_file is not None and settings.tls_cert_file is None:
        raise ConfigError("--tls-client-ca-file has no effect without --tls-cert-file and --tls-key-file")
    if settings.is_protected:
        return
    listeners = {"grpc": settings.grpc_listen, "http": settings.http_listen}
    for name, address in listeners.items():
        if address is not None and not address.is_loopback and name not in settings.allow_insecure:
            raise ConfigError(
                f"--{name}-listen {address} can be reached from other machines without TLS or a token: use"
                " --tls-cert-file or --auth-tokens-file; if the network around it is trusted, say so with"
                f" --allow-insecure {name}"
            )


def _check_browsers(settings: Settings) -> None:
    for flag, given in (
        ("--browser-keys-file", settings.browser_keys_file),
        ("--cors-origins", settings.cors_origins),
    ):
        if given and settings.http_listen is None:
            raise ConfigError(f"{flag} has no effect with --http-listen none: browsers do not speak OTLP/gRPC")
    if settings.browser_keys_file is not None and not settings.cors_origins:
        # Where a proxy puts pages and processor under one origin, to name it does no harm.
        raise ConfigError(
            "--browser-keys-file admits nobody without --cors-origins: browsers ask first which origins may send; name"
            " them with --cors-origins too"
        )


def _check_admin(settings: Settings) -> None:
    # Keys and certificates are the receivers': probes have neither.
    address = settings.admin_listen
    if address is None or address.is_loopback or settings.page_token_file is not None:
        return
    if "admin" not in settings.allow_insecure:
        raise ConfigError(
            f"--admin-listen {address} can be reached from other machines and asks for no key: give the page a token"
            " with --page-token-file; if the network around it is trusted, say so with --allow-insecure admin"
        )


def _check_upstream(settings: Settings) -> None:
    endpoint = settings.upstream_endpoint
    tls_files = {
        "--upstream-ca-file": settings.upstream_ca_file,
        "--upstream-cert-file": settings.upstream_cert_file,
        "--upstream-key-file": settings.upstream_key_file,
    }
    for flag, path in tls_files.items():
        if path is not None and not (endpoint and endpoint.tls):
            raise ConfigError(f"{flag} has no effect without TLS: write --upstream-endpoint https://host:port")
    if (settings.upstream_cert_file is None) != (settings.upstream_key_file is None):
        given, missing = ("cert", "key") if settings.upstream_cert_file is not None else ("key", "cert")
        raise ConfigError(
            f"--upstream-{given}-file needs --upstream-{missing}-file: mutual TLS takes a certificate and its key"
        )
    if endpoint is not None and settings.upstream_protocol == "grpc":
        if endpoint.base:
            raise ConfigError(
                f"--upstream-endpoint {endpoint}: OTLP over gRPC has no path; write http://host:port, or choose"
                " --upstream-protocol http/protobuf"
            )
        if endpoint.port_is_implied:
            raise ConfigError(
                f"--upstream-endpoint {endpoint}: OTLP over gRPC needs a port; write http://collector:4317"
            )


def _check_queue(settings: Settings) -> None:
    if settings.inherit and settings.queue_dir is None:
        raise ConfigError(
            "--inherit needs --queue-dir: an exporter sends a trace's root only after the answer to its children, so"
            " they have to wait on the disk, acknowledged"
        )
    if settings.queue_dir is None:
        return
    if settings.upstream_endpoint is None and not isinstance(settings.store, ClickHouseAddress):
        raise ConfigError(
            "--queue-dir has nobody to deliver to: name an upstream with --upstream-endpoint, or a store on ClickHouse"
        )
    if settings.forward_headers:
        raise ConfigError(
            "--forward-headers cannot be used with --queue-dir: the queue keeps no header of a request, because it may"
            " be a credential; give the processor one of its own with --upstream-headers-file"
        )
    # A request that fits nowhere would be asked to come back for ever.
    if settings.queue_max_bytes < 2 * settings.max_message_size:
        raise ConfigError(
            "--queue-max-bytes must be at least twice --max-message-size, so that every request that is accepted fits"
        )


def _check_clickhouse(settings: Settings) -> None:
    store = settings.store
    if settings.store_password_file is not None and not isinstance(store, ClickHouseAddress):
        raise ConfigError("--store-password-file has no effect without --store clickhouse://user@host:8123/database")
    if settings.store_ca_file is not None and not (isinstance(store, ClickHouseAddress) and store.tls):
        raise ConfigError(
            "--store-ca-file has no effect without TLS: write --store clickhouses://user@host:8443/database"
        )


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
