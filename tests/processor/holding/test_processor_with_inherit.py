"""The processor with `--inherit`: real clients, real restarts."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from neatlogs_processor.cli import main
from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.holding.file import HoldingFile, describe_held, holding_file_in
from neatlogs_processor.holding.rows import fragment_of
from neatlogs_processor.settings import check_together, load
from support.otlp_sink import OtlpSink, attributes
from support.processor import running, until
from support.spans import child, request, root
from support.upstream import export, refused

TORTURE = Path(__file__).parents[2] / "torture"
USER = {"neatlogs__end_user__id": "u_1"}


def use_an_application(endpoint: str) -> None:
    """Two traces by the SDK, whose children leave in batches of their own before their roots end."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=2))
    tracer = provider.get_tracer("shop")
    for user in ("u_1", "u_2"):
        with tracer.start_as_current_span(f"chat {user}") as span:
            span.set_attribute("neatlogs.end_user.id", user)
            span.set_attribute("neatlogs.end_user.metadata", '{"plan":"pro"}')
            span.set_attribute("neatlogs.end_user.source", "trace")
            with tracer.start_as_current_span(f"agent {user}"):
                for number in range(5):
                    tracer.start_span(f"tool {number} {user}").end()
            # Returns after the children's batches have been answered.
            assert provider.force_flush()
    provider.shutdown()


async def test_every_span_of_an_application_that_uses_the_sdk_has_its_end_user(tmp_path: Path) -> None:
    """Children are answered before their root is sent, as the SDK does it, and arrive with the root's end user."""
    with OtlpSink() as sink:
        async with running(
            upstream_endpoint=f"127.0.0.1:{sink.grpc_port}", queue_dir=str(tmp_path / "queue"), inherit=True
        ) as processor:
            await asyncio.to_thread(use_an_application, f"http://{processor.target}")
            await until(lambda: len(sink.spans) == 14)
    for span in sink.spans:
        found = attributes(span)
        assert found["neatlogs.end_user.id"] == span.name.split()[-1]
        assert found["neatlogs.end_user.metadata"] == '{"plan":"pro"}'
        assert ("neatlogs.end_user.source" in found) == span.name.startswith("chat")


def test_without_a_queue_it_is_refused() -> None:
    """A wait before the answer would wait for itself, which the error says."""
    settings = load({"upstream_endpoint": "127.0.0.1:9", "inherit": True}, {}).settings
    with pytest.raises(ConfigError, match=r"--inherit needs --queue-dir: .* after the answer"):
        check_together(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("inherit_wait", "0s"), ("inherit_max_spans", "0"), ("inherit_max_bytes", "x"), ("inherit_memory", "-1")],
)
def test_values_that_cannot_work_are_refused(name: str, value: str) -> None:
    """A mistake is one line that names the flag."""
    with pytest.raises(ConfigError, match="--" + name.replace("_", "-")):
        load({name: value}, {})


async def test_spans_wait_across_a_restart(tmp_path: Path) -> None:
    """What waited when the processor stopped waits on when it starts again; a root that has gone is still known."""
    gone = b"\x09" * 16
    with OtlpSink() as sink:
        settings = {
            "upstream_endpoint": f"127.0.0.1:{sink.grpc_port}",
            "queue_dir": str(tmp_path / "queue"),
            "inherit": True,
            "inherit_wait": "1h",
        }
        async with running(**settings) as first:
            await export(first.target, request(child("waits")))
            await export(first.target, request(root("gone", trace_id=gone, neatlogs__end_user__id="u_9")))
        async with running(**settings) as second:
            await export(second.target, request(child("late", trace_id=gone)))
            await export(second.target, request(root("chat", **USER)))
            await until(lambda: len(sink.spans) == 4)
    found = {span.name: attributes(span).get("neatlogs.end_user.id") for span in sink.spans}
    assert found == {"gone": "u_9", "late": "u_9", "chat": "u_1", "waits": "u_1"}


async def test_time_passes_while_the_processor_is_stopped(tmp_path: Path) -> None:
    """The wait counts from arrival by the wall clock: what is overdue at the next start goes on as it is."""
    queue = tmp_path / "queue"
    queue.mkdir()
    arrivals = {"overdue": time.time() - 7_200, "in time": time.time(), "of a clock put back": time.time() + 7_200}
    file = HoldingFile(holding_file_in(queue))
    with file.transaction():
        file.insert(
            fragment_of(number, bytes([number]) * 16, arrived, 1, request(child(name)))
            for number, (name, arrived) in enumerate(arrivals.items(), start=1)
        )
    file.close()
    with OtlpSink() as sink:
        async with running(
            upstream_endpoint=f"127.0.0.1:{sink.grpc_port}", queue_dir=str(queue), inherit=True, inherit_wait="1h"
        ) as processor:
            await until(lambda: processor.service.telemetry.counters.inherit_spans.get("timed_out") == 1)
            await until(lambda: len(sink.spans) == 1)
    assert sink.spans == [child("overdue")]


async def test_what_waited_is_not_forgotten_when_the_option_is_taken_away(tmp_path: Path) -> None:
    """Started again without --inherit, the processor sends on what waited, as it is, and removes the file."""
    queue = tmp_path / "queue"
    async with running(upstream_endpoint="127.0.0.1:9", queue_dir=str(queue), inherit=True) as processor:
        await export(processor.target, request(child("waits")))
        await export(processor.target, request(root("known", trace_id=b"\x09" * 16, **USER)))
    with OtlpSink() as sink:
        async with running(upstream_endpoint=f"127.0.0.1:{sink.grpc_port}", queue_dir=str(queue)) as processor:
            await until(lambda: len(sink.spans) == 2)
            await export(processor.target, request(child("not held")))
            await until(lambda: len(sink.spans) == 3)
    assert {span.name: attributes(span).get("neatlogs.end_user.id") for span in sink.spans} == {
        "waits": None,
        "known": "u_1",
        "not held": None,
    }
    assert not holding_file_in(queue).exists()


async def test_what_cannot_go_on_yet_stays_although_the_option_is_taken_away(tmp_path: Path) -> None:
    """While the queue is full, what waited stays in its file, also over a stop."""
    queue = tmp_path / "queue"
    async with running(upstream_endpoint="127.0.0.1:9", queue_dir=str(queue), inherit=True) as processor:
        await export(processor.target, request(child("waits" * 2_000)))
        await export(processor.target, request(root("fills" * 12_000, trace_id=b"\x09" * 16)))
    small = {"max_message_size": "32KiB", "queue_max_bytes": "64KiB"}
    async with running(upstream_endpoint="127.0.0.1:9", queue_dir=str(queue), **small) as processor:
        error = await refused(processor.target, request(root("x" * 8_000)))
        assert "--queue-max-bytes" in (error.details() or "")
    file = HoldingFile(holding_file_in(queue))
    assert [one.spans for one in file.held()] == [1]
    file.close()


async def test_queue_ls_says_what_waits_for_its_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever looks into the queue's directory, also beside a running processor, is told about held spans."""
    queue = tmp_path / "queue"
    assert describe_held(queue) == ""
    async with running(upstream_endpoint="127.0.0.1:9", queue_dir=str(queue), inherit=True) as processor:
        await export(processor.target, request(child("llm"), child("tool"), child("other", trace_id=b"\x09" * 16)))
        assert main(["queue", "ls", "--queue-dir", str(queue)]) == 0
    assert "3 spans of 2 traces" in capsys.readouterr().out
    headless = holding_file_in(tmp_path)
    headless.write_bytes(b"not a database" * 100)
    with pytest.raises(ProcessorError, match="cannot be read"):
        describe_held(tmp_path)


async def test_a_store_beside_has_the_spans_at_once_and_as_they_came(tmp_path: Path) -> None:
    """The page shows a trace by its root anyway: the store is written first, and nothing is stamped in it."""
    store = tmp_path / "traces.db"
    async with running(
        upstream_endpoint="127.0.0.1:9", queue_dir=str(tmp_path / "queue"), inherit=True, store=str(store)
    ) as processor:
        await export(processor.target, request(child("waits")))
        assert processor.service.telemetry.counters.store_spans.get("written") == 1


async def test_emitted_keys_are_inherited_and_the_metrics_say_what_became_of_spans(tmp_path: Path) -> None:
    """What --emit writes on roots for a backend, children get too; counters and gauges tell how many wait."""
    with OtlpSink() as sink:
        async with running(
            upstream_endpoint=f"127.0.0.1:{sink.grpc_port}",
            queue_dir=str(tmp_path / "queue"),
            inherit=True,
            emit=["user.id"],
        ) as processor:
            await export(processor.target, request(child("tool"), child("other", trace_id=b"\x09" * 16)))
            await export(processor.target, request(root("chat", **USER)))
            await until(lambda: len(sink.spans) == 2)
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"http://{processor.admin}/metrics")).text
    assert {span.name: attributes(span).get("user.id") for span in sink.spans} == {"chat": "u_1", "tool": "u_1"}
    for line in (
        'neatlogs_processor_inherit_spans_total{outcome="stamped"} 1',
        'neatlogs_processor_inherit_spans_total{outcome="root"} 1',
        "neatlogs_processor_inherit_held_spans 1",
        "neatlogs_processor_inherit_held_traces 1",
        "neatlogs_processor_inherit_roots 1",
    ):
        assert line in metrics


async def test_a_processor_behind_takes_inherited_identity_off_again(tmp_path: Path) -> None:
    """The rule knows no exception: --inherit belongs into the last hop before the backend."""
    with OtlpSink() as sink:
        async with (
            running(upstream_endpoint=f"127.0.0.1:{sink.grpc_port}") as last,
            running(upstream_endpoint=last.target, queue_dir=str(tmp_path / "queue"), inherit=True) as first,
        ):
            await export(first.target, request(root("chat", **USER), child("tool")))
            await until(lambda: len(sink.spans) == 2)
    assert {span.name: attributes(span).get("neatlogs.end_user.id") for span in sink.spans} == {
        "chat": "u_1",
        "tool": None,
    }


def test_nothing_acknowledged_is_lost_when_the_processor_is_killed_while_spans_wait() -> None:
    """Killed at random moments under load, every acknowledged span arrives, and none with another's end user."""
    finished = subprocess.run(
        [sys.executable, TORTURE / "kill9.py", "--mode", "inherit", "--kills", "3"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    figures = re.search(r"(\d+) acknowledged, (\d+) received, (\d+) lost.*; (\d+) of (\d+) children", finished.stdout)
    assert figures is not None
    acknowledged, _, lost, stamped, _ = (int(figure) for figure in figures.groups())
    assert (acknowledged > 0, lost, stamped > 0) == (True, 0, True)
