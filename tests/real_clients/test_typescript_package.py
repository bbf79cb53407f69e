"""Programs that use the TypeScript package under Node, the real processor, and the same page as the Python shim's."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.fake_openai import FakeOpenAI
from support.otlp_sink import OtlpSink, attributes
from support.page import page_under_test
from support.processor_process import processor_process
from support.typescript_package import (
    NodeMissingError,
    built_package,
    clean_environment,
    node_service,
    run_node_program,
)

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

CALLER = Path(__file__).parent / "programs" / "calls_a_service.py"
ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"


@pytest.fixture(autouse=True)
def node() -> None:
    """Node and the built package."""
    try:
        built_package()
    except NodeMissingError as error:
        pytest.skip(str(error))


def identity(span: Span) -> dict[str, object]:
    return {key: value for key, value in attributes(span).items() if key.startswith("neatlogs.end_user")}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_identity_arrives_on_roots_alone(protocol: str) -> None:
    """Concurrent traces, streams and late names of a Node program each reach the backend with their own end user."""
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
        endpoint = processor.endpoint if protocol == "grpc" else processor.http_endpoint
        assert run_node_program("tenants.mjs", endpoint, protocol) == ""
        spans = sink.wait_for_spans(20 * 2 + 5 + 2 * 2)
    roots = [span for span in spans if not span.parent_span_id]
    children = [span for span in spans if span.parent_span_id]
    assert sorted(str(identity(root)[ID]) for root in roots) == sorted(
        [*(f"u_{at}" for at in range(20)), *(f"s_{at}" for at in range(5)), "u_late", "u_identified"]
    )
    assert [identity(child) for child in children if identity(child)] == []
    by_id = {identity(root)[ID]: root for root in roots}
    assert identity(by_id["u_7"]) == {ID: "u_7", METADATA: '{"id":"u_7","plan":"pro"}', SOURCE: "span"}
    assert identity(by_id["u_late"])[SOURCE] == "set_end_user"
    assert attributes(by_id["u_identified"])["neatlogs.session.id"] == "conversation-1"
    search = next(span for span in children if span.name == "search")
    assert attributes(search)["openinference.span.kind"] == "TOOL"
    assert attributes(search)["input.value"] in ("and now?", "who?", "here?")


def call_from_python(endpoint: str, url: str, user: str) -> str:
    """Call a service inside a trace that Python opened for an end user; returns what Python logged."""
    done = subprocess.run(
        [sys.executable, str(CALLER), endpoint, url, user],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def get(url: str) -> Any:
    with urlopen(url, timeout=30) as response:  # noqa: S310  # a service of the test
        return response.read().decode()


def test_concurrent_requests_of_an_instrumented_server() -> None:
    """Under OpenTelemetry's HTTP instrumentation each of many requests at once names its own user on its own root."""
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
        with node_service(processor.endpoint) as url, ThreadPoolExecutor(16) as pool:
            users = [f"u_{at}" for at in range(60)]
            # Every third is named by setEndUser() in a timer, the others by trace().
            urls = [f"{url}/?user={user}" + ("&late" if at % 3 == 0 else "") for at, user in enumerate(users)]
            assert set(pool.map(get, urls)) == {"served"}
        spans = sink.wait_for_spans(60 + 40)
    roots = [span for span in spans if not span.parent_span_id]
    served = {str(attributes(root)["url.query"]).partition("&")[0].removeprefix("user="): root for root in roots}
    assert {user: identity(root)[ID] for user, root in served.items()} == {user: user for user in users}
    assert all(not identity(span) for span in spans if span.parent_span_id)


def test_one_trace_of_python_and_node() -> None:
    """A trace that Python began and Node continued has the end user of its root, whatever the Node part claims."""
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
        with node_service(processor.endpoint) as url:
            call_from_python(processor.endpoint, f"{url}/?user=mallory", "alice")
        spans = {span.name: span for span in sink.wait_for_spans(3)}
    assert len({span.trace_id for span in spans.values()}) == 1
    assert identity(spans["checkout"]) == {ID: "alice", METADATA: '{"via":"python"}', SOURCE: "trace"}
    assert identity(spans["GET"]) == identity(spans["answer"]) == {}
    assert spans["GET"].parent_span_id == spans["checkout"].span_id
    assert spans["answer"].parent_span_id == spans["GET"].span_id


def test_an_entry_span_of_node() -> None:
    """With roots="entry" on both sides, a Node service names the end user of a trace that somebody else began."""
    flags = ("--roots", "entry", "--entry-services", "node-service")
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint, *flags) as processor:
        with node_service(processor.endpoint, "entry") as url:
            call_from_python(processor.endpoint, f"{url}/?user=bob", "forged")
        spans = {span.name: span for span in sink.wait_for_spans(3)}
    assert identity(spans["GET"]) == {ID: "bob", METADATA: '{"via":"node"}', SOURCE: "trace"}
    assert identity(spans["answer"]) == {}


def test_both_languages_meet_on_the_page() -> None:
    """Traces of a Python program and of a Node program stand under one end user on the page."""
    with page_under_test() as page:
        with node_service(page.processor.endpoint) as url:
            assert get(f"{url}/?user=u_812") == "served"
            call_from_python(page.processor.endpoint, f"{url}/", "u_812")
        # A store that stands alone acknowledges after it has committed, and both programs have ended.
        (row,) = json.loads(get(f"{page.url.removesuffix('/traces')}/api/users"))["rows"]
    assert (row["end_user"], row["traces"]) == ("u_812", 2)


def test_the_example() -> None:
    """The example's concurrent requests and its job each have their own end user and session."""
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
        printed = run_node_program(
            "../../examples/support_bot.mjs", variables={"NEATLOGS_ENDPOINT": processor.endpoint}
        )
        spans = sink.wait_for_spans(5 * 2 + 1)
    assert printed.splitlines() == [f" It is on its way: {length}".strip() for length in (18, 16, 16, 23, 9)]
    roots = [(span.name, attributes(span)) for span in spans if not span.parent_span_id]
    assert sorted((name, str(found.get(ID)), str(found.get("neatlogs.session.id"))) for name, found in roots) == [
        ("Model.complete", "u_ada", "None"),
        ("answer", "None", "nobody-1"),
        ("answer", "u_ada", "ada-1"),
        ("answer", "u_ada", "ada-1"),
        ("answer", "u_grace", "grace-1"),
        ("answer", "u_linus", "linus-1"),
    ]
    assert not [span for span in spans if span.parent_span_id and identity(span)]


def test_the_clients_of_models() -> None:
    """Wrapped clients of OpenAI and Anthropic answer as ever, and each call is a trace under its end user."""
    with FakeOpenAI() as model, OtlpSink() as sink:
        with processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
            printed = run_node_program("model_clients.mjs", processor.endpoint, model.url)
        # Anthropic's client opens spans of its own, below ours.
        roots = [span for span in sink.spans if not span.parent_span_id]
    said = "The answer is 42."
    assert printed.splitlines() == [f"200 {said}", *[said] * 5, "true"]
    assert sorted((span.name, str(identity(span)[ID]), span.status.code) for span in roots) == [
        ("Anthropic.messages.create", "anthropic", Status.STATUS_CODE_UNSET),
        ("Anthropic.messages.stream", "anthropic streamed", Status.STATUS_CODE_UNSET),
        ("OpenAI.chat.completions.create", "failed", Status.STATUS_CODE_ERROR),
        ("OpenAI.chat.completions.create", "streamed", Status.STATUS_CODE_UNSET),
        ("OpenAI.chat.completions.create", "whole", Status.STATUS_CODE_UNSET),
        ("OpenAI.chat.completions.create", "with response", Status.STATUS_CODE_UNSET),
        ("inside", "inside", Status.STATUS_CODE_UNSET),
    ]
    assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in roots)
