"""Real clients send to the processor itself, over every protocol that they speak."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.node_environments import SOURCES, node_environment
from support.otlp_sink import attributes
from support.peer_environments import NEATLOGS_1_4_0, NEATLOGS_1_4_27, Peer, PeerUnavailableError
from support.processor import running
from support.upstream import Upstream

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

PROGRAMS = Path(__file__).parent / "programs"
NAMESPACE, ID = "neatlogs.end_user", "neatlogs.end_user.id"


async def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a client to its end, in an environment without the tester's own settings and proxies."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()


async def available(make: Callable[[], Path]) -> Path:
    """What a client needs, or a skip that says why it is not there."""
    try:
        return await asyncio.to_thread(make)
    except PeerUnavailableError as error:
        pytest.skip(str(error))


def spans_of(upstream: Upstream) -> list[tuple[str, bool, dict[str, object]]]:
    """Name, whether it is a root, and attributes of every span that arrived."""
    return [
        (span.name, not any(span.parent_span_id), attributes(span))
        for received in upstream.received
        if received.signal == "traces"
        for group in ExportTraceServiceRequest.FromString(received.body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def log_lines_of(upstream: Upstream) -> list[str]:
    """The text of every log record that arrived."""
    return [
        record.body.string_value
        for received in upstream.received
        if received.signal == "logs"
        for group in ExportLogsServiceRequest.FromString(received.body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def check_rule(upstream: Upstream) -> list[tuple[str, object]]:
    """No child carries identity and each trace has its completion marker; return the roots with their end users."""
    spans = spans_of(upstream)
    children = [found for _, is_root, found in spans if not is_root]
    assert children
    assert not [key for found in children for key in found if key.startswith(NAMESPACE)]
    roots = [(name, found.get(ID)) for name, is_root, found in spans if is_root]
    assert len([name for name, is_root, _ in spans if name == "neatlogs.trace.complete" and not is_root]) == len(roots)
    assert {received.headers.get("x-api-key") for received in upstream.received} == {"key-of-the-test"}
    return sorted(roots, key=str)


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_opentelemetry_for_node(protocol: str, compression: str) -> None:
    """The exporters of opentelemetry-js deliver in each protocol, plain and compressed, and mean the same in all."""
    home = await available(lambda: node_environment("opentelemetry"))
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        address = processor.target if protocol == "grpc" else processor.http
        await run("node", "client.cjs", protocol, f"http://{address}", compression, cwd=home)
        counters = processor.service.telemetry.counters
    assert sorted(spans_of(upstream), key=str) == [
        ("child", False, {"input.value": 'neatlogs.end_user.id is "u_3" 😀'}),
        ("root", True, {ID: "u_1", "count": 7, "ratio": 0.5, "whole": 2**40, "tags": ["a", "b"], "ok": True}),
    ]
    assert (counters.overrides_ignored.get("child"), counters.overrides_ignored.get("event")) == (1, 1)


async def test_neatlogs_for_node() -> None:
    """The published npm package works against the processor: users on roots, markers, log lines and its key."""
    home = await available(lambda: node_environment("neatlogs"))
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, forward_headers="x-api-key") as processor,
    ):
        await run("node", "client.cjs", f"http://{processor.http}", cwd=home)
    assert check_rule(upstream) == [
        ("anonymous", "u_identified"),
        ("anonymous", None),
        ("decorated", "u_decorated"),
        ("managed", "u_managed"),
    ]
    assert set(log_lines_of(upstream)) == {"found the order"}


@pytest.mark.parametrize(
    ("peer", "roots"),
    [
        (NEATLOGS_1_4_0, [("decorated", "u_decorated"), ("defaulted", "u_default"), ("managed", "u_managed")]),
        (
            NEATLOGS_1_4_27,
            [
                ("anonymous", "u_identified"),
                ("anonymous", None),
                ("decorated", "u_decorated"),
                ("managed", "u_managed"),
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Peer) else "",
)
async def test_neatlogs_for_python(peer: Peer, roots: list[tuple[str, object]]) -> None:
    """The published PyPI packages work against the processor: users on roots, markers and their key."""
    python = await available(peer.python)
    program = PROGRAMS / (peer.name.replace("-", "_").replace(".", "_") + ".py")
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, forward_headers="x-api-key") as processor,
    ):
        await run(python, program, f"http://{processor.http}")
    assert check_rule(upstream) == roots


@pytest.mark.parametrize("peer", [NEATLOGS_1_4_0, NEATLOGS_1_4_27], ids=lambda peer: peer.name)
async def test_log_lines_of_neatlogs_for_python(peer: Peer) -> None:
    """The log lines that the published PyPI packages capture pass through on the same endpoint."""
    python = await available(peer.python)
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, forward_headers="x-api-key") as processor,
    ):
        await run(python, PROGRAMS / "neatlogs_logs.py", f"http://{processor.http}")
    assert check_rule(upstream) == [("logging", "u_logging")]
    assert set(log_lines_of(upstream)) & {"found the order", "looked for the order"}


@pytest.mark.parametrize("lock", sorted(SOURCES.glob("*/package-lock.json")), ids=lambda path: path.parent.name)
def test_lock_files_name_no_registry(lock: Path) -> None:
    """The versions and checksums are pinned; where packages come from is the business of whoever installs them."""
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)
