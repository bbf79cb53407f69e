"""An upstream whose network is broken: what the client is told, and that nothing is lost.

Statuses are in `test_grpc_failures` and `test_http_upstream`; here no answer comes, or not a whole one.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from support.faulty_path import FAULTS, FaultyPath
from support.http_upstream import HttpUpstream
from support.processor import running
from support.spans import request, root
from support.upstream import Upstream, export, refused

PROTOCOLS = ["grpc", "http/protobuf"]
SILENT = {"black hole", "drip"}
"""Faults that end with the budget; all others are noticed at once, and tried again within it."""


def upstream_for(protocol: str) -> Any:
    return Upstream() if protocol == "grpc" else HttpUpstream()


def flags(path: FaultyPath, protocol: str, timeout: str) -> dict[str, str]:
    endpoint = f"http://127.0.0.1:{path.port}"
    return {"upstream_endpoint": endpoint, "upstream_protocol": protocol, "upstream_timeout": timeout}


async def answer(target: str) -> grpc.StatusCode:
    try:
        await export(target, request(root()))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in SILENT])
async def test_a_broken_connection_is_tried_again(fault: str, protocol: str) -> None:
    """What breaks off is sent again on another connection: the client hears of nothing, and nothing is lost."""
    async with (
        upstream_for(protocol) as upstream,
        FaultyPath(upstream.port, fault, protocol=protocol) as path,
        running(**flags(path, protocol, "30s")) as processor,
    ):
        assert await export(processor.target, request(root())) == b""
        counters = processor.service.telemetry.counters
        assert counters.spans_forwarded.total() == 1
        assert counters.spans_refused.total() == 0
    assert path.broken == 1
    assert upstream.bodies == [request(root())]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_path_that_stays_broken_is_unavailable(fault: str, protocol: str) -> None:
    """However the upstream fails, the client gets a code that it may retry, within the budget; once the path is whole
    again, its next request goes through."""
    async with (
        upstream_for(protocol) as upstream,
        FaultyPath(upstream.port, fault, protocol=protocol, times=1_000_000) as path,
        running(**flags(path, protocol, "500ms")) as processor,
    ):
        error = await refused(processor.target, request(root()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        counters = processor.service.telemetry.counters
        assert counters.spans_refused.get("upstream_unavailable") == 1
        assert counters.failures.total() == 0
        path.heal()
        # A client that was told to come back does so until it is heard.
        answers = [await answer(processor.target)]
        while answers[-1] is not grpc.StatusCode.OK:
            assert len(answers) < 60
            answers.append(await answer(processor.target))
        assert set(answers[:-1]) <= {grpc.StatusCode.UNAVAILABLE}
        assert counters.spans_forwarded.total() == 1
    assert upstream.bodies == [request(root())]
