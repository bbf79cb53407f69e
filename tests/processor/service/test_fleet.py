"""Several processors: behind a proxy that balances requests, and with clients that balance by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from support.dns_server import dns_server
from support.fleet import applications, arrived, fleet
from support.processor import running, until
from support.proxies import program_of, proxy
from support.spans import request, root
from support.upstream import SERVICES, Upstream

PROTOBUF = {"content-type": "application/x-protobuf"}
PATIENT = 60
"""Seconds that a client gives one batch, its retries included: a busy machine starts no processor in a moment."""

# nginx asks nobody whether they are ready, so a delay would change nothing; HAProxy, as configured, needs a second.
PROXIES = {"nginx": "0s", "haproxy": "1500ms"}


@pytest.mark.parametrize("name", PROXIES)
async def test_a_rolling_restart_behind_a_proxy_loses_nothing(name: str, tmp_path: Path) -> None:
    """While each processor is replaced under load, no span is lost, no batch is given up, and new ones get traffic."""
    if program_of(name) is None:
        pytest.skip(f"{name} is not installed")
    async with (
        Upstream() as upstream,
        fleet(upstream.endpoint, 2, drain_delay=PROXIES[name]) as processors,
        proxy(name, processors.ports, tmp_path) as through,
    ):
        endpoint = f"http://127.0.0.1:{through.grpc}"
        async with (
            applications(2, lambda: OTLPSpanExporter(endpoint=endpoint, timeout=PATIENT)) as clients,
            over_http(f"http://127.0.0.1:{through.http}/v1/traces") as acknowledged,
        ):
            await until(lambda: len(upstream.received) >= 4)
            for index in range(2):
                await processors.restart(index)
                await processors.has_traffic(index)
    received = arrived(upstream)
    sent = set[str]().union(acknowledged, *(client.names for client in clients))
    assert len(acknowledged) > 0
    assert sum(client.exporter.given_up for client in clients) == 0
    assert sent - received.keys() == set()


@contextlib.asynccontextmanager
async def over_http(url: str) -> AsyncIterator[list[str]]:
    """Send one span after the other over one HTTP connection, each until it is accepted; yields their names."""
    acknowledged: list[str] = []
    stopping = asyncio.Event()

    async def send() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENT) as client:
            while not stopping.is_set():
                name = f"http {len(acknowledged)}"
                answer = await client.post(url, content=request(root(name)), headers=PROTOBUF)
                # What OTLP lets a client repeat: https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
                assert answer.status_code in {200, 502, 503, 504}, answer
                if answer.status_code == 200:
                    acknowledged.append(name)
                await asyncio.sleep(0.005)

    sending = asyncio.create_task(send())
    try:
        yield acknowledged
    finally:
        stopping.set()
        await sending


BALANCING = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # Usually half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)
EXPORT = f"/{SERVICES['traces']}/Export"


async def test_clients_that_balance_reach_a_new_processor_when_their_connections_are_of_age() -> None:
    """A name is asked again when a connection ends, so round_robin over `dns:///` finds processors that came later."""
    async with (
        Upstream() as upstream,
        dns_server("127.0.0.1", "127.0.0.2") as names,
        running(upstream_endpoint=upstream.endpoint, grpc_max_connection_age="500ms") as first,
    ):
        port = first.target.rpartition(":")[2]
        async with (
            running(
                upstream_endpoint=upstream.endpoint,
                grpc_max_connection_age="500ms",
                grpc_listen=f"127.0.0.2:{port}",
            ) as second,
            running(upstream_endpoint=upstream.endpoint, grpc_listen=f"127.0.0.3:{port}") as new,
            grpc.aio.insecure_channel(
                f"dns://127.0.0.1:{names.port}/processors.test:{port}", options=BALANCING
            ) as channel,
        ):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
            everyone = (first, second, new)

            def answered() -> list[int]:
                return [one.service.telemetry.counters.requests.get("traces", "ok") for one in everyone]

            while not all(answered()[:2]):
                await call(request(root()), timeout=PATIENT, wait_for_ready=True)
            before = answered()
            names.addresses.append("127.0.0.3")
            while not answered()[2]:
                await call(request(root()), timeout=PATIENT, wait_for_ready=True)
    assert before[2] == 0
    # Every call was answered, none of them twice.
    assert len(upstream.received) == sum(answered())


async def test_clients_that_balance_repeat_what_meets_a_processor_that_goes() -> None:
    """One processor is replaced again and again while eight calls are under way: what is refused may be repeated."""
    again = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    stopping = asyncio.Event()
    acknowledged: list[str] = []

    async def client(number: int, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> None:
        while not stopping.is_set():
            name = f"{number} {len(acknowledged)}"
            try:
                await call(request(root(name)), timeout=PATIENT, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() not in again:
                    raise
                continue
            acknowledged.append(name)

    async with (
        Upstream() as upstream,
        dns_server("127.0.0.1", "127.0.0.2") as names,
        running(upstream_endpoint=upstream.endpoint) as stays,
    ):
        port = stays.target.rpartition(":")[2]
        target = f"dns://127.0.0.1:{names.port}/processors.test:{port}"
        async with grpc.aio.insecure_channel(target, options=BALANCING) as channel:
            clients = [asyncio.create_task(client(number, channel.unary_unary(EXPORT))) for number in range(8)]
            for _ in range(3):
                async with running(upstream_endpoint=upstream.endpoint, grpc_listen=f"127.0.0.2:{port}") as goes:
                    requests = goes.service.telemetry.counters.requests
                    await until(lambda requests=requests: requests.get("traces", "ok") >= 10)
                    await goes.service.drain()
            stopping.set()
            await asyncio.gather(*clients)
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= arrived(upstream).keys()
