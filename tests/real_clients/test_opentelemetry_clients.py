"""Real OpenTelemetry clients speak to the real processor over OTLP/gRPC; what leaves it is what the oracle says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.fake_openai import FakeOpenAI
from support.oracle import oracle_enforce
from support.otlp_sink import OtlpSink, attributes
from support.peer_environments import GENAI_INSTRUMENTATION, PeerUnavailableError
from support.processor_process import processor_process

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

PROGRAMS = Path(__file__).parent / "programs"
REPOSITORY = Path(__file__).resolve().parents[2]
ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"


NAMESPACE = "neatlogs.end_user"

Placed = dict[bytes, tuple[Resource, InstrumentationScope, Span]]


class Passage:
    """One run of a program that sends every span twice: to the processor, and to a witness that changes nothing.

    Batches may be cut differently on the two ways, so spans are compared one by one, each with its resource and scope.
    """

    def __init__(
        self,
        program: str,
        *arguments: str,
        python: Path = Path(sys.executable),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        # Nothing of the tester's own telemetry settings reaches the program.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "NEATLOGS_", "OPENAI_"))
        }
        with OtlpSink() as witness, OtlpSink() as upstream:
            with processor_process("--upstream-endpoint", upstream.grpc_endpoint) as processor:
                done = subprocess.run(
                    [python, PROGRAMS / program, *arguments, witness.grpc_endpoint],
                    # Small batches: a trace is cut into several requests, as a busy service's are.
                    env=environment
                    | {"OTEL_EXPORTER_OTLP_ENDPOINT": processor.endpoint, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16"}
                    | dict(variables or {}),
                    capture_output=True,
                    text=True,
                    timeout=100,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
            self.sent = _placed(received.body for received in witness.requests)
            self.arrived = _placed(received.body for received in upstream.requests)
            self.expected = _placed(
                ExportTraceServiceRequest.FromString(oracle_enforce(received.body.SerializeToString())[0])
                for received in witness.requests
            )
        self.spans = [span for _, _, span in self.arrived.values()]
        self.children = [span for span in self.spans if any(span.parent_span_id)]

    def roots(self, name: str) -> list[Span]:
        """The root spans of this name, as they arrived."""
        return [span for span in self.spans if span.name == name and not any(span.parent_span_id)]


def _placed(requests: Iterable[ExportTraceServiceRequest]) -> Placed:
    return {
        span.span_id: (group.resource, scope.scope, span)
        for request in requests
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    }


def identity(carrier: Span | Span.Event | Span.Link | Resource | InstrumentationScope) -> dict[str, object]:
    return {key: value for key, value in attributes(carrier).items() if key.startswith(NAMESPACE)}


# "none" is written by saying nothing: the Python exporter refuses the word.
@pytest.fixture(scope="module", params=[{}, {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}], ids=["uncompressed", "gzip"])
def sdk(request: pytest.FixtureRequest) -> Passage:
    """The plain SDK's program, once uncompressed and once with gzip."""
    return Passage("opentelemetry_sdk.py", variables=request.param)


class TestPlainSdk:
    """opentelemetry-sdk with its OTLP/gRPC exporter, plain and gzip."""

    def test_every_span_arrives_as_the_oracle_says(self, sdk: Passage) -> None:
        """Span by span, what leaves the processor equals what the SDK sent, decoded, edited and encoded."""
        assert len(sdk.arrived) == 40 * 3 + 3
        assert sdk.arrived == sdk.expected

    def test_no_override_is_left(self, sdk: Passage) -> None:
        """No child, event, link or scope carries identity any more, though each did when it was sent."""
        assert any(identity(span) for _, _, span in sdk.sent.values() if any(span.parent_span_id))
        for _, scope, span in sdk.arrived.values():
            assert not identity(scope)
            assert not any(identity(inner) for inner in (*span.events, *span.links))
        assert not any(identity(span) for span in sdk.children)

    def test_every_root_keeps_its_own_user(self, sdk: Passage) -> None:
        """Each of forty roots leaves with the end user that it came with, or with none."""
        for number in range(40):
            (root,) = sdk.roots(f"checkout {number}")
            expected = {ID: f"u_{number}", METADATA: '{"plan":"pro"}'} if number % 4 else {}
            assert identity(root) == expected

    def test_an_entry_span_is_a_child(self, sdk: Passage) -> None:
        """A span whose parent is remote does not own identity: its claim is removed."""
        (entry,) = [span for span in sdk.spans if span.name == "entry"]
        assert identity(entry) == {}

    def test_ids_of_other_types(self, sdk: Passage) -> None:
        """An int on a root becomes its decimal string; a list is no identity and is removed."""
        assert [identity(span) for span in sdk.roots("int id")] == [{ID: "42"}]
        assert [identity(span) for span in sdk.roots("list id")] == [{}]


@pytest.fixture(scope="module", params=["openinference", "genai", "openai-v2"])
def model_calls(request: pytest.FixtureRequest) -> Passage:
    """A program whose OpenAI calls are traced by OpenInference, then by two generations of OpenTelemetry's own."""
    python: str | Path = sys.executable
    variables: dict[str, str] = {}
    if request.param == "openai-v2":
        try:
            python = GENAI_INSTRUMENTATION.python()
        except PeerUnavailableError as error:
            pytest.skip(str(error))
        # The shim comes from the sources: with it, that environment also shows that it works beside wrapt 1.
        variables["PYTHONPATH"] = str(REPOSITORY)
    with FakeOpenAI() as model:
        return Passage("instrumented_openai.py", request.param, model.openai_url, python=python, variables=variables)


class TestInstrumentedModelCalls:
    """OpenAI's client under two instrumentations that know nothing of end users."""

    def test_every_span_arrives_as_the_oracle_says(self, model_calls: Passage) -> None:
        """Span by span, what leaves the processor equals what was sent, decoded, edited and encoded."""
        assert len(model_calls.arrived) == 5
        assert model_calls.arrived == model_calls.expected

    def test_a_model_call_that_is_a_root_has_the_user(self, model_calls: Passage) -> None:
        """`identify()` names the end user of a root that an instrumentation opens; outside of it the root has none."""
        calls = [span for span in model_calls.spans if not any(span.parent_span_id) and span.name != "request"]
        assert sorted(str(identity(span).get(ID)) for span in calls) == ["None", "u_identified"]
        (identified,) = [span for span in calls if identity(span)]
        assert identity(identified) == {ID: "u_identified", METADATA: '{"plan":"pro"}', SOURCE: "identify"}

    def test_a_model_call_below_a_root_has_none(self, model_calls: Passage) -> None:
        """The streamed call and the tool below `request` leave without identity; the root has the user."""
        assert len(model_calls.children) == 2
        assert not any(identity(span) for span in model_calls.children)
        (request,) = model_calls.roots("request")
        assert identity(request) == {ID: "u_request", SOURCE: "identify"}
