"""Traces of the published neatlogs packages, as they put them on the wire, go through the real processor.

The packages speak OTLP/HTTP: what they send is recorded and then sent to the processor over OTLP/gRPC.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.oracle import oracle_enforce
from support.otlp_sink import OtlpSink, attributes
from support.peer_environments import NEATLOGS_1_4_0, NEATLOGS_1_4_27, Peer, PeerUnavailableError
from support.processor_process import processor_process
from support.recording_http import RecordedRequest, recording_http_server

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

PROGRAMS = Path(__file__).parent / "programs"
ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"
NAMESPACE = "neatlogs.end_user"


@dataclass(frozen=True)
class Conversation:
    """What a program sent, and what left the processor for it."""

    requests: list[RecordedRequest]
    sent: list[ExportTraceServiceRequest]
    arrived: list[ExportTraceServiceRequest]


@dataclass(frozen=True)
class Row:
    """One span with everything around it that the rule may touch."""

    name: str
    trace_id: bytes
    is_root: bool
    attributes: dict[str, object]
    resource: dict[str, object]


def rows(requests: list[ExportTraceServiceRequest]) -> dict[bytes, Row]:
    """The spans of requests by span id."""
    return {
        span.span_id: Row(
            span.name, span.trace_id, not any(span.parent_span_id), attributes(span), attributes(group.resource)
        )
        for request in requests
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    }


def without_identity(plain: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in plain.items() if not key.startswith(NAMESPACE)}


def identity(plain: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in plain.items() if key.startswith(NAMESPACE)}


@pytest.fixture(scope="module")
def converse() -> Callable[[Peer], Conversation]:
    """Run a package's program once and pass what it sends through the processor; the answer is kept."""
    kept: dict[str, Conversation] = {}

    def run(peer: Peer) -> Conversation:
        if peer.name not in kept:
            kept[peer.name] = _converse(peer)
        return kept[peer.name]

    return run


def _converse(peer: Peer) -> Conversation:
    try:
        python = peer.python()
    except PeerUnavailableError as error:
        pytest.skip(str(error))
    program = PROGRAMS / (peer.name.replace("-", "_").replace(".", "_") + ".py")
    # A clean environment: nothing of the tester's own telemetry settings, and no proxy on the way to the recorder.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with recording_http_server() as recorder:
        done = subprocess.run(
            [python, program, recorder.url], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        bodies = recorder.bodies("/v1/traces")
        requests = list(recorder.requests)
    with OtlpSink() as sink:
        with processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
            for body in bodies:
                processor.export(body)
        arrived = [received.body for received in sink.requests]
    return Conversation(requests, [ExportTraceServiceRequest.FromString(body) for body in bodies], arrived)


@pytest.mark.parametrize("peer", [NEATLOGS_1_4_0, NEATLOGS_1_4_27], ids=lambda peer: peer.name)
class TestEveryVersion:
    """What holds for every published version."""

    def test_every_request_is_forwarded_once(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """What a published package sends goes on request by request, no span lost and none twice."""
        conversation = converse(peer)
        assert conversation.sent
        assert [len(rows([request])) for request in conversation.sent] == [
            len(rows([request])) for request in conversation.arrived
        ]

    def test_what_arrives_is_what_the_oracle_says(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """Each request arrives equal, span by span, to the same request decoded, edited and encoded the plain way."""
        conversation = converse(peer)
        expected = [oracle_enforce(request.SerializeToString())[0] for request in conversation.sent]
        assert conversation.arrived == [ExportTraceServiceRequest.FromString(body) for body in expected]

    def test_only_roots_carry_identity(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """Below the root nothing carries identity, although the program writes the keys on child spans by hand."""
        conversation = converse(peer)
        sent, arrived = rows(conversation.sent), rows(conversation.arrived)
        assert any(identity(row.attributes) for row in sent.values() if not row.is_root)
        assert not any(identity(row.attributes) for row in arrived.values() if not row.is_root)
        assert not any(identity(row.resource) for row in arrived.values())

    def test_nothing_else_changes(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """Every other attribute of every span and resource arrives as it was sent, the operator's `user.id` too."""
        conversation = converse(peer)
        sent, arrived = rows(conversation.sent), rows(conversation.arrived)
        assert arrived.keys() == sent.keys()
        for span_id, before in sent.items():
            after = arrived[span_id]
            assert (after.name, after.trace_id, after.is_root) == (before.name, before.trace_id, before.is_root)
            assert without_identity(after.attributes) == without_identity(before.attributes)
            assert without_identity(after.resource) == without_identity(before.resource)
            assert after.resource["user.id"] == "operator-7"

    def test_a_quoted_key_is_data(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """A prompt that quotes the key keeps its text."""
        arrived = rows(converse(peer).arrived)
        quoting = [value for row in arrived.values() for value in row.attributes.values() if f"{ID} is" in str(value)]
        assert quoting

    def test_completion_markers_stay_children(self, peer: Peer, converse: Callable[[Peer], Conversation]) -> None:
        """The packages' completion markers arrive as children of the root and carry no identity."""
        arrived = rows(converse(peer).arrived)
        markers = [row for row in arrived.values() if row.name == "neatlogs.trace.complete"]
        assert len(markers) == len({row.trace_id for row in arrived.values()})
        assert not any(row.is_root or identity(row.attributes) for row in markers)


def roots_of(conversation: Conversation) -> list[Row]:
    return [row for row in rows(conversation.arrived).values() if row.is_root]


def test_the_init_default_of_1_4_0_moves_to_roots_without_a_user(converse: Callable[[Peer], Conversation]) -> None:
    """The resource's end user lands on the root that has none, with its metadata and `source` = `resource`."""
    (root,) = [row for row in roots_of(converse(NEATLOGS_1_4_0)) if row.name == "defaulted"]
    assert identity(root.attributes) == {
        ID: "u_default",
        METADATA: '{"plan": "free", "seats": 3}',
        SOURCE: "resource",
    }


def test_a_user_of_1_4_0_for_one_trace_beats_the_init_default(converse: Callable[[Peer], Conversation]) -> None:
    """Roots with an end user of their own keep it, byte for byte, and never meet the default's metadata."""
    named = {row.name: identity(row.attributes) for row in roots_of(converse(NEATLOGS_1_4_0))}
    assert named["decorated"] == {ID: "u_decorated", METADATA: '{"plan": "pro"}'}
    assert named["managed"] == {ID: "u_managed"}


def test_sessions_of_1_4_0_stay_on_the_resource(converse: Callable[[Peer], Conversation]) -> None:
    """A session that stands on the resource is no identity: it stays where it was."""
    assert {row.resource["session.id"] for row in roots_of(converse(NEATLOGS_1_4_0))} == {"session-1"}


def test_every_way_to_name_a_user_in_1_4_27_reaches_its_root(converse: Callable[[Peer], Conversation]) -> None:
    """`@span`, `trace()` and `identify()` of the newest package put one end user on each root; anonymous stays so."""
    found = sorted((row.name, str(identity(row.attributes))) for row in roots_of(converse(NEATLOGS_1_4_27)))
    assert found == sorted(
        [
            ("anonymous", str({})),
            ("decorated", str({ID: "u_decorated", METADATA: '{"plan":"pro"}'})),
            ("managed", str({ID: "u_managed"})),
            ("anonymous", str({ID: "u_identified", METADATA: '{"plan":"team"}'})),
        ]
    )


def test_sessions_of_1_4_27_stay_on_the_root(converse: Callable[[Peer], Conversation]) -> None:
    """The newest package puts the session on the root; it passes untouched."""
    sessions = {row.attributes.get("neatlogs.session.id") for row in roots_of(converse(NEATLOGS_1_4_27))}
    assert sessions == {None, "session-1", "session-2"}


def test_the_newest_package_compresses(converse: Callable[[Peer], Conversation]) -> None:
    """The requests of 1.4.27 come gzip-compressed, the ones of 1.4.0 plain: both are what the recorder undid."""
    encodings = {
        peer.name: {request.headers.get("content-encoding") for request in converse(peer).requests}
        for peer in (NEATLOGS_1_4_0, NEATLOGS_1_4_27)
    }
    assert encodings == {"neatlogs-1.4.0": {None}, "neatlogs-1.4.27": {"gzip"}}
