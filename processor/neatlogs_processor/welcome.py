"""What a processor says once it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.settings import Settings
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.telemetry import logger


@dataclass(frozen=True)
class Listening:
    """Where a processor listens.

    Attributes:
        grpc: OTLP/gRPC.
        http: OTLP/HTTP; `None` where there is no such listener.
        admin: The admin port; `None` likewise.
    """

    grpc: ListenAddress
    http: ListenAddress | None
    admin: ListenAddress | None


def welcome(settings: Settings, listening: Listening, store: Path | ClickHouseLogin | None) -> None:
    """Say where it listens, where traces go, and what to try."""
    address = listening.grpc.reachable
    upstream = settings.upstream_endpoint
    destination = "no upstream" if upstream is None else f"upstream {upstream}"
    destination += "" if store is None else f", store {store if isinstance(store, Path) else store.address}"
    where = f"OTLP/gRPC on {listening.grpc}" + (f", OTLP/HTTP on {listening.http}" if listening.http else "")
    where += f", admin on {listening.admin}" if listening.admin else ""
    logger.info("neatlogs-processor %s is ready: %s, %s", version("neatlogs-otel"), where, destination)
    if store is not None and listening.admin is not None and not listening.admin.path:
        logger.info("the traces page: http://%s%s/traces", listening.admin.reachable, settings.root_path)
    if upstream is None:
        fate = "kept in the store" if store is not None else "printed, acknowledged"
        logger.info("traces are %s and go nowhere else; --upstream-endpoint host:port sends them on", fate)
        logger.info(
            "try, in another terminal: make demo (in the repository), or any application with"
            " OTEL_EXPORTER_OTLP_ENDPOINT=%s OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
            address if address.path else f"http://{address}",
        )
    if isinstance(store, ClickHouseLogin) and store.can_be_overheard:
        logger.warning("the password travels to %s without TLS; clickhouses://host encrypts it", store.address)
    if upstream is not None and settings.upstream_headers and not (upstream.tls or upstream.is_loopback):
        logger.warning("headers travel to %s without TLS; https://host:port encrypts them", upstream)
