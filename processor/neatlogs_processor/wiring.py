"""From settings to parts: what each part of the processor is given, so that the parts need not know the settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.allowed_metadata import AllowedMetadata
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import BACKENDS, EVERY_SPANS_OWN, SDKS, IdentityKey, sought_by, together
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.pseudonymizing import Pseudonymizing
from neatlogs_processor.core.pseudonyms import PseudonymKeys
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.core.stamping import INHERITED
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import ConfigError
from neatlogs_processor.exporters.otlp_grpc import OtlpGrpcExporter
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.holding.holding import HoldingLimits
from neatlogs_processor.pseudonym_keys import current_keys
from neatlogs_processor.receivers.http_body import BodyLimits
from neatlogs_processor.receivers.http_protocol import ConnectionLimits
from neatlogs_processor.receivers.otlp_grpc import GrpcLimits
from neatlogs_processor.receivers.otlp_http import HttpOptions
from neatlogs_processor.receivers.security import Authenticator
from neatlogs_processor.settings import Settings
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, read_login
from neatlogs_processor.store.files import default_path
from neatlogs_processor.store.retention import Limits
from neatlogs_processor.telemetry import logger
from neatlogs_processor.tls import TlsFiles, listener_files, upstream_files

if TYPE_CHECKING:
    from neatlogs_processor.exporters.otlp_http import OtlpHttpExporter


def pseudonym_keys(settings: Settings) -> Callable[[], PseudonymKeys] | None:
    """Return what returns the keys of pseudonyms as they are now, if there are pseudonyms.

    Raises:
        ConfigError: Their file cannot be used.
    """
    return None if settings.pseudonymize_key_file is None else current_keys(settings.pseudonymize_key_file)


def treatment(settings: Settings, pseudonyms: Callable[[], PseudonymKeys] | None) -> Treatment:
    """Return what is done to traces: the rule, and the stages around it that are asked for.

    Args:
        settings: The settings.
        pseudonyms: What `pseudonym_keys` returned.
    """
    accepted = together(settings.accept, settings.accept_from, SDKS)
    emitted = together(settings.emit, settings.emit_for, BACKENDS)
    return Treatment(
        EndUserPolicy(settings.roots, frozenset(settings.entry_services)),
        accept=Accepting(accepted, strip=settings.accept_strip) if accepted else None,
        pseudonymize=_pseudonymizing(settings, pseudonyms, (*accepted, *emitted)),
        emit=Emitting(emitted) if emitted else None,
    )


def _pseudonymizing(
    settings: Settings, keys: Callable[[], PseudonymKeys] | None, others: tuple[IdentityKey, ...]
) -> Pseudonymizing | None:
    if keys is None and not settings.metadata_allow:
        return None
    return Pseudonymizing(keys, AllowedMetadata(settings.metadata_allow), others)


def authenticator(settings: Settings) -> Authenticator | None:
    """Return what asks clients for keys, if there are keys.

    Raises:
        ConfigError: A keys file cannot be used.
    """
    if settings.auth_tokens_file is None and settings.browser_keys_file is None:
        return None
    check = Authenticator(
        tokens_file=settings.auth_tokens_file,
        browser_keys_file=settings.browser_keys_file,
        browser_key_rate=settings.browser_key_rate,
    )
    if closed := check.origins.difference(settings.cors_origins):
        logger.warning(
            "--browser-keys-file has keys for origins whose pages cannot send, because --cors-origins does not list"
            " them: %s",
            ", ".join(sorted(closed)),
        )
    return check


def listener_tls(settings: Settings) -> TlsFiles | None:
    """Return the files with which the receivers speak TLS, if they do."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return listener_files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def grpc_limits(settings: Settings) -> GrpcLimits:
    """Return what one client of the gRPC receiver may take up."""
    return GrpcLimits(
        max_streams=settings.grpc_max_streams,
        connection_age=settings.grpc_max_connection_age,
        connection_age_grace=settings.grpc_max_connection_age_grace,
        connection_idle=settings.grpc_max_connection_idle,
        handshake_timeout=settings.grpc_handshake_timeout,
        max_header_size=settings.max_header_size,
        body_timeout=settings.body_timeout,
        max_arriving=settings.max_concurrent_requests,
    )


def http_options(settings: Settings) -> HttpOptions:
    """Return what the HTTP receiver accepts, and what one client may take up."""
    return HttpOptions(
        connections=ConnectionLimits(
            header_time=settings.http_header_timeout,
            header_size=settings.max_header_size,
            idle_time=settings.http_idle_timeout,
            connections=settings.http_max_connections,
        ),
        body=BodyLimits(size=settings.max_message_size, time=settings.body_timeout, rate=settings.http_min_body_rate),
        max_json_depth=settings.max_json_depth,
        cors_origins=settings.cors_origins,
    )


def store_place(settings: Settings, environ: Mapping[str, str]) -> Path | ClickHouseLogin | None:
    """Return where traces are kept, if they are: a file, or a database of a ClickHouse server.

    Raises:
        ConfigError: They would be kept in the user's data directory, and there is none; or the password cannot be read.
    """
    if isinstance(settings.store, ClickHouseAddress):
        return clickhouse_login(settings, settings.store, environ)
    if isinstance(settings.store, Path):
        return settings.store
    if settings.store == "none" or settings.upstream_endpoint is not None:
        return None
    return usual_store_path(environ)


def clickhouse_login(settings: Settings, address: ClickHouseAddress, environ: Mapping[str, str]) -> ClickHouseLogin:
    """Return how to get into a database of a ClickHouse server.

    Raises:
        ConfigError: The password, or the certificates, cannot be read.
    """
    return read_login(
        address, password_file=settings.store_password_file, authorities=settings.store_ca_file, environ=environ
    )


def usual_store_path(environ: Mapping[str, str]) -> Path:
    """Return where the store is unless somebody says otherwise; see `store_place`."""
    try:
        return default_path(environ, Path.home, sys.platform)
    except RuntimeError:
        raise ConfigError(
            "the user has no home directory to keep a store in; use --store FILE or --store none"
        ) from None


def store_limits(settings: Settings) -> Limits:
    """Return how much the store keeps."""
    age = settings.store_max_age
    return Limits(None if age is None else round(age * 10**9), settings.store_max_size)


def inherited(settings: Settings) -> Sought:
    """Return the keys of a root that the other spans of its trace inherit."""
    emitted = together(settings.emit, settings.emit_for, BACKENDS)
    return INHERITED | sought_by(one for one in emitted if one.key not in EVERY_SPANS_OWN)


def holding_limits(settings: Settings) -> HoldingLimits:
    """Return how long spans wait for their root, and how many; without `--inherit` none does for any longer."""
    return HoldingLimits(
        wait=settings.inherit_wait if settings.inherit else 0.0,
        max_spans=settings.inherit_max_spans,
        max_bytes=settings.inherit_max_bytes,
        max_memory=settings.inherit_memory,
    )


def exporter(settings: Settings) -> OtlpGrpcExporter | OtlpHttpExporter | None:
    """Return what speaks to the upstream, if there is one. To be called where the event loop runs.

    Raises:
        ConfigError: A TLS file cannot be used.
    """
    endpoint = settings.upstream_endpoint
    if endpoint is None:
        return None
    kind: type[OtlpGrpcExporter | OtlpHttpExporter] = OtlpGrpcExporter
    if settings.upstream_protocol == "http/protobuf":
        # Its client costs a sixth of a second and 8 MiB, which a gRPC upstream need not pay.
        from neatlogs_processor.exporters.otlp_http import OtlpHttpExporter

        kind = OtlpHttpExporter
    return kind(
        endpoint,
        headers={name: value.get_secret_value() for name, value in settings.upstream_headers.items()},
        forward_headers=settings.forward_headers,
        compression=settings.upstream_compression,
        max_response_size=settings.upstream_max_response_size,
        tls_files=upstream_files(settings.upstream_cert_file, settings.upstream_key_file, settings.upstream_ca_file),
    )
