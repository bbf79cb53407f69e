"""From the ready line to the last request in flight."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import sys
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.processor import LIMIT, program, run, until
from support.spans import child, request, root
from support.upstream import SERVICES, Reply, Upstream, export, refused

ANY_PORT = ("--grpc-listen", "127.0.0.1:0")
PROTOBUF = {"content-type": "application/x-protobuf"}
# Tests end requests themselves; no timer does it for them on a busy machine.
PATIENT = ("--upstream-timeout", "10m", *ANY_PORT)


async def test_a_newcomer_sees_where_it_listens_what_to_try_and_each_trace() -> None:
    """Without an upstream it says that nothing is forwarded, acknowledges, and prints a line per trace."""
    body = request(
        root("chat", neatlogs__end_user__id="u_812", neatlogs__end_user__source="trace"),
        child("tool", neatlogs__end_user__id="u_999"),
    )
    async with program("--console", *ANY_PORT) as started:
        address = await started.ready()
        assert "--upstream-endpoint" in await started.line("go nowhere else")
        assert f"http://{address} OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in await started.line("make demo")
        assert await export(address, body) == b""
        line = await started.line("u_812", stdout=True)
        warning = await started.line('child span "tool"')
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert "shop / chat" in line
    assert '1 override ignored: "tool" (child)' in line
    assert "root span owns" in warning
    assert finished.code == 0
    assert "2 acknowledged" in finished.stderr
    assert "u_812" not in finished.stderr
    assert "u_999" not in finished.stderr + finished.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_requests_in_flight_finish(number: signal.Signals) -> None:
    """After SIGTERM or SIGINT nothing new is accepted, what is in flight is delivered, and the exit code is 0."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept)) as upstream,
        program("--upstream-endpoint", upstream.endpoint, *PATIENT, "--shutdown-timeout", "60s") as started,
    ):
        address = await started.ready()
        in_flight = asyncio.create_task(export(address, request(root()), timeout=None))
        await upstream.wait_for(1)
        started.kill(number)
        await started.line(f"{number.name}: finishing")
        error = await refused(address, request(root()))
        accept.set()
        assert await in_flight == b""
        finished = await started.end()
    # Refused by the closing server or by the closed port: retryable either way.
    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert finished.code == 0
    assert "1 acknowledged" in finished.stderr
    assert "Traceback" not in finished.stderr


async def test_a_request_that_outlasts_the_shutdown_limit_is_not_acknowledged() -> None:
    """Past the limit the client gets a code that it may retry, and the processor ends with 0."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        program("--upstream-endpoint", upstream.endpoint, *PATIENT, "--shutdown-timeout", "100ms") as started,
    ):
        address = await started.ready()
        in_flight = asyncio.create_task(refused(address, request(root()), timeout=None))
        await upstream.wait_for(1)
        started.kill(signal.SIGTERM)
        error = await in_flight
        finished = await started.end()
        never.set()
    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert finished.code == 0
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(number: signal.Signals) -> None:
    """Who asks twice does not wait; the exit code names the signal."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        program("--upstream-endpoint", upstream.endpoint, *PATIENT, "--shutdown-timeout", "1h") as started,
    ):
        in_flight = asyncio.create_task(refused(await started.ready(), request(root()), timeout=None))
        await upstream.wait_for(1)
        started.kill(number)
        await started.line(f"{number.name}: finishing")
        started.kill(number)
        finished = await started.end()
        await in_flight
        never.set()
    assert finished.code == 128 + number


async def test_a_request_that_cannot_be_broken_off_does_not_keep_it() -> None:
    """What still works ten seconds after the shutdown limit is left behind; a line says so, and the exit code is 1."""
    crumbs = gzip.compress(b"\x0a\x00" * (2**25 - 1))
    async with program("--console", *ANY_PORT, "--shutdown-timeout", "0s") as started:
        address = await started.ready()
        ports = re.findall(r"127\.0\.0\.1:\d+", await started.line("is ready"))
        lost = asyncio.create_task(refused(address, crumbs))
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
            while "requests_in_flight 1.0" not in (await client.get(f"http://{ports[2]}/metrics")).text:
                await asyncio.sleep(0.05)
        started.kill(signal.SIGTERM)
        finished = await started.end()
        error = await lost
    assert finished.code == 1
    assert "was not acknowledged" in finished.stderr.splitlines()[-1]
    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_after_a_signal_requests_are_accepted_for_the_drain_delay() -> None:
    """Readiness and health turn at once, while new connections and requests are served until the delay is over."""
    states = health_pb2.HealthCheckResponse
    async with Upstream() as upstream:
        flags = ("--upstream-endpoint", upstream.endpoint, *ANY_PORT)
        async with program(*flags, "--drain-delay", "1h") as started:
            address = await started.ready()
            _, http, admin = re.findall(r"127\.0\.0\.1:\d+", await started.line("is ready"))[:3]
            async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
                before = await client.get(f"http://{admin}/readyz")
                kept = await client.post(f"http://{http}/v1/traces", content=request(root()), headers=PROTOBUF)
                started.kill(signal.SIGTERM)
                await started.line("accepting for another 3600 s")
                after = await client.get(f"http://{admin}/readyz")
                last = await client.post(f"http://{http}/v1/traces", content=request(root()), headers=PROTOBUF)
            async with grpc.aio.insecure_channel(address) as channel:
                asked = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert await export(address, request(root())) == b""
            started.kill(signal.SIGTERM)
            at_once = await started.end()
        async with program(*flags, "--drain-delay", "1ms") as started:
            await started.ready()
            started.kill(signal.SIGTERM)
            finished = await started.end()
    assert (before.status_code, after.status_code) == (200, 503)
    assert asked.status == states.NOT_SERVING
    # A client that keeps its connection would be cut off when the delay is over; so it is told to open another one.
    assert (kept.headers.get("connection"), last.headers["connection"]) == (None, "close")
    assert len(upstream.received) == 3
    assert at_once.code == 128 + signal.SIGTERM
    assert finished.code == 0


async def test_health_turns_not_serving_and_watchers_do_not_delay_the_end() -> None:
    """A health stream is told NOT_SERVING when a shutdown begins, and then ends."""
    async with program("--console", *ANY_PORT, "--shutdown-timeout", "1h") as started:
        async with grpc.aio.insecure_channel(await started.ready()) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            service = SERVICES["traces"]
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == 1
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await stub.Check(health_pb2.HealthCheckRequest(service="other"))
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", service, "other")]
            first = [(await watch.read()).status for watch in watches]
            started.kill(signal.SIGTERM)
            then = [(await watch.read()).status for watch in watches]
            ends = [await watch.read() for watch in watches]
        finished = await started.end()
    states = health_pb2.HealthCheckResponse
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert first == [states.SERVING, states.SERVING, states.SERVICE_UNKNOWN]
    assert then == [states.NOT_SERVING, states.NOT_SERVING, states.SERVICE_UNKNOWN]
    assert ends == [grpc.aio.EOF] * 3
    assert finished.code == 0


async def test_an_upstream_that_is_down_is_no_reason_not_to_start() -> None:
    """It starts, and failures are logged once, not once for each request."""
    async with program("--upstream-endpoint", "127.0.0.1:9", "--upstream-timeout", "50ms", *ANY_PORT) as started:
        address = await started.ready()
        for _ in range(5):
            assert (await refused(address, request(root()))).code() is grpc.StatusCode.UNAVAILABLE
        warning = await started.line("not delivered")
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert "--upstream-endpoint" in warning
    assert finished.stderr.count("not delivered") == 1
    assert "5 refused" in finished.stderr


async def test_a_signal_without_a_destination_is_logged_once() -> None:
    """The line names the flag that would give metrics a destination."""
    async with program("--console", *ANY_PORT) as started:
        address = await started.ready()
        for _ in range(3):
            await refused(address, b"", signal="metrics")
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert finished.stderr.count("metrics have no destination; name one with --upstream-endpoint") == 1


async def test_json_logs_are_one_object_a_line() -> None:
    """With --log-format json every line of stderr can be parsed."""
    async with program("--console", "--log-format", "json", *ANY_PORT) as started:
        await started.ready()
        started.kill(signal.SIGTERM)
        finished = await started.end()
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    assert all(line.keys() == {"time", "level", "logger", "message"} for line in lines)
    assert "is ready" in lines[0]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_level_hides_what_is_below() -> None:
    """With --log-level error an ordinary run says nothing."""
    async with program("--console", "--log-level", "error", *ANY_PORT) as started:
        # No ready line to wait for, so the signal waits until the program handles it.
        await until(lambda: _catches(started.process.pid, signal.SIGTERM))
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert (finished.code, finished.stderr) == (0, "")


async def test_headers_over_plain_text_to_another_machine_are_warned_about() -> None:
    """A key that travels unencrypted is worth a line at the start."""
    flags = ("--upstream-endpoint", "http://192.0.2.1:4317", "--upstream-headers", "x-api-key=hunter2", *ANY_PORT)
    async with program(*flags) as started:
        warning = await started.line("without TLS")
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert "https://host:port" in warning
    assert "hunter2" not in finished.stderr


async def test_a_closed_stdout_costs_no_request() -> None:
    """When whoever read the console's lines has gone, requests are answered as before."""
    async with program("--console", *ANY_PORT) as started:
        address = await started.ready()
        started.hang_up()
        for _ in range(3):
            assert await export(address, request(root())) == b""
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert finished.code == 0
    assert "Traceback" not in finished.stderr


async def test_the_program_needs_no_terminal_to_show_its_help() -> None:
    """`python -m neatlogs_processor` is the console script."""
    assert (await run("--help")).stdout.startswith("usage: neatlogs-processor")


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
