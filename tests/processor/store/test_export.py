"""`neatlogs-processor store export`: what comes out is what went in, and goes in again."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.otlp_json import request_from_json
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, View
from neatlogs_processor.store.export import LINE_BYTES, Exported, export
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support import upstream
from support.otlp_messages import trace_requests
from support.processor import run, running
from support.spans import child, request, root
from support.stored import MINUTE, NOW, Stored, write

EVERYTHING = View(period=ALL_TIME)
TRACES = [
    Stored(1, "alice", {"plan": "pro"}, session="s", tokens=5, spans=3),
    Stored(2, "alice", {"plan": "free"}, session="s", ago=100 * MINUTE),
    Stored(3, "bob", {"plan": "pro"}, root_received=True, status="error"),
    Stored(4, None, root_received=False),
]


def put(path: Path, *bodies: bytes) -> None:
    """Enforce requests and write them into the store."""
    with contextlib.closing(open_writer(path)) as connection:
        policy = EndUserPolicy()
        Writing(connection).write(
            [(read_request(enforce_traces(body, policy).body, policy), ()) for body in bodies], NOW
        )


def exported(path: Path, view: View = EVERYTHING) -> tuple[Exported, list[bytes]]:
    """Return what an export says, and its lines."""
    lines: list[bytes] = []
    return export(path, view, NOW, lines.append), lines


def trace_ids(lines: list[bytes]) -> list[str]:
    """Return the trace of each line."""
    found = []
    for line in lines:
        spans = [
            span["traceId"]
            for resource_spans in json.loads(line)["resourceSpans"]
            for scope_spans in resource_spans["scopeSpans"]
            for span in scope_spans["spans"]
        ]
        assert len(set(spans)) == 1
        found.append(spans[0])
    return found


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(message=trace_requests())
def test_what_comes_out_goes_in_as_the_same(tmp_path_factory: pytest.TempPathFactory, message: Any) -> None:
    """Whatever spans hold, a store filled with an export shows the same traces and exports the same again."""
    number = 0
    for resource_spans in message.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                number += 1
                span.trace_id, span.span_id = bytes([1 + number % 3]) * 16, number.to_bytes(8, "big")
    folder = tmp_path_factory.mktemp("export")
    first, second = folder / "first.db", folder / "second.db"
    put(first, message.SerializeToString())
    said, lines = exported(first)
    put(second, *(request_from_json(Signal.TRACES, line) for line in lines))
    said_again, lines_again = exported(second)
    assert said == said_again
    assert sorted(map(canonical, lines)) == sorted(map(canonical, lines_again))
    readers = [SqliteReader(path) for path in (first, second)]
    try:
        one, two = (reader.traces(EVERYTHING, now=NOW).rows for reader in readers)
        assert {row.trace_id: row for row in one} == {row.trace_id: row for row in two}
        for row in one:
            assert repr(readers[0].trace(row.trace_id)) == repr(readers[1].trace(row.trace_id))
    finally:
        for reader in readers:
            reader.close()


def canonical(line: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return what a line says: each span with its resource and its scope, whatever shares a container."""
    message = ExportTraceServiceRequest.FromString(request_from_json(Signal.TRACES, line))
    return sorted(
        (
            span.SerializeToString(deterministic=True),
            one.resource.SerializeToString(deterministic=True) + one.schema_url.encode(),
            part.scope.SerializeToString(deterministic=True) + part.schema_url.encode(),
        )
        for one in message.resource_spans
        for part in one.scope_spans
        for span in part.spans
    )


async def test_the_page_shows_the_same_after_an_export_into_another_processor(tmp_path: Path) -> None:
    """From a running processor with the command, line by line into another one over HTTP: the same answers."""
    bodies = [trace.request() for trace in TRACES]
    ignored = request(root(trace_id=b"\7" * 16), child(trace_id=b"\7" * 16, neatlogs__end_user__id="mallory"))
    async with running(store=str(tmp_path / "one.db")) as one, running(store=str(tmp_path / "two.db")) as two:
        for body in (*bodies, ignored):
            await upstream.export(one.target, body)
        finished = await run("store", "export", "--store", str(tmp_path / "one.db"))
        assert finished.code == 0
        assert finished.stderr == "5 traces with 8 spans exported"
        async with httpx.AsyncClient(timeout=60) as client:
            for line in finished.stdout.splitlines():
                headers = {"content-type": "application/json"}
                answer = await client.post(f"http://{two.http}/v1/traces", content=line, headers=headers)
                assert (answer.status_code, answer.json()) == (200, {})
            for path in ("traces", "users", "sessions", *(f"traces/{trace.trace_id}" for trace in TRACES)):
                first, second = [
                    (await client.get(f"http://{where.admin}/api/{path}?last=all")).json() for where in (one, two)
                ]
                assert without_overrides(first) == without_overrides(second), path
    assert "mallory" not in finished.stdout


def without_overrides(answer: Any) -> Any:
    """Leave out what an export cannot hold: it is of enforced spans, in which nothing is left to be ignored."""
    if isinstance(answer, dict):
        return {name: without_overrides(value) for name, value in answer.items() if name != "overrides"}
    return [without_overrides(value) for value in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ((), [1, 2, 3, 4]),
        (("--filter", "end_user is alice"), [1, 2]),
        (("--filter", "end_user is alice and metadata:plan is pro"), [1]),
        (("--filter", "end_user is alice", "--filter", "metadata:plan is pro"), [1]),
        (("--from", "2026-11-18T11:00:00Z"), [1, 3, 4]),
        (("--to", "2026-11-18T10:00:00Z"), [2]),
        (("--filter", "end_user is nobody"), []),
        (("--last", "all"), [1, 2, 3, 4]),
    ],
)
async def test_filters_and_periods_are_those_of_the_page(
    tmp_path: Path, arguments: tuple[str, ...], numbers: list[int]
) -> None:
    """An export holds what the page lists for the same filters and period, in the order of arrival; else everything."""
    path = tmp_path / "traces.db"
    write(path, TRACES)
    finished = await run("store", "export", *arguments, environ={"NEATLOGS_PROCESSOR_STORE": str(path)})
    assert finished.code == 0
    lines = [line.encode() for line in finished.stdout.splitlines()]
    assert trace_ids(lines) == [Stored(number).trace_id for number in numbers]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--filter", "end_user iz alice"), "--filter at character"),
        (("--last", "soon"), "--last: "),
        (("--last", "1h", "--from", "2026-11-18"), "--last: a period is said by"),
        (("--from", "yesterday"), "--from: a time is written"),
        (("--store", "/nowhere/traces.db"), "there is no store at /nowhere/traces.db"),
        (("--store", "none"), "--store is none"),
        (("--outptu", "x"), "unknown flag --outptu"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """What cannot be understood is named, with the place in the filter where there is one."""
    path = tmp_path / "traces.db"
    write(path, TRACES)
    finished = await run("store", "export", *arguments, environ={"NEATLOGS_PROCESSOR_STORE": str(path)})
    assert (finished.code, finished.stdout) == (2, "")
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 0


def test_a_large_trace_is_several_lines_that_a_receiver_takes(tmp_path: Path) -> None:
    """No line is much larger than it has to be, and together they hold every span once, with resource and scope."""
    path = tmp_path / "traces.db"
    spans = [
        Span(
            trace_id=b"\1" * 16,
            span_id=number.to_bytes(8, "big"),
            attributes=[KeyValue(key="text", value=AnyValue(string_value="x" * 100_000))],
        )
        for number in range(1, 61)
    ]
    put(path, request(*spans[:30]), request(*spans[30:], service="billing"))
    said, lines = exported(path)
    assert (said.traces, said.spans, len(lines)) == (1, 60, 3)
    assert all(len(line) < LINE_BYTES + 200_000 for line in lines)
    found = [one for line in lines for one in canonical(line)]
    assert {Span.FromString(span).span_id for span, _, _ in found} == {span.span_id for span in spans}
    assert [b"billing" in resource for _, resource, _ in sorted(found)].count(True) == 30


def test_traces_come_in_pages_without_gaps(tmp_path: Path) -> None:
    """However many traces there are, each is exported once, in the order of arrival."""
    path = tmp_path / "traces.db"
    write(path, [Stored(number, f"user {number % 3}") for number in range(650)])
    said, lines = exported(path)
    assert said.traces == 650
    assert trace_ids(lines) == [Stored(number).trace_id for number in range(650)]
    some, lines = exported(path, View(period=ALL_TIME, filters=parse("end_user is 'user 1'".replace("'", '"'))))
    assert some.traces == len(lines) == sum(number % 3 == 1 for number in range(650))


def test_an_export_holds_up_no_writer_and_no_log(tmp_path: Path) -> None:
    """Between two lines no moment of the store is held on to: the log can be emptied in the middle of an export."""
    path = tmp_path / "traces.db"
    write(path, [Stored(number) for number in range(5)])
    with contextlib.closing(open_writer(path)) as connection:
        busy: list[int] = []

        def slowly(_: bytes) -> None:
            connection.execute("CREATE TABLE IF NOT EXISTS another (one)")
            busy.append(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

        export(path, EVERYTHING, NOW, slowly)
    assert busy == [0] * 5


async def test_damaged_traces_are_counted_and_all_others_come(tmp_path: Path) -> None:
    """One trace that cannot be read costs no other; the exit code says that something is missing."""
    path = tmp_path / "traces.db"
    write(path, TRACES)
    with contextlib.closing(open_writer(path)) as connection:
        connection.execute("UPDATE blocks SET body = x'00' WHERE id = 2")
    finished = await run("store", "export", "--store", str(path))
    assert finished.code == 1
    assert len(finished.stdout.splitlines()) == 3
    assert "1 traces are missing: the store holds them damaged" in finished.stderr


async def test_lines_that_nest_too_deeply_are_counted(tmp_path: Path) -> None:
    """What protobuf could nest and JSON may not is written all the same, and said."""
    path = tmp_path / "traces.db"
    span = root(trace_id=b"\1" * 16)
    value = span.attributes.add(key="deep").value
    for _ in range(42):
        value = value.array_value.values.add()
    put(path, request(span))
    finished = await run("store", "export", "--store", str(path))
    assert finished.code == 0
    assert "1 lines nest too deeply" in finished.stderr


async def test_a_file_is_complete_and_private(tmp_path: Path) -> None:
    """--output holds all lines, for its user alone, and is not there before it is complete."""
    path, out = tmp_path / "traces.db", tmp_path / "lines.jsonl"
    write(path, TRACES)
    finished = await run("store", "export", "--output", str(out), "--store", str(path))
    assert (finished.code, finished.stdout, finished.stderr) == (0, "", "4 traces with 6 spans exported")
    assert len(out.read_bytes().splitlines()) == 4
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.partial"))
    nowhere = await run("store", "export", "--output", str(tmp_path / "no" / "lines"), "--store", str(path))
    assert nowhere.code == 1
    assert "--output: " in nowhere.stderr
    device = await run("store", "export", "--output", os.devnull, "--store", str(path))
    assert (device.code, device.stderr) == (0, "4 traces with 6 spans exported")


def test_who_reads_only_the_beginning_ends_it_well(tmp_path: Path) -> None:
    """`store export | head -1` is no error."""
    path = tmp_path / "traces.db"
    write(path, [Stored(number, "x" * 1000) for number in range(400)])
    command = [sys.executable, "-m", "neatlogs_processor", "store", "export", "--store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"resourceSpans"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_without_a_path_it_is_the_usual_one(tmp_path: Path) -> None:
    """Without --store it is the store in the user's data directory, as for the processor itself."""
    write(tmp_path / "neatlogs" / "traces.db", TRACES)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NEATLOGS_", "OTEL_"))}
    command = [sys.executable, "-m", "neatlogs_processor", "store", "export"]
    environ = {**clean, "XDG_DATA_HOME": str(tmp_path)}
    finished = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stderr == "4 traces with 6 spans exported\n"
