"""The admin port: health, readiness and metrics."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.exposition import PREFIX, described
from neatlogs_processor.settings import check_together, load
from neatlogs_processor.telemetry import Telemetry
from support import metrics_table
from support.processor import run, running, until
from support.spans import child, request, root
from support.upstream import Reply, Upstream, export, refused


async def get(admin: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://{admin}{path}", headers=headers)


async def scrape(admin: str) -> dict[tuple[str, ...], float]:
    """Every sample: its name, its label values in the order of the labels' names, and its number."""
    text = (await get(admin, "/metrics")).text
    return {
        (sample.name.removeprefix(PREFIX), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def test_the_readme_s_table_is_the_metrics() -> None:
    """A metric cannot be added, changed or removed without the README saying so."""
    assert metrics_table.current() == metrics_table.table(), "run: cd tests && python -m support.metrics_table"


def test_metrics_are_named_by_convention() -> None:
    """Names are words in lower case, no two metrics share one, and each is described in a sentence."""
    metrics = described(Telemetry())
    families = [re.sub("_(total|info)$", "", metric.name) for metric in metrics]
    assert len(set(families)) == len(families)
    for metric in metrics:
        assert re.fullmatch(r"neatlogs_processor(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.description[0].isupper() or metric.description[0].isdigit()
        assert metric.description.endswith(".")


async def test_every_metric_that_is_documented_is_there_and_no_other(tmp_path: Path) -> None:
    """With queue, `--inherit` and store, `/metrics` holds exactly the metrics of the README, and the process's own."""
    documented = set(re.findall(r"^\| `(neatlogs_processor_\w+)`", metrics_table.current(), re.MULTILINE))
    async with (
        Upstream() as upstream,
        running(
            upstream_endpoint=upstream.endpoint,
            queue_dir=str(tmp_path / "queue"),
            inherit=True,
            store=str(tmp_path / "traces.db"),
        ) as processor,
    ):
        text = (await get(processor.admin, "/metrics")).text
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert {name for name in typed if name.startswith(PREFIX)} == documented
    assert typed["process_resident_memory_bytes"] == "gauge"


async def test_metrics_count_what_happened() -> None:
    """Spans, roots, overrides by place, refusals by reason, retries and durations are scraped as they were."""
    refusal = Reply(code=grpc.StatusCode.UNAVAILABLE, message="later")
    async with Upstream(refusal, Reply()) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        body = request(root(neatlogs__end_user__id="u_812"), child(neatlogs__end_user__id="u_999"))
        await export(processor.target, body)
        await refused(processor.target, b"\x0a\x7f")
        found = await scrape(processor.admin)
    assert found["spans_received_total",] == found["spans_forwarded_total",] == 2
    assert found["overrides_ignored_total", "child"] == 1
    assert found["overrides_ignored_total", "scope"] == 0
    assert found["roots_total", "yes"] == 1
    assert found["requests_total", "ok", "traces"] == 1
    assert found["requests_total", "malformed", "traces"] == 1
    assert found["retries_total",] == 1
    assert found["request_duration_seconds_count", "traces"] == 2
    assert found["request_duration_seconds_bucket", "+Inf", "traces"] == 2
    assert found["request_duration_seconds_sum", "traces"] > 0
    assert found["requests_in_flight",] == 0


async def test_labels_hold_nothing_from_a_payload() -> None:
    """Whatever spans, services and end users are called, no series is named after them."""
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        before = set(await scrape(processor.admin))
        await export(processor.target, request(root("secret", neatlogs__end_user__id="secret"), service="secret"))
        text = (await get(processor.admin, "/metrics")).text
        assert set(await scrape(processor.admin)) == before
    assert "secret" not in text


async def test_a_scraper_may_ask_for_openmetrics() -> None:
    """The format follows the scraper's `Accept` header, and each is what its own parser reads."""
    async with running(console=True) as processor:
        text = await get(processor.admin, "/metrics")
        openmetrics = await get(processor.admin, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in read_openmetrics(openmetrics.text)}
    assert f"{PREFIX}spans_received" in names
    assert f"{PREFIX}build" in names


async def test_probes_need_neither_a_key_nor_a_host_name(tmp_path: Path) -> None:
    """Health and readiness answer whoever asks, under any name, although the receivers ask for tokens."""
    tokens = tmp_path / "tokens"
    tokens.write_text("app secret-token-of-the-application\n")
    tokens.chmod(0o600)
    async with running(console=True, auth_tokens_file=str(tokens)) as processor:
        for path, text in (("/healthz", "ok\n"), ("/readyz", "ready\n")):
            answer = await get(processor.admin, path, host="anything.example")
            assert (answer.status_code, answer.text) == (200, text)
            assert answer.headers["cache-control"] == "no-store"


async def test_a_processor_that_drains_is_alive_and_not_ready() -> None:
    """From the signal on, `/readyz` says no while `/healthz` still answers; requests in flight are finished."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="60s") as processor,
    ):
        delivery = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        stopping = asyncio.create_task(processor.service.stop())
        await asyncio.sleep(0)
        ready, healthy = await get(processor.admin, "/readyz"), await get(processor.admin, "/healthz")
        accept.set()
        await asyncio.gather(delivery, stopping)
    assert (ready.status_code, ready.text) == (503, "not ready: starting or stopping\n")
    assert healthy.status_code == 200


async def test_a_full_queue_is_not_ready(tmp_path: Path) -> None:
    """While the queue is full, `/readyz` says so, and the gauges show how full and how old it is."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        running(
            upstream_endpoint=upstream.endpoint, queue_dir=str(tmp_path), queue_max_bytes=2000, shutdown_timeout="0s"
        ) as processor,
    ):
        assert (await get(processor.admin, "/readyz")).status_code == 200
        await export(processor.target, request(root(name="n" * 400)))
        await refused(processor.target, request(root(name="n" * 4000)))
        ready = await get(processor.admin, "/readyz")
        found = await scrape(processor.admin)
        never.set()
    assert (ready.status_code, ready.text) == (503, "not ready: the queue is full\n")
    assert found["ready",] == 0
    assert found["queue_full",] == 1
    assert found["queue_bytes_limit",] == 2000
    assert found["queue_waiting_requests",] == 1
    assert found["queue_waiting_bytes",] > 400
    assert found["queue_oldest_age_seconds",] >= 0


async def test_none_closes_the_admin_port() -> None:
    """With `--admin-listen none` there is no third listener."""
    async with running(console=True, admin_listen="none") as processor:
        assert processor.admin == ""


@pytest.mark.parametrize("flags", [{}, {"allow_insecure": "grpc,http"}])
def test_an_admin_port_for_other_machines_is_to_be_allowed(flags: dict[str, str]) -> None:
    """The admin port asks for no key, so opening it to a network takes a flag that names it."""
    loaded = load({"console": True, "admin_listen": "0.0.0.0:4319", **flags}, {})
    with pytest.raises(ConfigError, match="--allow-insecure admin"):
        check_together(loaded.settings)
    allowed = load({"console": True, "admin_listen": "0.0.0.0:4319", "allow_insecure": "admin"}, {})
    check_together(allowed.settings)


async def test_a_busy_admin_port_is_one_clear_line() -> None:
    """A port that is taken ends the start with the flag's name and what to do."""
    async with running(console=True) as processor:
        done = await run("--console", "--grpc-listen", "127.0.0.1:0", "--admin-listen", processor.admin)
    assert done.code == 2
    assert "--admin-listen: cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr


async def test_other_pages_are_not_found() -> None:
    """What is not there is 404, what is there takes GET alone."""
    async with running(console=True) as processor, httpx.AsyncClient(base_url=f"http://{processor.admin}") as client:
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_requests_in_flight_are_seen() -> None:
    """The gauges of what is in flight rise while a request waits for its answer, and fall afterwards."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept)) as upstream,
        running(upstream_endpoint=upstream.endpoint) as processor,
    ):
        body = request(root())
        delivery = asyncio.create_task(export(processor.target, body))
        await upstream.wait_for(1)
        during = await scrape(processor.admin)
        accept.set()
        await delivery
        await until(lambda: processor.service.telemetry.gauges.requests_in_flight.read() == 0)
        after = await scrape(processor.admin)
    assert during["ready",] == 1
    assert during["requests_in_flight_limit",] == 100
    assert during["bytes_in_flight_limit",] == 256 * 2**20
    assert during["requests_in_flight",] == 1
    assert during["bytes_in_flight",] >= len(body)
    assert after["requests_in_flight",] == after["bytes_in_flight",] == 0
