"""Everything that can be configured, in the order of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from neatlogs_processor.formats import Endpoint, ListenAddress, format_duration, format_size
from neatlogs_processor.setting_types import (
    Duration,
    HeaderNames,
    Headers,
    Meta,
    Size,
    Switch,
    Words,
    comma,
    from_text,
    setting,
    words,
    yes_no,
)

_RECEIVE, _FORWARD, _RULE, _WATCH = "Receiving", "Forwarding", "The rule", "Watching"


class Settings(BaseModel):
    """Everything that can be configured. Values are parsed and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    grpc_listen: Annotated[ListenAddress, from_text(ListenAddress.parse)] = setting(
        ListenAddress("127.0.0.1", 4317),
        Meta(_RECEIVE, "ADDRESS"),
        "Where OTLP/gRPC is received: host:port or unix:PATH. Port 0 takes any free port.",
    )
    allow_insecure: Annotated[tuple[Literal["grpc"], ...], BeforeValidator(words)] = setting(
        (),
        Meta(_RECEIVE, "LISTENER", comma),
        "Listeners (grpc) that may be reached from other machines without TLS.",
    )
    max_message_size: Size = setting(
        64 * 2**20, Meta(_RECEIVE, "SIZE", format_size), "The largest request accepted, after decompression."
    )
    max_concurrent_requests: int = setting(
        100,
        Meta(_RECEIVE, "NUMBER"),
        "Requests handled at the same time; more are asked to come back in a second or two.",
        ge=1,
    )
    shutdown_timeout: Duration = setting(
        10.0,
        Meta(_RECEIVE, "DURATION", format_duration),
        "How long requests in flight may take after SIGTERM or SIGINT.",
        ge=0,
    )

    upstream_endpoint: Annotated[Endpoint | None, from_text(Endpoint.parse)] = setting(
        None,
        Meta(_FORWARD, "ENDPOINT"),
        "Where requests are sent: http://host:port, https://host:port (TLS), host:port (no TLS) or unix:PATH.",
    )
    upstream_protocol: Literal["grpc"] = setting(
        "grpc", Meta(_FORWARD, "PROTOCOL"), "How the upstream is spoken to: grpc."
    )
    upstream_headers: Headers = setting(
        {},
        Meta(_FORWARD, "HEADERS", secret=True),
        "Headers sent with every request: name=value,name=value. They show in the process list; prefer the file.",
    )
    upstream_headers_file: Path | None = setting(
        None,
        Meta(_FORWARD, "FILE"),
        "A file with one header a line, name=value. Its headers win over --upstream-headers.",
    )
    upstream_ca_file: Path | None = setting(
        None, Meta(_FORWARD, "FILE"), "PEM certificates that TLS to the upstream trusts, instead of the usual ones."
    )
    upstream_timeout: Duration = setting(
        8.0,
        Meta(_FORWARD, "DURATION", format_duration),
        "How long all tries of one request may take together. A client's own deadline shortens it.",
        gt=0,
    )
    upstream_compression: Literal["none", "gzip"] = setting(
        "none", Meta(_FORWARD, "NAME"), "How requests are compressed: none or gzip."
    )
    forward_headers: HeaderNames = setting(
        (),
        Meta(_FORWARD, "NAMES", comma),
        "Request headers that travel on to the upstream, such as x-api-key. None unless named.",
    )

    roots: Literal["trace", "entry"] = setting(
        "trace",
        Meta(_RULE, "KIND"),
        "Which spans own the end user: trace (root spans) or entry (also entry spans of --entry-services).",
    )
    entry_services: Words = setting(
        (),
        Meta(_RULE, "NAMES", comma),
        "With --roots entry: the service.name values whose entry spans count as roots.",
    )

    console: Switch = setting(
        False,
        Meta(_WATCH, "", yes_no),
        "Print one line per trace and request on stdout, end users included. Without an upstream, requests are"
        " acknowledged and go nowhere else.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", Meta(_WATCH, "LEVEL"), "What is logged on stderr: debug, info, warning or error."
    )
    log_format: Literal["text", "json"] = setting(
        "text", Meta(_WATCH, "FORMAT"), "How it is logged: text or json (one object a line)."
    )
