"""The recipes of docs/recipes.md that take another SDK or a backend, run as they stand there. `make interop` does it.

Another SDK runs in an environment of its own under `.peers/`, made on first use; a backend is asked by its own API.
Where a backend cannot be had, an OTLP receiver stands in its place, and the line says so.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
from backends import KINDS, NotStartedError, Phoenix
from jaeger import JAEGER, running_jaeger

from support.collector_process import COLLECTOR, collector_process
from support.otlp_sink import OtlpSink, attributes
from support.page import page_under_test
from support.peer_environments import TRACING_SDKS, Peer, PeerUnavailableError
from support.processor_process import processor_process
from support.recipes import REQUEST_TO_DJANGO, REQUEST_TO_FASTAPI, commands, program, run_recipe, yaml_of

LANGCHAIN_AND_LANGFUSE = Peer("langfuse-5.0.4", "langfuse==5.0.4", ("langfuse==5.0.4", "langchain-core==1.7.2"))
ID = "neatlogs.end_user.id"

_ARRIVAL_SECONDS = 60.0


class NotHeldError(Exception):
    """What arrived is not what has to arrive."""


class NotRunError(Exception):
    """What the recipe needs is not here."""


def fastapi_and_phoenix(directory: Path) -> str:
    """Phoenix finds the trace by the key under which it shows users."""
    (flags,) = commands("FastAPI and Phoenix")
    kind = KINDS[0]
    with kind.run(kind.python(kind.version)) as backend:
        assert isinstance(backend, Phoenix)
        with processor_process(*flags, "--upstream-endpoint", backend.upstreams["grpc"]) as processor:
            _run(directory, *program(REQUEST_TO_FASTAPI), OTEL_EXPORTER_OTLP_ENDPOINT=processor.endpoint)
        question = {"attribute": "user.id:u_812"}

        def found() -> list[Any]:
            answer = backend.client.get("/v1/projects/default/spans", params=question)
            return list(answer.raise_for_status().json()["data"]) if answer.is_success else []

        (span,) = _waited_for(found)
        _demand(span["name"] == "GET /chat" and span["parent_id"] is None, span)
        return f"Phoenix {backend.version()} finds GET /chat by user.id:u_812"


def django_a_collector_and_jaeger(directory: Path) -> str:
    """Jaeger finds the trace by the tag that the recipe names, behind a Collector."""
    if not COLLECTOR.exists():
        raise NotRunError("the Collector is not built: make bench-collector")
    if not JAEGER.exists():
        raise NotRunError("Jaeger is not built: tests/interop/build_jaeger.sh (needs Go)")
    heading = "Django, a Collector, and Jaeger or Tempo"
    config = yaml_of(heading)
    with running_jaeger(directory) as jaeger:
        config["exporters"]["otlp_grpc"]["endpoint"] = jaeger.otlp
        with collector_process(config, directory) as (address, _):
            for flags in commands(heading):
                queue = ("--queue-dir", str(directory / "queue")) if "--inherit" in flags else ()
                with processor_process(*flags, "--upstream-endpoint", f"http://{address}", *queue) as processor:
                    _run(directory, *program(REQUEST_TO_DJANGO), OTEL_EXPORTER_OTLP_ENDPOINT=processor.endpoint)

            def found() -> list[Any]:
                whole = [trace for trace in jaeger.traces({ID: "812"}) if len(trace["spans"]) == 2]
                return whole if len(whole) == 2 else []

            users = [sorted(str(_tags(span).get(ID)) for span in trace["spans"]) for trace in _waited_for(found)]
    # On the root alone with the first command, on both spans with the second one.
    _demand(sorted(users) == [["812", "812"], ["812", "None"]], users)
    return "Jaeger 1.76.0 behind Collector 0.161.0 finds both traces by neatlogs.end_user.id=812"


def _tags(span: dict[str, Any]) -> dict[str, object]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def langchain_and_langfuse(directory: Path) -> str:
    """What Langfuse's SDK says of the user is on the page, and Langfuse gets it on the root alone."""
    (flags,) = commands("LangChain and Langfuse")
    (directory / "langfuse.txt").write_text("authorization=Basic cGs6c2s=\nx-langfuse-ingestion-version=4\n")
    own = ("--upstream-headers-file", str(directory / "langfuse.txt"), "--store", str(directory / "traces.db"))
    with OtlpSink() as langfuse:
        upstream = ("--upstream-endpoint", f"{langfuse.http_endpoint}/api/public/otel")
        with page_under_test(*flags, *own, *upstream) as site:
            printed = _run(
                directory,
                LANGCHAIN_AND_LANGFUSE.python(),
                "assistant.py",
                OTEL_EXPORTER_OTLP_ENDPOINT=site.processor.http_endpoint,
                LANGFUSE_PUBLIC_KEY="pk",
                LANGFUSE_SECRET_KEY="sk",
                LANGFUSE_BASE_URL="http://127.0.0.1:9",
            )
            _demand(printed == "42\n", printed)
            _demand_trace_of(site.url, "RunnableSequence")
        spans = langfuse.wait_for_spans(3)
    for span in spans:
        said = attributes(span)
        expected = (None, None) if any(span.parent_span_id) else ("u_812", "s_1")
        _demand((said.get("langfuse.user.id"), said.get("langfuse.session.id")) == expected, said)
        _demand("user.id" not in said or not any(span.parent_span_id), said)
    return "langfuse 5.0.4 and langchain-core 1.7.2 through the processor; an OTLP receiver stood in Langfuse's place"


def traceloop_as_it_is(directory: Path) -> str:
    """An application with Traceloop's SDK alone is on the page with its end user."""
    (flags,) = commands("Traceloop, as it is")
    with page_under_test(*flags, "--store", str(directory / "traces.db")) as site:
        printed = _run(
            directory,
            TRACING_SDKS.python(),
            "workflows.py",
            TRACELOOP_BASE_URL=site.processor.http_endpoint,
            TRACELOOP_TELEMETRY="FALSE",
        )
        _demand("42" in printed, printed)
        _demand_trace_of(site.url, "answer.workflow")
    return "traceloop-sdk 0.62.4 through the processor, found on the page"


def _run(directory: Path, *command: str | Path, **env: str) -> str:
    done = run_recipe(directory, *command, env=env)
    _demand(done.returncode == 0, done.stderr[-3000:])
    return done.stdout


def _demand_trace_of(page: str, name: str) -> None:
    """See that the page finds one trace of u_812 in s_1 who is on the plan pro."""
    filters = ["end_user is u_812", "session is s_1", "metadata:plan is pro"]

    def rows() -> list[Any]:
        answer = httpx.get(f"{page}/api/traces", params={"filter": filters}, trust_env=False)
        return list(answer.raise_for_status().json()["rows"])

    (row,) = _waited_for(rows)
    _demand(row["name"] == name, row)


def _waited_for(look: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while not (found := look()):
        _demand(time.monotonic() < deadline, "nothing arrived")
        time.sleep(0.3)
    return found


def _demand(holds: bool, otherwise: object) -> None:
    if not holds:
        raise NotHeldError(json.dumps(otherwise, default=str)[:3000])


def main() -> int:
    """Run every recipe; 0 where each held or, for want of Go, was not run."""
    good = True
    for recipe in (fastapi_and_phoenix, django_a_collector_and_jaeger, langchain_and_langfuse, traceloop_as_it_is):
        name = recipe.__name__.replace("_", " ")
        with tempfile.TemporaryDirectory(prefix="recipe-") as directory:
            try:
                print(f"{name}: {recipe(Path(directory))}", flush=True)
            except NotRunError as error:
                print(f"{name}: not run: {error}", flush=True)
            except (NotHeldError, NotStartedError, PeerUnavailableError) as error:
                good = False
                print(f"{name}: NOT HELD: {error}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
