"""Everything that can be configured, in the order of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from neatlogs_processor.core.identity_keys import BACKENDS, SDKS, together
from neatlogs_processor.formats import Endpoint, ListenAddress, format_duration, format_size
from neatlogs_processor.setting_types import (
    Age,
    AgeOrNone,
    DiskSize,
    DiskSizeOrNone,
    Duration,
    HeaderNames,
    Headers,
    HostNames,
    IdentityKeys,
    Meta,
    Origins,
    RootPath,
    Size,
    StorePlace,
    Switch,
    Words,
    comma,
    from_text,
    listener,
    names_of,
    setting,
    words,
    yes_no,
)

_RECEIVE, _LIMIT, _SECURE = "Receiving", "Limits", "TLS and keys"
_FORWARD, _QUEUE, _STORE, _RULE, _WATCH = "Forwarding", "The queue", "The store", "The rule", "Watching"
_PAGE, _INHERIT = "The page", "Inheriting"


class Settings(BaseModel):
    """Everything that can be configured. Values are parsed and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    grpc_listen: Annotated[ListenAddress, from_text(ListenAddress.parse)] = setting(
        ListenAddress("127.0.0.1", 4317),
        Meta(_RECEIVE, "ADDRESS"),
        "Where OTLP/gRPC is received: host:port or unix:PATH. Port 0 takes any free port.",
    )
    http_listen: Annotated[ListenAddress | None, listener("127.0.0.1:4318")] = setting(
        ListenAddress("127.0.0.1", 4318),
        Meta(_RECEIVE, "ADDRESS", none="none"),
        "Where OTLP/HTTP is received: host:port, unix:PATH, or none.",
    )
    admin_listen: Annotated[ListenAddress | None, listener("127.0.0.1:4319")] = setting(
        ListenAddress("127.0.0.1", 4319),
        Meta(_RECEIVE, "ADDRESS", none="none"),
        "Where the traces page, /healthz, /readyz and /metrics are served: host:port, unix:PATH, or none.",
    )
    cors_origins: Origins = setting(
        (),
        Meta(_RECEIVE, "ORIGINS", comma),
        "Origins whose web pages may send to --http-listen, such as https://app.example.com. None unless named.",
    )
    allow_insecure: Annotated[tuple[Literal["grpc", "http", "admin"], ...], BeforeValidator(words)] = setting(
        (),
        Meta(_RECEIVE, "LISTENERS", comma),
        "Listeners (grpc, http, admin) that other machines may reach although they have neither TLS nor keys.",
    )
    drain_delay: Duration = setting(
        0.0,
        Meta(_RECEIVE, "DURATION", format_duration),
        "How long requests are still accepted after SIGTERM or SIGINT, while /readyz and the health service already say"
        " that none should be sent: longer than a load balancer takes to notice.",
        ge=0,
    )
    shutdown_timeout: Duration = setting(
        10.0,
        Meta(_RECEIVE, "DURATION", format_duration),
        "How long requests in flight may take after SIGTERM or SIGINT, and after --drain-delay.",
        ge=0,
    )

    max_message_size: Size = setting(
        64 * 2**20,
        Meta(_LIMIT, "SIZE", format_size),
        "The largest request accepted, before and after decompression.",
    )
    max_concurrent_requests: int = setting(
        100,
        Meta(_LIMIT, "NUMBER"),
        "Requests handled at the same time; more are asked to come back in a second or two.",
        ge=1,
    )
    max_bytes_in_flight: Size = setting(
        256 * 2**20,
        Meta(_LIMIT, "SIZE", format_size),
        "Bytes of all requests that are being handled; what does not fit is asked to come back in a second or two.",
    )
    max_header_size: Size = setting(
        16 * 2**10, Meta(_LIMIT, "SIZE", format_size), "How large the headers of one request may be together."
    )
    body_timeout: Duration = setting(
        30.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "How long the body of one request may take to arrive.",
        gt=0,
    )
    max_json_depth: int = setting(
        128, Meta(_LIMIT, "NUMBER"), "How deeply a JSON request may nest, at most 128.", ge=8, le=128
    )
    http_min_body_rate: int = setting(
        1024,
        Meta(_LIMIT, "NUMBER"),
        "Bytes a second with which an HTTP body has to arrive on average, once it has taken 5 s; 0 asks for nothing.",
        ge=0,
    )
    http_header_timeout: Duration = setting(
        10.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "How long an HTTP client may take to speak TLS, to send a request's headers, or to read an answer.",
        gt=0,
    )
    http_idle_timeout: Duration = setting(
        60.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "An HTTP connection that sends no further request for this time is closed.",
        gt=0,
    )
    http_max_connections: int = setting(
        1000, Meta(_LIMIT, "NUMBER"), "HTTP connections open at the same time; more are answered 503.", ge=1
    )
    grpc_max_streams: int = setting(
        100,
        Meta(_LIMIT, "NUMBER"),
        "gRPC requests at the same time over one connection; more of them wait at the client or are to come back.",
        ge=1,
    )
    grpc_max_connection_age: Duration = setting(
        3600.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "After this time a gRPC client is told to connect again, so that clients spread over new processors.",
        gt=0,
    )
    grpc_max_connection_age_grace: Duration = setting(
        30.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "How long requests of such a connection may still take before it is closed.",
        gt=0,
    )
    grpc_max_connection_idle: Duration = setting(
        900.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "A gRPC connection without a request for this time is closed.",
        gt=0,
    )
    grpc_handshake_timeout: Duration = setting(
        10.0,
        Meta(_LIMIT, "DURATION", format_duration),
        "How long a gRPC client may take from connecting until it has spoken TLS and HTTP/2.",
        gt=0,
    )

    tls_cert_file: Path | None = setting(
        None,
        Meta(_SECURE, "FILE"),
        "PEM certificate (with its chain) of the receivers: they speak TLS, except on unix sockets.",
    )
    tls_key_file: Path | None = setting(
        None, Meta(_SECURE, "FILE"), "PEM private key of --tls-cert-file, without a password."
    )
    tls_client_ca_file: Path | None = setting(
        None,
        Meta(_SECURE, "FILE"),
        "PEM authorities: clients must show a certificate that one of them signed (mutual TLS).",
    )
    auth_tokens_file: Path | None = setting(
        None,
        Meta(_SECURE, "FILE"),
        "Tokens of clients, one a line: name token. Whoever sends none of them, as Authorization: Bearer or as"
        " x-api-key, is refused.",
    )
    browser_keys_file: Path | None = setting(
        None,
        Meta(_SECURE, "FILE"),
        "Keys for browsers, one a line: name key origin,origin. They may send traces only, from these origins.",
    )
    browser_key_rate: float = setting(
        50,
        Meta(_SECURE, "NUMBER", show=lambda value: f"{value:g}"),
        "Requests a second of one browser key; a burst of twice as many passes.",
        gt=0,
        allow_inf_nan=False,
    )

    upstream_endpoint: Annotated[Endpoint | None, from_text(Endpoint.parse)] = setting(
        None,
        Meta(_FORWARD, "ENDPOINT"),
        "Where requests are sent: http://host:port, https://host:port (TLS), host:port (no TLS) or unix:PATH."
        " With http/protobuf the port may be left out and a path may follow.",
    )
    upstream_protocol: Literal["grpc", "http/protobuf"] = setting(
        "grpc", Meta(_FORWARD, "PROTOCOL"), "How the upstream is spoken to: grpc or http/protobuf."
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
    upstream_cert_file: Path | None = setting(
        None, Meta(_FORWARD, "FILE"), "PEM certificate that is shown to the upstream (mutual TLS)."
    )
    upstream_key_file: Path | None = setting(
        None, Meta(_FORWARD, "FILE"), "PEM private key of --upstream-cert-file, without a password."
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
    upstream_max_response_size: Size = setting(
        4 * 2**20, Meta(_FORWARD, "SIZE", format_size), "The largest response accepted, after decompression."
    )
    forward_headers: HeaderNames = setting(
        (),
        Meta(_FORWARD, "NAMES", comma),
        "Request headers that travel on to the upstream, such as x-api-key. None unless named.",
    )

    queue_dir: Path | None = setting(
        None,
        Meta(_QUEUE, "DIRECTORY"),
        "Keeps requests on disk in this directory: clients are answered once a request is there, and the processor"
        " delivers it. One processor a directory.",
    )
    queue_max_bytes: DiskSize = setting(
        2**30,
        Meta(_QUEUE, "SIZE", format_size),
        "How much may wait; more is asked to come back in a second or two.",
    )
    queue_max_age: Age = setting(
        72 * 3600.0,
        Meta(_QUEUE, "DURATION", format_duration),
        "How long a request may wait; what is older is dropped, counted and logged.",
        gt=0,
    )
    queue_max_dead_bytes: DiskSize = setting(
        64 * 2**20,
        Meta(_QUEUE, "SIZE", format_size),
        "How much is kept of what the upstream refused for good; the oldest is dropped, counted and logged.",
    )
    queue_workers: int = setting(
        4,
        Meta(_QUEUE, "NUMBER"),
        "Requests of each signal that are sent from the queue at the same time.",
        ge=1,
        le=100,
    )

    inherit: Switch = setting(
        False,
        Meta(_INHERIT, "", yes_no),
        "For backends that look at single spans: hold the spans of a trace in --queue-dir until its root arrives, and"
        " put the end user on all of them.",
    )
    inherit_wait: Duration = setting(
        10.0,
        Meta(_INHERIT, "DURATION", format_duration),
        "How long a span may wait for its root; then it goes on without an end user, counted.",
        gt=0,
    )
    inherit_max_spans: int = setting(
        250_000,
        Meta(_INHERIT, "NUMBER"),
        "How many spans may wait; of more, the oldest go on without an end user, counted.",
        ge=1,
    )
    inherit_max_bytes: DiskSize = setting(
        256 * 2**20,
        Meta(_INHERIT, "SIZE", format_size),
        "How many bytes of spans may wait, likewise. What may go on and finds the queue full takes as much again.",
    )
    inherit_memory: Size = setting(
        64 * 2**20,
        Meta(_INHERIT, "SIZE", format_size),
        "Memory for roots that have gone on, whose later spans need not wait; the oldest, and all after an hour, are"
        " forgotten.",
    )

    store: StorePlace = setting(
        None,
        Meta(_STORE, "PLACE"),
        "Where traces are kept: a file, clickhouse://user@host:8123/database (clickhouses:// for TLS), or none. With an"
        " upstream they are kept only in a store that is named; without one the store is neatlogs/traces.db in the"
        " user's data directory (XDG_DATA_HOME, else ~/.local/share).",
    )
    store_password_file: Path | None = setting(
        None,
        Meta(_STORE, "FILE"),
        "A file with the password of ClickHouse's user; without it CLICKHOUSE_PASSWORD counts.",
    )
    store_ca_file: Path | None = setting(
        None, Meta(_STORE, "FILE"), "PEM certificates that TLS to ClickHouse trusts, instead of the usual ones."
    )
    store_batch_time: Duration = setting(
        1.0,
        Meta(_STORE, "DURATION", format_duration),
        "How long requests gather before they go to ClickHouse together; each is acknowledged when they are there.",
        ge=0,
        le=5,
    )
    store_required: Switch = setting(
        False,
        Meta(_STORE, "", yes_no),
        "With an upstream: refuse what the store did not take. Otherwise it goes on all the same, counted and logged.",
    )
    store_max_age: AgeOrNone = setting(
        30 * 86_400.0,
        Meta(_STORE, "DURATION", format_duration, none="none"),
        "How long a trace is kept from its arrival, or none for as long as there is room.",
        gt=0,
    )
    store_max_size: DiskSizeOrNone = setting(
        10 * 2**30,
        Meta(_STORE, "SIZE", format_size, none="none"),
        "How large the store may become before the oldest traces go, or none. Its log takes up to 64 MiB besides.",
        ge=2**20,
    )

    page_token_file: Path | None = setting(
        None,
        Meta(_PAGE, "FILE"),
        "A file with the token that the traces page and its API ask for; apart from the keys of the receivers. Without"
        " it the page is open to whoever reaches --admin-listen.",
    )
    allowed_hosts: HostNames = setting(
        (),
        Meta(_PAGE, "NAMES", comma),
        "Host names that the page may be asked for under, beside localhost and addresses: traces.example.com,"
        " *.example.com, or * for any.",
    )
    root_path: RootPath = setting(
        "",
        Meta(_PAGE, "PATH"),
        "The path that a reverse proxy serves the page under, such as /traces-ui; whether it removes it or not.",
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
    accept: IdentityKeys = setting(
        (),
        Meta(_RULE, "KEYS", comma),
        "Keys of other SDKs, in this order: the first with a value becomes the identity of a root span that has none."
        " langfuse.user.id, app.user=user, app.session=session, app.user_json=metadata or app.user.* (members of it).",
    )
    accept_from: Annotated[tuple[str, ...], names_of(SDKS)] = setting(
        (),
        Meta(_RULE, "NAMES", comma, expand=lambda names: comma(together((), names, SDKS))),
        "The keys of whole SDKs, behind those of --accept: langfuse, logfire, openinference, semconv, traceloop.",
    )
    accept_strip: Switch = setting(
        False,
        Meta(_RULE, "", yes_no),
        "Remove accepted keys from child spans, counted as ignored overrides. Otherwise they stay there as they are.",
    )
    emit: IdentityKeys = setting(
        (),
        Meta(_RULE, "KEYS", comma),
        "Keys that a backend looks for: added to root spans from their identity where they are absent, removed from"
        " child spans. Written as for --accept.",
    )
    emit_for: Annotated[tuple[str, ...], names_of(BACKENDS)] = setting(
        (),
        Meta(_RULE, "NAMES", comma, expand=lambda names: comma(together((), names, BACKENDS))),
        "The keys of whole backends, beside those of --emit: datadog, langfuse, mlflow, phoenix, semconv.",
    )
    pseudonymize_key_file: Path | None = setting(
        None,
        Meta(_RULE, "FILE"),
        "Keys, one a line: key-id secret. Ids of end users leave as pseudonyms that the first key makes; the page looks"
        " them up with all of them. Of metadata then leaves what --metadata-allow names.",
    )
    metadata_allow: Words = setting(
        (),
        Meta(_RULE, "NAMES", comma),
        "Keys of metadata that may leave, also as paths: plan, company.size; * is everything. Unless named, nothing"
        " with --pseudonymize-key-file, else everything.",
    )

    console: Switch = setting(
        False,
        Meta(_WATCH, "", yes_no),
        "Print one line per trace and request on stdout, end users included. Without an upstream, requests are"
        " acknowledged and go nowhere else.",
    )
    explain: Switch = setting(
        False,
        Meta(_WATCH, "", yes_no),
        "Tell clients, in the answer to an accepted request, that overrides in it were ignored, and why.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", Meta(_WATCH, "LEVEL"), "What is logged on stderr: debug, info, warning or error."
    )
    log_format: Literal["text", "json"] = setting(
        "text", Meta(_WATCH, "FORMAT"), "How it is logged: text or json (one object a line)."
    )

    @property
    def is_protected(self) -> bool:
        """Whether the receivers ask for a key, or for TLS."""
        return any((self.tls_cert_file, self.auth_tokens_file, self.browser_keys_file))
