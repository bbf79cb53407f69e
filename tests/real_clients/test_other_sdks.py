"""Traces of other tracing SDKs, as these put them on the wire, get the end user that the SDK was told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.otlp_sink import OtlpSink, attributes
from support.peer_environments import TRACING_SDKS, PeerUnavailableError
from support.processor_process import processor_process

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

PROGRAMS = Path(__file__).parent / "programs"
ID, METADATA, SOURCE, SESSION = (
    "neatlogs.end_user.id",
    "neatlogs.end_user.metadata",
    "neatlogs.end_user.source",
    "neatlogs.session.id",
)


def traced(sdk: str, *flags: str) -> dict[str, dict[str, Any]]:
    """The attributes of every span of an SDK's program behind the processor, by the span's name."""
    try:
        python = TRACING_SDKS.python()
    except PeerUnavailableError as error:
        pytest.skip(str(error))
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with OtlpSink() as sink:
        with processor_process("--upstream-endpoint", sink.grpc_endpoint, *flags) as processor:
            done = subprocess.run(
                [python, PROGRAMS / f"{sdk}_sdk.py", processor.http_endpoint],
                env=environment | {"OTEL_SERVICE_NAME": "shop", "LANGFUSE_TRACING_ENVIRONMENT": "test"},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        bodies = [received.body for received in sink.requests]
    spans = [
        span
        for request in bodies
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    return {span.name.partition(".")[0]: attributes(span) for span in spans}


def identity(plain: dict[str, Any]) -> dict[str, Any]:
    """What of a span says who was served."""
    return {key: plain[key] for key in (ID, METADATA, SOURCE, SESSION) if key in plain}


@pytest.mark.parametrize(
    ("sdk", "source", "metadata"),
    [
        ("langfuse", "user.id", '{"company":{"size":40},"plan":"pro","seats":"3"}'),
        ("openinference", "user.id", '{"plan": "pro", "seats": 3, "company": {"size": 40}}'),
        ("traceloop", "traceloop.association.properties.user_id", '{"plan":"pro","seats":3}'),
        ("logfire", "user_id", None),
    ],
)
def test_each_sdk_names_the_end_user_of_its_trace(sdk: str, source: str, metadata: str | None) -> None:
    """Its preset makes the user, session and metadata that it was told the root's, and takes them from children."""
    spans = traced(sdk, "--accept-from", sdk, "--accept-strip")
    expected = {ID: "u_812", SOURCE: source, SESSION: "s_1"} | ({METADATA: metadata} if metadata else {})
    assert identity(spans["chat"]) == expected
    assert spans["chat"][source] == "u_812"
    assert identity(spans["llm"]) == {}
    assert not any(value == "u_812" for value in spans["llm"].values())
    # Of Logfire's second trace nothing is left that tells its user from others.
    if "scrubbed" in spans:
        assert spans["scrubbed"]["user_id"] == "[Scrubbed due to 'auth']"
        assert identity(spans["scrubbed"]) == {}


def test_an_sdk_s_children_keep_its_keys_unless_they_are_stripped() -> None:
    """Accepting alone takes nothing from an SDK's own backend, which may want its keys on every span."""
    spans = traced("langfuse", "--accept-from", "langfuse")
    assert spans["chat"][ID] == spans["llm"]["user.id"] == "u_812"
    assert identity(spans["llm"]) == {}
