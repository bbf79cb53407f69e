"""Asks a running processor how it is: the `health` command, for container health checks."""

from __future__ import annotations

import http.client
import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from neatlogs_processor.formats import ListenAddress


def probe(address: ListenAddress, *, timeout: float = 3.0) -> tuple[bool, str]:
    """Return whether the listener serves, and a line that says so.

    Args:
        address: Where the processor listens. An address that stands for all interfaces is asked over loopback.
        timeout: Seconds.
    """
    address = address.reachable
    with grpc.insecure_channel(address.target) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            # The published stubs of the generated module leave its methods out.
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)  # type: ignore[attr-defined]  # the generated stub sets its methods when it is made
        except grpc.RpcError as error:
            return False, f"no answer from {address}: {error.code().name}"
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return reply.status == health_pb2.HealthCheckResponse.SERVING, f"{address}: {status}"


def probe_admin(address: ListenAddress, *, timeout: float = 3.0) -> tuple[bool, str]:
    """Return whether the processor's admin listener says that it lives, and a line that says so.

    For receivers with TLS: whoever asks them needs a name to trust and, for mutual TLS, a certificate; a probe inside
    the container has neither.

    Args:
        address: Where the admin listener is.
        timeout: Seconds.
    """
    address = address.reachable
    connection = http.client.HTTPConnection(address.host or "localhost", address.port, timeout=timeout)
    try:
        if address.path:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout)
            connection.sock.connect(address.path)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer from {address}: {type(error).__name__}"
    finally:
        connection.close()
    return status == 200, f"{address}: HTTP {status}"
