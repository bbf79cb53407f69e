"""gRPC's health service (https://github.com/grpc/grpc/blob/master/doc/health-checking.md) for a server that drains.

The servicer of grpcio-health-checking keeps `Watch` streams open while the server stops, so that every shutdown would
last as long as the grace period. Here the streams end once they have said NOT_SERVING.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Status = health_pb2.HealthCheckResponse
_Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class HealthService(health_pb2_grpc.HealthServicer):
    """Serving until `drain()`; the empty name stands for the whole server.

    Args:
        services: The names of the services that can be asked about.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {""}
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:  # noqa: N802  # gRPC's name
        """Answer once."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return _Status(status=_Status.NOT_SERVING if self._draining.is_set() else _Status.SERVING)

    async def Watch(  # noqa: N802  # gRPC's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: _Context,  # noqa: ARG002  # part of the signature that gRPC calls
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer now and whenever the answer changes."""
        known = request.service in self._services
        if not self._draining.is_set():
            yield _Status(status=_Status.SERVING if known else _Status.SERVICE_UNKNOWN)
            await self._draining.wait()
        yield _Status(status=_Status.NOT_SERVING if known else _Status.SERVICE_UNKNOWN)
