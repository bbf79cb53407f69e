"""Where spans go, over which protocol, and whether our API key may go with them: one pure function.

An endpoint comes, in this order, from `init(endpoint=...)`, from `NEATLOGS_ENDPOINT`, from the standard
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_ENDPOINT`, or is the processor on this machine
(`http://localhost:4317`). The standard variables are those of
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

Protocol = Literal["grpc", "http/protobuf"]

DEFAULT_ENDPOINT = "http://localhost:4317"
TRACES_PATH = "/v1/traces"

_GRPC_PORT = 4317
_HTTP_PORT = 4318
_DEFAULT_PORTS = {"http": 80, "https": 443}


class EndpointError(ValueError):
    """An endpoint or protocol that can never work. The message says where it came from and what is accepted.

    Attributes:
        source: `argument`, or the environment variable's name.
    """

    def __init__(self, message: str, *, source: str) -> None:
        super().__init__(message)
        self.source = source


@dataclass(frozen=True)
class Endpoint:
    """A resolved destination.

    Attributes:
        url: For HTTP the full URL of the traces signal; for gRPC `scheme://host:port` or `unix:PATH`.
        protocol: `grpc` or `http/protobuf`.
        source: What named it: `argument`, an environment variable, or `default`.
        insecure: Whether the connection is plain text; `None` leaves the question to the standard variables.
        note: One sentence for the log where the choice is legal and looks wrong, else empty.
    """

    url: str
    protocol: Protocol
    source: str
    insecure: bool | None
    note: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether the endpoint was named for this library: only then our API key, and no other's headers, go there."""
        return not self.source.startswith("OTEL_")

    @property
    def identity(self) -> tuple[str, str]:
        """What two exporters to the same place have in common; see `same_place`."""
        return same_place(self.url)


def choose_endpoint(argument: str | None, protocol: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Resolve the endpoint and its protocol.

    Args:
        argument: What `init(endpoint=...)` was given: `http(s)://host[:port][/path]`, `host:port` (plain text) or
            `unix:PATH` (gRPC).
        protocol: What `init(protocol=...)` was given: `grpc`, `http/protobuf` or `None`.
        environ: The environment variables.

    Returns:
        The destination. HTTP endpoints get `/v1/traces` appended unless they end with it;
        `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is used as it is, as its specification demands.

    Raises:
        EndpointError: The endpoint or the protocol can never work.
    """
    text, source = _named_endpoint(argument, environ)
    url = _parse(text, source)
    chosen = _choose_protocol(url, protocol, environ)
    if url.scheme == "unix":
        if chosen != "grpc":
            raise EndpointError(f"{_label(source)} {text!r} is a Unix socket, which only grpc can use", source=source)
        return Endpoint(f"unix:{url.path}", "grpc", source, insecure=True)
    insecure: bool | None = url.scheme == "http"
    if chosen == "grpc":
        if source.startswith("OTEL_") and "://" not in text:
            # The specification lets OTEL_EXPORTER_OTLP_INSECURE decide where a gRPC endpoint has no scheme.
            return Endpoint(text, "grpc", source, insecure=None, note=_note(url, chosen))
        address = urlunsplit((url.scheme, _with_port(url, _GRPC_PORT), "", "", ""))
        return Endpoint(address, "grpc", source, insecure=insecure, note=_note(url, chosen))
    path = url.path
    if source != "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" and not path.rstrip("/").endswith(TRACES_PATH):
        path = path.rstrip("/") + TRACES_PATH
    address = urlunsplit((url.scheme, url.netloc, path, url.query, ""))
    return Endpoint(address, "http/protobuf", source, insecure=insecure, note=_note(url, chosen))


def same_place(url: str) -> tuple[str, str]:
    """Reduce an exporter's endpoint to (`host:port`, path), so that different spellings of one place compare equal.

    Loopback names count as one host. A gRPC endpoint has the empty path. Text that is no endpoint is returned as it is.
    """
    if url.startswith("unix:"):
        return (url, "")
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, _GRPC_PORT)
    except ValueError:
        return (url, "")
    host = (parts.hostname or "").lower()
    if host in ("localhost", "127.0.0.1", "::1"):
        host = "localhost"
    return (f"{host}:{port}", parts.path.rstrip("/"))


def _named_endpoint(argument: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    if argument is not None:
        return argument.strip(), "argument"
    for variable in ("NEATLOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        # An empty variable counts as unset everywhere in OpenTelemetry.
        if text := environ.get(variable, "").strip():
            return text, variable
    return DEFAULT_ENDPOINT, "default"


def _parse(text: str, source: str) -> SplitResult:
    accepted = "use http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:PATH"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.strip("/"):
            raise EndpointError(f"{_label(source)} {text!r} names no socket; {accepted}", source=source)
        return SplitResult("unix", "", path, "", "")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise EndpointError(f"{_label(source)} {text!r} contains white space; {accepted}", source=source)
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port_is_usable = url.port is None or url.port > 0
    except ValueError as error:
        raise EndpointError(f"{_label(source)} {text!r} cannot be read ({error}); {accepted}", source=source) from None
    if url.scheme not in _DEFAULT_PORTS:
        raise EndpointError(f"{_label(source)} {text!r} has the scheme {url.scheme!r}; {accepted}", source=source)
    if not url.hostname or not port_is_usable:
        raise EndpointError(f"{_label(source)} {text!r} names no host and port; {accepted}", source=source)
    return url


def _choose_protocol(url: SplitResult, protocol: str | None, environ: Mapping[str, str]) -> Protocol:
    named = [("argument", protocol or "")]
    named += [(name, environ.get(name, "")) for name in _PROTOCOL_VARIABLES]
    for source, text in named:
        if value := text.strip():
            if value == "grpc":
                return "grpc"
            if value == "http/protobuf":
                return "http/protobuf"
            label = "protocol" if source == "argument" else source
            raise EndpointError(f"{label} {value!r} is not supported; use grpc or http/protobuf", source=source)
    if url.scheme != "unix" and (url.port == _HTTP_PORT or url.path.strip("/")):
        return "http/protobuf"
    return "grpc"


_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def _note(url: SplitResult, protocol: Protocol) -> str:
    if (url.port, protocol) in ((_GRPC_PORT, "http/protobuf"), (_HTTP_PORT, "grpc")):
        return (
            f"port {url.port} normally speaks {'grpc' if url.port == _GRPC_PORT else 'http/protobuf'}, "
            f"but {protocol} was asked for; init(protocol=...) decides for this library alone"
        )
    if protocol == "grpc" and url.path.strip("/"):
        return f"the path {url.path!r} has no meaning in gRPC and is not used"
    return ""


def _with_port(url: SplitResult, default: int) -> str:
    # gRPC has no default port of its own that a reader would expect: without one it would be 443.
    return url.netloc if url.port is not None or url.scheme == "https" else f"{url.netloc}:{default}"


def _label(source: str) -> str:
    return "endpoint" if source in ("argument", "default") else source
