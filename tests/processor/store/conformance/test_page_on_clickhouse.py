"""The page over ClickHouse, as a whole processor: what an application sends is listed by its end user."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from support.clickhouse_server import WAIT_SECONDS, clickhouse_server
from support.page import PageUnderTest, page_under_test
from support.two_engines import Database


def migrate(url: str) -> None:
    """Make the store's tables by the command that makes them; those that are there stay."""
    command = [sys.executable, "-m", "neatlogs_processor", "store", "migrate", "--store", url]
    subprocess.run(command, check=True, capture_output=True, timeout=WAIT_SECONDS)


@pytest.fixture(scope="module")
def site(database: Database) -> Iterator[PageUnderTest]:
    """A processor that keeps traces in ClickHouse."""
    database.fill([])
    url = database.server.url(database.name)
    migrate(url)
    with page_under_test("--store", url, "--store-batch-time", "100ms") as running:
        send(running)
        yield running


def send(site: PageUnderTest) -> None:
    """Let the OpenTelemetry SDK send a trace of an end user, and one of nobody."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "neatlogs.workflow_name": "support"}))
    exporter = OTLPSpanExporter(endpoint=site.processor.address, insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    identity = {"neatlogs.end_user.id": "Zoë", "neatlogs.end_user.metadata": json.dumps({"plan": "pro", "seats": 3})}
    with (
        tracer.start_as_current_span("answer", attributes={**identity, "neatlogs.session.id": "s 1"}),
        tracer.start_as_current_span("llm", attributes={"openinference.span.kind": "LLM", "llm.token_count.total": 42}),
    ):
        pass
    with tracer.start_as_current_span("nobody's"):
        pass
    provider.shutdown()


def read(site: PageUnderTest, path: str) -> str:
    """Return what the page answers."""
    with urllib.request.urlopen(site.url + path, timeout=WAIT_SECONDS) as answer:  # noqa: S310  # our own page
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/traces?filter=end_user+contains+ZO%C3%8B", "Zoë"),
        ("/traces?filter=metadata%3Aplan+is+pro+and+tokens+%3D+42", "Zoë"),
        ("/sessions?filter=end_user+is+Zo%C3%AB", "s 1"),
        ("/users?filter=metadata%3Aseats+%3E+2", "Zoë"),
        ("/user?id=Zo%C3%AB", "seats"),
        ("/coverage", "nobody&#39;s"),
    ],
)
def test_every_tab_shows_what_was_sent(site: PageUnderTest, path: str, shown: str) -> None:
    """Traces, sessions, end users and coverage find by the same filters what stands in ClickHouse."""
    assert shown in read(site, path)


def test_the_api_says_it_as_json_and_csv(site: PageUnderTest) -> None:
    """The rows are those of the page, as JSON and as a table; and a trace is there with its spans."""
    (row,) = json.loads(read(site, "/api/traces?filter=end_user+is+set"))["rows"]
    assert (row["end_user"], row["session"], row["workflow"], row["tokens"]) == ("Zoë", "s 1", "support", 42)
    whole = json.loads(read(site, f"/api/traces/{row['trace_id']}"))
    assert [span["name"] for span in whole["spans"]] == ["answer", "llm"]
    (line,) = csv.DictReader(io.StringIO(read(site, "/api/traces.csv?filter=end_user+is+set")))
    assert line["end_user"] == "Zoë"


def test_the_page_stays_up_without_its_server() -> None:
    """While ClickHouse is away the page says so in a sentence of its own, and it works again when ClickHouse does."""
    with clickhouse_server() as server:
        migrate(server.url())
        with page_under_test("--store", server.url()) as site:
            assert "/traces" in read(site, "/traces")
            server.kill()
            with pytest.raises(urllib.error.HTTPError) as refused:
                read(site, "/traces")
            with contextlib.closing(refused.value):
                assert refused.value.code == 503
                assert "the ClickHouse server cannot be reached" in refused.value.read().decode()
            server.restart()
            assert "/traces" in read(site, "/traces")
