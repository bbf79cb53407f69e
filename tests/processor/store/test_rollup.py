"""The rollup of a trace equals its recomputation from all distinct spans, however they arrive."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing, Written
from support.store_contents import assert_sound, folder_in_memory, rollups_of, sent_of, spans_of
from support.store_oracle import Sent, is_kept, rollups
from support.store_strategies import ENTRY_SERVICE, attributes, deliveries, request, sent_spans

POLICIES = [EndUserPolicy(), EndUserPolicy("entry", frozenset({ENTRY_SERVICE}))]
NOW = 1_795_000_000 * 10**9
TRACE = b"\x01" * 16


def write(path: Path, transactions: Sequence[Sequence[bytes]], policy: EndUserPolicy = POLICIES[0]) -> Written:
    """Write requests, with two processes' connections in turn; return what became of the spans."""
    total = Written()
    with contextlib.closing(open_writer(path)) as one, contextlib.closing(open_writer(path)) as other:
        writers = [Writing(one), Writing(other)]
        for number, bodies in enumerate(transactions):
            batches = [(read_request(body, policy), ()) for body in bodies]
            written = writers[number % 3 % 2].write(batches, NOW)
            total = Written(total.spans + written.spans, total.duplicates + written.duplicates)
    return total


def sent(number: int, *, resource: dict[str, Any] | None = None, **fields: Any) -> Sent:
    """A span of the one trace of most examples."""
    said = attributes(fields.pop("attributes", {}))
    fields = {"trace_id": TRACE, "start_time_unix_nano": 100 + number, "name": f"span {number}", **fields}
    span = Span(span_id=bytes([number]) * 8, attributes=said, **fields)
    return Sent(span, Resource(attributes=attributes({"service.name": "shop", **(resource or {})})))


def rollup(tmp_path: Path, *arriving: Sent, policy: EndUserPolicy = POLICIES[0]) -> dict[str, Any]:
    """Write spans, each in a transaction of its own, and return the rollup of their trace."""
    path = tmp_path / "traces.db"
    write(path, [[request([one])] for one in arriving], policy)
    assert_sound(path, policy.entry_services)
    return rollups_of(path)[TRACE]


CHILD = {"parent_span_id": b"\x77" * 8}


@settings(max_examples=120)
@given(data=st.data(), sent=sent_spans(), policy=st.sampled_from(POLICIES))
def test_rollups_equal_the_recomputation(data: st.DataObject, sent: list[Sent], policy: EndUserPolicy) -> None:
    """Whatever the order, the requests, the transactions, the writers and the repetitions, each span counts once."""
    transactions = data.draw(deliveries(sent))
    with folder_in_memory() as folder:
        path = folder / "traces.db"
        written = write(path, transactions, policy)
        kept = [one for one in sent if one.place in spans_of(path)]
        assert rollups_of(path) == rollups(sent, policy.entry_services)
        assert written.spans == len(kept)
        assert_sound(path, policy.entry_services)


@settings(max_examples=60)
@given(data=st.data(), sent=sent_spans())
def test_spans_come_back_as_they_were_sent(data: st.DataObject, sent: list[Sent]) -> None:
    """Each span can be read back byte for byte with its own resource, once."""
    transactions = data.draw(deliveries(sent))
    with folder_in_memory() as folder:
        path = folder / "traces.db"
        write(path, transactions)
        back = Counter((one.span.SerializeToString(), one.resource.SerializeToString()) for one in sent_of(path))
    assert back == Counter(
        (one.span.SerializeToString(), one.resource.SerializeToString()) for one in sent if is_kept(one.span)
    )


def test_children_first_then_the_root(tmp_path: Path) -> None:
    """Until a root arrives the earliest span stands in; then the root names the trace and its end user."""
    child = sent(2, **CHILD, attributes={"neatlogs.end_user.id": "forged"})
    root = sent(1, name="chat", attributes={"neatlogs.end_user.id": "alice"})
    waiting = rollup(tmp_path, child)
    assert (waiting["head_rank"], waiting["roots"], waiting["name"], waiting["end_user"]) == (2, 0, None, None)
    complete = rollup(tmp_path, root)
    assert (complete["head_rank"], complete["roots"], complete["name"], complete["end_user"]) == (1, 1, "chat", "alice")
    assert complete["spans"] == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_earliest_root_wins(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Of several roots the earliest start speaks, then the smaller span id; how many there are is kept."""
    roots = [
        sent(9, start_time_unix_nano=5, attributes={"neatlogs.end_user.id": "later id"}),
        sent(3, start_time_unix_nano=5, attributes={"neatlogs.end_user.id": "alice"}),
        sent(1, start_time_unix_nano=6, attributes={"neatlogs.end_user.id": "mallory"}),
    ]
    found = rollup(tmp_path, *(roots[index] for index in order))
    assert (found["end_user"], found["roots"], found["head_span_id"]) == ("alice", 3, b"\x03" * 8)


def test_a_root_that_states_no_start_comes_last(tmp_path: Path) -> None:
    """A start of zero means that the sender did not say, not that the span is the earliest of all."""
    found = rollup(tmp_path, sent(1, start_time_unix_nano=0, name="unknown"), sent(2, name="known"))
    assert (found["name"], found["start"]) == ("known", 102)


@pytest.mark.parametrize("entry_first", [True, False])
def test_an_entry_span_outranks_a_root(tmp_path: Path, entry_first: bool) -> None:
    """With entry services a root from elsewhere, even an earlier one, does not decide who the end user is."""
    entry = sent(
        5,
        parent_span_id=b"\x01" * 8,
        flags=0x300,
        name="POST /chat",
        attributes={"neatlogs.end_user.id": "alice"},
        resource={"service.name": ENTRY_SERVICE},
    )
    forged = sent(1, start_time_unix_nano=1, attributes={"neatlogs.end_user.id": "mallory"})
    arriving = (entry, forged) if entry_first else (forged, entry)
    found = rollup(tmp_path, *arriving, policy=POLICIES[1])
    assert (found["end_user"], found["head_rank"], found["roots"]) == ("alice", 0, 1)


@pytest.mark.parametrize("name", ["service.name", "neatlogs.workflow_name", "session.id"])
def test_a_resource_that_says_a_number_is_kept(tmp_path: Path, name: str) -> None:
    """`service.name=7` in some configuration language is a number on the wire; it is read as the text that it was."""
    found = rollup(tmp_path, sent(1, resource={name: 7}))
    column = {"service.name": "service", "neatlogs.workflow_name": "workflow", "session.id": "session"}[name]
    assert found[column] == "7"


def test_completion_markers_are_not_spans(tmp_path: Path) -> None:
    """A completion marker is neither kept nor counted, and alone makes no trace; a root may have that name."""
    path = tmp_path / "traces.db"
    marker = sent(8, **CHILD, name="neatlogs.trace.complete", status=Status(code=2))
    write(path, [[request([marker])]])
    assert rollups_of(path) == {}
    found = rollup(tmp_path, sent(1), marker)
    assert (found["spans"], found["errors"]) == (1, 0)
    assert rollup(tmp_path, sent(2, name="neatlogs.trace.complete"))["spans"] == 2


@pytest.mark.parametrize(
    ("own", "shared", "session"),
    [
        ({"neatlogs.session.id": "new", "session.id": "old"}, {"session.id": "shared"}, "new"),
        ({"session.id": "old"}, {"session.id": "shared"}, "old"),
        ({}, {"session.id": "shared"}, "shared"),
        ({"neatlogs.session.id": ""}, {"session.id": "shared"}, "shared"),
        ({}, {}, None),
    ],
)
def test_where_a_session_comes_from(tmp_path: Path, own: dict[str, Any], shared: dict[str, Any], session: str) -> None:
    """The root's `neatlogs.session.id`, else its `session.id`, else that of its resource."""
    assert rollup(tmp_path, sent(1, attributes=own, resource=shared))["session"] == session


def test_where_a_workflow_comes_from(tmp_path: Path) -> None:
    """The workflow that the resource names, else the root's name; of a trace without a root only the former."""
    named = {"neatlogs.workflow_name": "support"}
    (tmp_path / "named").mkdir()
    (tmp_path / "waiting").mkdir()
    assert rollup(tmp_path / "named", sent(1, name="chat", resource=named))["workflow"] == "support"
    assert rollup(tmp_path, sent(1, name="chat"))["workflow"] == "chat"
    assert rollup(tmp_path / "waiting", sent(1, **CHILD, name="step"))["workflow"] is None


def test_usage_is_counted_where_it_arises(tmp_path: Path) -> None:
    """An agent repeats the usage of its model calls; only theirs counts, and a total that is missing is their sum."""
    call = {"openinference.span.kind": "LLM", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    agent = {**call, "openinference.span.kind": "AGENT"}
    reports = {**call, "llm.token_count.total": 20}
    found = rollup(
        tmp_path,
        sent(1, attributes=agent),
        sent(2, **CHILD, attributes=call),
        sent(3, **CHILD, attributes=reports),
        sent(4, **CHILD, attributes={**call, "openinference.span.kind": None, "gen_ai.operation.name": "invoke_agent"}),
    )
    assert (found["tokens_input"], found["tokens_output"], found["tokens"]) == (20, 10, 35)


def test_sums_stop_at_what_sqlite_holds(tmp_path: Path) -> None:
    """Absurd numbers stay numbers: times and sums end at 2^63 - 1 instead of failing or turning negative."""
    most = 2**63 - 1
    used = {"openinference.span.kind": "LLM", "llm.token_count.total": most}
    found = rollup(
        tmp_path,
        *(
            sent(number, attributes=used, start_time_unix_nano=2**64 - 1, end_time_unix_nano=2**64 - 1)
            for number in (1, 2)
        ),
    )
    assert (found["tokens"], found["start"], found["end"], found["duration"]) == (most, most, most, 0)


def test_of_two_spans_with_the_same_ids_the_first_stays(tmp_path: Path) -> None:
    """A span is written once: what arrives later under its ids is a repetition, even where it says something else."""
    first, second = sent(1, name="first"), sent(1, name="second", status=Status(code=2))
    found = rollup(tmp_path, first, second)
    assert (found["name"], found["spans"], found["errors"]) == ("first", 1, 0)


def test_spans_without_ids_are_told_apart(tmp_path: Path) -> None:
    """A span without a trace id or a span id cannot be kept: it is counted, and costs the others nothing."""
    body = request(
        [sent(1), sent(2, trace_id=bytes(16)), sent(3, trace_id=b""), Sent(Span(trace_id=TRACE), Resource())]
    )
    batch = read_request(body, POLICIES[0])
    assert batch.without_id == 3
    assert [len(spans) for spans in batch.traces.values()] == [1]
