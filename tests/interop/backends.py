"""Tracing backends as their users run them: installed from PyPI, on free ports of loopback, with data of their own.

Each is asked what it holds through its own HTTP API. Nothing of it is left behind, and nothing calls out: what a
backend has of telemetry is switched off, and whatever else would connect to the world finds a proxy that is not there.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from support.peer_environments import Peer

START_SECONDS = 180.0
"""Long enough for a first start, which makes a database, on a busy machine."""

METADATA = "neatlogs.end_user.metadata"


@dataclass(frozen=True)
class Seen:
    """A span as a backend tells of it. Metadata is an object here, however the backend shows it."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    attributes: Mapping[str, object]
    event_attributes: Mapping[str, object]


class NotStartedError(Exception):
    """A backend did not come up; the message ends with what it wrote."""


class Backend(Protocol):
    """A running backend."""

    upstreams: Mapping[str, str]
    """Where it takes OTLP, by protocol."""
    headers: str
    """What it wants to be sent with each request, as `--upstream-headers` is written."""

    def version(self) -> str:
        """What it says of itself."""

    def spans(self) -> list[Seen]:
        """Everything that it holds; a span that it holds twice is there twice."""

    def served(self, trace_id: str) -> tuple[object, object]:
        """Whom a trace served, and in which session, as its user and session views have it; None where they do not."""


@dataclass
class Phoenix:
    """Arize Phoenix, over its REST API."""

    client: httpx.Client
    upstreams: Mapping[str, str]
    headers: str = ""

    def version(self) -> str:
        """See `Backend`."""
        return self.client.get("/arize_phoenix_version").raise_for_status().text.strip()

    def spans(self) -> list[Seen]:
        """See `Backend`."""
        found: list[Seen] = []
        cursor = None
        while True:
            query = {"limit": 1000, **({"cursor": cursor} if cursor else {})}
            answer = self.client.get("/v1/projects/default/spans", params=query)
            if answer.status_code == 404:
                return found  # The project comes with its first span.
            page = answer.raise_for_status().json()
            found += [
                Seen(
                    trace_id=span["context"]["trace_id"],
                    span_id=span["context"]["span_id"],
                    parent_id=span["parent_id"],
                    name=span["name"],
                    attributes=_unflattened(span["attributes"]),
                    event_attributes=_merged(event.get("attributes") or {} for event in span["events"]),
                )
                for span in page["data"]
            ]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def served(self, trace_id: str) -> tuple[object, object]:
        """See `Backend`. What its own pages ask: GraphQL."""
        question = """query ($trace: ID!) { projects { edges { node { trace(traceId: $trace) {
            userId session { sessionId userId } } } } } }"""
        body = {"query": question, "variables": {"trace": trace_id}}
        answer = self.client.post("/graphql", json=body).raise_for_status().json()
        traces = [edge["node"]["trace"] for edge in answer["data"]["projects"]["edges"]]
        (trace,) = (one for one in traces if one)
        session = trace["session"]
        if session is not None and session["userId"] != trace["userId"]:
            return f"{trace['userId']}, and {session['userId']} in its session", session["sessionId"]
        return trace["userId"], None if session is None else session["sessionId"]


@dataclass
class MLflow:
    """MLflow's tracking server, over its REST API."""

    client: httpx.Client
    upstreams: Mapping[str, str]
    # It files a trace under the experiment that the sender names; 0 is there from the beginning.
    headers: str = "x-mlflow-experiment-id=0"

    def version(self) -> str:
        """See `Backend`."""
        return self.client.get("/version").raise_for_status().text.strip()

    def spans(self) -> list[Seen]:
        """See `Backend`."""
        found: list[Seen] = []
        token = None
        while True:
            question = {
                "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}],
                "max_results": 100,
                **({"page_token": token} if token else {}),
            }
            page = self.client.post("/api/3.0/mlflow/traces/search", json=question).raise_for_status().json()
            for trace in page.get("traces", []):
                answer = self.client.get("/api/3.0/mlflow/traces/get", params={"trace_id": trace["trace_id"]})
                found += [_of_mlflow(span) for span in answer.raise_for_status().json()["trace"].get("spans", [])]
            token = page.get("next_page_token")
            if not token:
                return found

    def served(self, trace_id: str) -> tuple[object, object]:
        """See `Backend`."""
        answer = self.client.get("/api/3.0/mlflow/traces/get", params={"trace_id": f"tr-{trace_id}"})
        info = answer.raise_for_status().json()["trace"]["trace_info"]
        metadata = info.get("trace_metadata", {})
        return metadata.get("mlflow.trace.user"), metadata.get("mlflow.trace.session")


def _of_mlflow(span: dict[str, Any]) -> Seen:
    return Seen(
        trace_id=base64.b64decode(span["trace_id"]).hex(),
        span_id=base64.b64decode(span["span_id"]).hex(),
        parent_id=base64.b64decode(span.get("parent_span_id") or "").hex() or None,
        name=span["name"],
        attributes=_unflattened(_plain(span.get("attributes", []))),
        event_attributes=_merged(_plain(event.get("attributes", [])) for event in span.get("events", [])),
    )


def _plain(attributes: list[dict[str, Any]]) -> dict[str, object]:
    """OTLP attributes in MLflow's JSON as a dict."""
    return {one["key"]: _value(one["value"]) for one in attributes}


def _value(value: dict[str, Any]) -> object:
    ((kind, content),) = value.items()
    if kind == "kvlist_value":
        return _plain(content.get("values", []))
    if kind == "array_value":
        return [_value(one) for one in content.get("values", [])]
    return int(content) if kind == "int_value" else content


def _unflattened(attributes: Mapping[str, object]) -> dict[str, object]:
    """Attributes with metadata as one object.

    Both backends read the JSON that it is: MLflow tells it as a map, Phoenix as one attribute for each leaf.
    """
    plain: dict[str, object] = {}
    metadata: dict[str, Any] = {}
    for key, value in attributes.items():
        if key == METADATA and isinstance(value, str):
            plain[key] = json.loads(value)
        elif key.startswith(METADATA + "."):
            *path, last = key.removeprefix(METADATA + ".").split(".")
            place = metadata
            for step in path:
                place = place.setdefault(step, {})
            place[last] = value
        else:
            plain[key] = value
    return {**plain, METADATA: metadata} if metadata else plain


def _merged(attributes: Iterable[Mapping[str, object]]) -> dict[str, object]:
    return {key: value for some in attributes for key, value in some.items()}


@contextmanager
def phoenix(python: Path) -> Iterator[Backend]:
    """Run Phoenix with this interpreter until the block ends.

    Raises:
        NotStartedError: It did not.
    """
    http, grpc = free_ports(2)
    variables = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    }
    command: list[str | Path] = [python, "-m", "phoenix.server.main", "serve"]
    with _serving(command, variables, http, "/healthz") as client:
        yield Phoenix(client, {"grpc": f"http://127.0.0.1:{grpc}", "http/protobuf": f"http://127.0.0.1:{http}"})


@contextmanager
def mlflow(python: Path) -> Iterator[Backend]:
    """Run MLflow's server with this interpreter until the block ends.

    Raises:
        NotStartedError: It did not.
    """
    (port,) = free_ports(1)
    variables = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Workers for evaluations: seven processes that nobody asks here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    # Relative paths: it runs in a directory of its own.
    storage = ("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts")
    address = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    command: list[str | Path] = [python, "-m", "mlflow", "server", *address, *storage]
    with _serving(command, variables, port, "/health") as client:
        yield MLflow(client, {"http/protobuf": f"http://127.0.0.1:{port}"})


@dataclass(frozen=True)
class Kind:
    """How to get one of the backends.

    Attributes:
        name: What people call it.
        package: Its name on PyPI.
        version: The version that it is tried with unless another one is asked for.
        preset: What `--emit-for` calls it.
        run: Runs it.
    """

    name: str
    package: str
    version: str
    preset: str
    run: Callable[[Path], AbstractContextManager[Backend]]

    def python(self, version: str) -> Path:
        """The interpreter of an environment that has it.

        Raises:
            PeerUnavailableError: It cannot be installed here.
        """
        # Its dependencies are the newest that it allows, as they are for whoever installs it today.
        requirement = f"{self.package}=={version}"
        return Peer(f"{self.package}-{version}", requirement, (requirement,)).python()


KINDS = (
    Kind("Arize Phoenix", "arize-phoenix", "20.26.1", "phoenix", phoenix),
    Kind("MLflow", "mlflow", "3.17.2", "mlflow", mlflow),
)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on. (Somebody may take one before its user does; nothing prevents that.)"""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _serving(
    command: Sequence[str | Path], variables: Mapping[str, str], port: int, health: str
) -> Iterator[httpx.Client]:
    """A client of the server that the command starts, which is up; the server ends with the block."""
    with tempfile.TemporaryDirectory(prefix="interop-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        nowhere = "http://127.0.0.1:9"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "PHOENIX_WORKING_DIR": directory,
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), nowhere),
            "NO_PROXY": "127.0.0.1,localhost",
            **variables,
        }
        with (home / "log").open("wb") as log, ExitStack() as stack:
            process = subprocess.Popen(
                command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, because both start processes that are to end with them.
                start_new_session=True,
            )
            stack.callback(_end, process)
            client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False))
            deadline = time.monotonic() + START_SECONDS
            while not _is_up(client, health):
                if process.poll() is not None or time.monotonic() > deadline:
                    text = (home / "log").read_text(encoding="utf-8", errors="replace")
                    raise NotStartedError(f"{' '.join(map(str, command[1:4]))} did not start:\n{text[-2000:]}")
                time.sleep(0.3)
            yield client


def _is_up(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
