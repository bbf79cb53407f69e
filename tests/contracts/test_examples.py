"""Every example does what its docstring says, against a real processor."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.otlp_sink import OtlpSink, attributes
from support.processor_process import processor_process

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if not path.name.startswith("_"))

ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"
SESSION = "neatlogs.session.id"


def _standard(endpoint: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}


def _host_and_port(endpoint: str) -> dict[str, str]:
    return {"NEATLOGS_ENDPOINT": endpoint.removeprefix("http://")}


class Outcome:
    """What an example printed, and what left the processor for it."""

    def __init__(self, name: str, *arguments: str, address: Callable[[str], dict[str, str]] = _standard) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "NEATLOGS_"))}
        with OtlpSink() as upstream:
            with processor_process("--upstream-endpoint", upstream.grpc_endpoint) as processor:
                done = subprocess.run(
                    [sys.executable, EXAMPLES / name, *arguments],
                    env=clean | address(processor.endpoint),
                    capture_output=True,
                    text=True,
                    timeout=110,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
            self.placed = upstream.spans_with_resources
        self.printed, self.warned, self.log = done.stdout, done.stderr, processor.log
        self.spans = [span for _, span in self.placed]
        self.roots = [span for span in self.spans if not any(span.parent_span_id)]

    def users(self) -> Counter[tuple[str, object]]:
        """How many roots there are of each name and end user."""
        return Counter((root.name, attributes(root).get(ID)) for root in self.roots)

    def children(self, root: Span) -> list[Span]:
        return [span for span in self.spans if span.trace_id == root.trace_id and span is not root]

    def demand_the_rule(self, *, without_root: int = 0) -> None:
        """Every trace but so many has one root, and nothing but roots has an end user."""
        assert len({root.trace_id for root in self.roots}) == len(self.roots)
        assert len(self.roots) + without_root == len({span.trace_id for span in self.spans})
        for span in self.spans:
            if any(span.parent_span_id):
                assert not [key for key in attributes(span) if key.startswith("neatlogs.end_user")]


def test_the_decorated_workflow_names_each_ticket_s_user() -> None:
    """Three tickets make three traces, each with its own end user; the tool's claim has no effect and warns."""
    outcome = Outcome("decorated_workflow.py")
    outcome.demand_the_rule()
    assert outcome.users() == {("answer", "u_ada"): 1, ("answer", "u_grace"): 1, ("answer", "u_linus"): 1}
    assert {len(outcome.children(root)) for root in outcome.roots} == {2}
    assert {attributes(root)[METADATA] for root in outcome.roots} == {'{"plan":"pro"}', '{"plan":"free"}'}
    assert "draft" in outcome.warned


def test_the_single_user_program_names_its_user_once() -> None:
    """Both traces are the person's, in one session; the operator stays on the resource."""
    outcome = Outcome("single_user_cli.py", "--as", "u_7")
    outcome.demand_the_rule()
    assert outcome.users() == {("summarise", "u_7"): 2}
    assert len({attributes(root)[SESSION] for root in outcome.roots}) == 1
    assert {attributes(root)[SOURCE] for root in outcome.roots} == {"init"}
    for resource, _ in outcome.placed:
        assert attributes(resource)["neatlogs.workflow_name"] == "notes-cli"
        assert attributes(resource).get("user.id") == os.environ.get("USER")


def test_the_chat_keeps_sessions_apart() -> None:
    """Two chats that take turns in one process make two sessions, each with one end user."""
    outcome = Outcome("chat_session.py")
    outcome.demand_the_rule()
    assert outcome.users() == {("turn", "u_ada"): 3, ("turn", "u_grace"): 2}
    sessions = {(attributes(root)[ID], attributes(root)[SESSION]) for root in outcome.roots}
    assert len(sessions) == 2
    assert len({session for _, session in sessions}) == 2


def test_the_existing_setup_keeps_its_own_provider() -> None:
    """The application's own tracers, exporter and resource stay; two of its three roots name an end user."""
    outcome = Outcome("existing_opentelemetry.py")
    outcome.demand_the_rule()
    assert outcome.users() == {("nightly report", "u_batch"): 1, ("login", "u_late"): 1, ("health check", None): 1}
    assert {attributes(resource)["service.name"] for resource, _ in outcome.placed} == {"existing-service"}


def test_two_services_make_one_trace_with_one_end_user() -> None:
    """The second service's claim never leaves the processor, which says whose it was but not what it claimed."""
    outcome = Outcome("distributed_two_services.py")
    outcome.demand_the_rule()
    assert outcome.users() == {("checkout", "u_ada"): 1, ("checkout", "u_grace"): 1}
    assert {tuple(sorted(span.name for span in outcome.children(root))) for root in outcome.roots} == {
        ("GET /reserve", "reserve")
    }
    assert "reserve" in outcome.log
    assert "u_whoever" not in outcome.log


def test_the_server_keeps_concurrent_users_apart() -> None:
    """Twelve requests at the same time make twelve traces whose roots, FastAPI's own, name the request's user."""
    outcome = Outcome("fastapi_multi_tenant.py")
    outcome.demand_the_rule()
    assert outcome.users() == {("POST /chat", f"u_{number}"): 2 for number in range(6)}
    assert "12 of 12" in outcome.printed


def test_the_wrapped_client_has_a_root_for_each_call() -> None:
    """A whole answer and a streamed one are a trace each, with the instrumentation's span below the root."""
    outcome = Outcome("wrap_openai.py")
    outcome.demand_the_rule()
    assert sorted(str(attributes(root).get(ID)) for root in outcome.roots) == ["u_ada", "u_grace"]
    for root in outcome.roots:
        (call,) = outcome.children(root)
        assert attributes(call)["openinference.span.kind"] == "LLM"


def test_the_believable_day_has_what_the_page_can_show() -> None:
    """A day has many users, sessions, one of them shared, errors, forgotten users, one override and one lost root."""
    outcome = Outcome("believable_day.py")
    outcome.demand_the_rule(without_root=1)
    users = {attributes(root).get(ID) for root in outcome.roots}
    assert len(users) > 8
    assert None in users
    sessions: dict[object, set[object]] = {}
    for root in outcome.roots:
        sessions.setdefault(attributes(root).get(SESSION), set()).add(attributes(root).get(ID))
    assert len(sessions) > 20
    assert sessions["kiosk-lobby-2"] == {"chen.wei", "ines.duarte"}
    assert [span for span in outcome.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert "lookup_invoice" in outcome.log
    assert "service-account" not in outcome.log
    assert {attributes(root)[SOURCE] for root in outcome.roots if ID in attributes(root)} == {
        "trace",
        "identify",
        "span",
    }


@pytest.mark.parametrize("hour", [400_000, 400_011])
@pytest.mark.parametrize("minute", [1, 59])
def test_a_day_sent_twice_adds_nothing(hour: int, minute: int) -> None:
    """Within an hour the day has the same spans in the same traces, none of which begins after it is sent."""
    path = EXAMPLES / "believable_day.py"
    spec = importlib.util.spec_from_file_location("believable_day", path)
    assert spec
    assert spec.loader
    day = importlib.util.module_from_spec(spec)
    sys.modules["believable_day"] = day
    spec.loader.exec_module(day)
    days = []
    for now in (hour * 3600 + 30 * 60, hour * 3600 + minute * 60):
        exporter = InMemorySpanExporter()
        day.Day(lambda kept=exporter: kept, now=now * 10**9).write()
        spans = exporter.get_finished_spans()
        assert max(span.end_time or 0 for span in spans) <= now * 10**9
        days.append({(span.context.trace_id, span.context.span_id, span.name) for span in spans})
    assert days[0] == days[1]


def test_the_demo_runs_every_example() -> None:
    """`make demo` runs all of them against one processor, wherever the shim would send, and ends well."""
    outcome = Outcome("demo.py", address=_host_and_port)
    outcome.demand_the_rule(without_root=1)
    day = re.search(r"^(\d+) traces of", outcome.printed, re.MULTILINE)
    assert day
    assert len(outcome.roots) == int(day[1]) + 2 + 3 + 5 + 12 + 3 + 2 + 2
    others = {path.name for path in PROGRAMS} - {"demo.py"}
    assert set(re.findall(r"^== (\S+)$", outcome.printed, re.MULTILINE)) == others


def test_the_demo_says_that_no_processor_is_running() -> None:
    """Without a processor the demo ends at once and says which command starts one."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        # Port 1 is privileged and nobody's: a connection is refused.
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "make run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_example_says_how_to_run_it_and_is_listed(path: Path) -> None:
    """An example's docstring names `make run` and the command that starts it; the list of examples names the file."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert "make run" in text
    assert "make demo" in text or f"python examples/{path.name}" in text
    assert path.name in (EXAMPLES / "README.md").read_text(encoding="utf-8") or path.name == "demo.py"
