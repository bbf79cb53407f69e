"""A real Prometheus asks real processors, and is asked what the dashboard asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.manifests import DEPLOY
from support.processor import LIMIT, running
from support.proxies import free_ports
from support.spans import child, request, root
from support.upstream import Upstream, export

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"

# What has nothing to show here: there is neither trouble nor a queue nor a store.
EMPTY = re.compile(r"queue_(waiting|oldest|dead|bytes)|inherit_|store_|http_refused|spans_refused")


@contextlib.asynccontextmanager
async def prometheus(folder: Path, targets: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    """Run Prometheus with the alerts of deploy/ until the block ends; yields a client of its API."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "neatlogs", "static_configs": [{"targets": targets}]}],
    }
    file = folder / "prometheus.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(configuration), encoding="utf-8")
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT) as client:
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), LIMIT)


async def asked(client: httpx.AsyncClient, expression: str) -> list[dict[str, Any]]:
    """The series that an expression has now; none while Prometheus does not answer yet."""
    try:
        answer = await client.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return []
    if answer.status_code == 503:
        return []
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


async def test_the_dashboard_shows_what_processors_do(tmp_path: Path) -> None:
    """Every expression of the dashboard is answered by Prometheus with what two processors say, and no alert fires."""
    body = request(root(neatlogs__end_user__id="u_812"), child())
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint) as first,
        running(upstream_endpoint=upstream.endpoint) as second,
        prometheus(tmp_path, [first.admin, second.admin]) as client,
    ):
        end = asyncio.get_running_loop().time() + LIMIT
        # A rate needs two looks at a number, and the first is the one at which the series begins.
        while len(await asked(client, "rate(neatlogs_processor_spans_forwarded_total[1m]) > 0")) < 2:
            assert asyncio.get_running_loop().time() < end, "Prometheus never saw the processors work"
            for processor in (first, second):
                await export(processor.target, body)
            await asyncio.sleep(0.1)
        expressions = [
            target["expr"]
            for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
            for target in panel.get("targets", ())
        ]
        for expression in expressions:
            for variable, value in (("$__rate_interval", "1m"), ("$job", "neatlogs"), ("$instance", ".*")):
                expression = expression.replace(variable, value)
            found = await asked(client, expression)
            assert bool(found) != bool(EMPTY.search(expression)), expression
        rules = (await client.get("/api/v1/rules")).json()["data"]["groups"]
        firing = await asked(client, 'ALERTS{alertstate="firing"}')
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}
    assert firing == []
