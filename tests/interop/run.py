"""Real clients send through the processor to real backends, and each backend is asked what has arrived.

`make interop` runs it. Every backend gets an environment of its own under `.peers/`, made on first use. For each
protocol that it takes, and each client with each protocol that this speaks, one trace goes client -> processor ->
backend; then the backend's own API has to tell of each span once, with the end user on the root and nowhere else.

Before that, one trace goes to each backend past the processor: its API has to show the claims of child spans, or it
would prove nothing that it shows none later. At last one goes through a processor that writes the backend's own keys
(`--emit-for`), and its views of users and sessions have to show the root's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backends import KINDS, Backend, Kind, NotStartedError, Seen

from support.node_environments import node_environment
from support.peer_environments import PeerUnavailableError
from support.processor_process import processor_process

PROGRAMS = Path(__file__).parent / "programs"
NAMESPACE = "neatlogs.end_user"
ID, METADATA, SOURCE = f"{NAMESPACE}.id", f"{NAMESPACE}.metadata", f"{NAMESPACE}.source"
SESSION = "neatlogs.session.id"

_ARRIVAL_SECONDS = 60.0
_CLIENT_SECONDS = 120.0


class NotHeldError(Exception):
    """What arrived is not what has to arrive."""


@dataclass(frozen=True)
class Client:
    """A program that sends one trace.

    Attributes:
        name: What it is.
        protocols: What it speaks.
        command: Returns how it is started, for a protocol and an endpoint.
        root: The attributes that its root has to arrive with, by name; of the identity namespace it may have no others.
        children: The same of its other spans.
    """

    name: str
    protocols: Sequence[str]
    command: Callable[[str, str], Sequence[str | Path]]
    root: tuple[str, Mapping[str, object]]
    children: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


SHIM = Client(
    "the shim",
    ("grpc", "http/protobuf"),
    lambda _, endpoint: (sys.executable, PROGRAMS / "shim.py", endpoint),
    (
        "chat",
        {
            ID: "u_812",
            METADATA: {"plan": "pro", "seats": 3, "company": {"size": 40}},
            SOURCE: "trace",
            SESSION: "session-1",
            "input.value": 'neatlogs.end_user.id is "u_quoted" 😀',
        },
    ),
    {"plan": {}, "tool": {"tool.name": "search"}},
)
PYTHON = Client(
    "opentelemetry-python",
    ("grpc", "http/protobuf"),
    lambda protocol, endpoint: (sys.executable, PROGRAMS / "opentelemetry_python.py", protocol, endpoint),
    ("checkout", {ID: "u_7", METADATA: {"plan": "free"}, SESSION: "session-7", "count": 7}),
    {"pay": {"amount": 12.5}},
)
JAVASCRIPT = Client(
    "opentelemetry-js",
    ("grpc", "http/protobuf", "http/json"),
    lambda protocol, endpoint: ("node", node_environment("opentelemetry") / "client.cjs", protocol, endpoint, "gzip"),
    ("root", {ID: "u_1", "count": 7}),
    {"child": {"input.value": 'neatlogs.end_user.id is "u_3" 😀'}},
)


def send(client: Client, protocol: str, endpoint: str) -> None:
    """Run the client to its end.

    Raises:
        NotHeldError: It did not end well.
        PeerUnavailableError: What it needs is not here.
    """
    command = client.command(protocol, endpoint)
    # Nothing of the tester's own telemetry settings, and no proxy on the way to the processor.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command,
        env=environment | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol},
        capture_output=True,
        text=True,
        timeout=_CLIENT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise NotHeldError(f"the client ended with {done.returncode}: {done.stderr[-2000:]}")


def arrived(backend: Backend, before: frozenset[str], number: int) -> list[Seen]:
    """The spans of the trace that was not there before, once there are so many of them.

    Raises:
        NotHeldError: There are not in time, or there is more than one new trace.
    """
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while True:
        spans = [span for span in backend.spans() if span.trace_id not in before]
        if len({span.trace_id for span in spans}) > 1:
            raise NotHeldError(f"one trace was sent and {len({span.trace_id for span in spans})} arrived")
        if len(spans) >= number:
            return spans
        if time.monotonic() > deadline:
            raise NotHeldError(f"of {number} spans {len(spans)} arrived: {sorted(span.name for span in spans)}")
        time.sleep(0.3)


def check(spans: Sequence[Seen], client: Client) -> None:
    """Compare what arrived with what has to.

    Raises:
        NotHeldError: It differs; the message says where.
    """
    name, identity = client.root
    counted = Counter(span.span_id for span in spans)
    _demand(max(counted.values()) == 1, f"spans arrived twice: {counted}")
    _demand(sorted(span.name for span in spans) == sorted([name, *client.children]), "other spans arrived", spans)
    (root,) = (span for span in spans if span.name == name)
    _demand(root.parent_id is None, "the root has a parent", root)
    for span in spans:
        expected = identity if span is root else client.children[span.name]
        _demand(span is root or span.parent_id == root.span_id, "a child is below another span", span)
        _demand(
            all(span.attributes.get(key) == value for key, value in expected.items()), f"attributes of {name}", span
        )
        claims = {key for key in (*span.attributes, *span.event_attributes) if key.startswith(NAMESPACE)}
        _demand(claims <= expected.keys(), f"{span.name} carries {sorted(claims)}", span)


def _demand(holds: bool, otherwise: str, seen: object = "") -> None:
    if not holds:
        raise NotHeldError(f"{otherwise}: {seen}")


def past_the_processor(backend: Backend) -> None:
    """Send straight to the backend, and see that it shows what the processor would remove.

    Raises:
        NotHeldError: It does not, so that it would prove nothing.
    """
    protocol, upstream = next((name, url) for name, url in backend.upstreams.items() if name != "grpc")
    before = frozenset(span.trace_id for span in backend.spans())
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": backend.headers} if backend.headers else {}
    done = subprocess.run(
        PYTHON.command(protocol, upstream),
        env={"PATH": os.environ["PATH"], **headers},
        capture_output=True,
        text=True,
        timeout=_CLIENT_SECONDS,
        check=False,
    )
    _demand(done.returncode == 0, "the client could not send straight to the backend", done.stderr[-2000:])
    (pay,) = (span for span in arrived(backend, before, 2) if span.name == "pay")
    _demand(pay.attributes.get(ID) == "u_child", "the backend does not show the claim of a child span", pay)
    _demand(pay.event_attributes.get(ID) == "u_event", "the backend does not show the claim of an event", pay)
    served = backend.served(pay.trace_id)
    _demand(served == ("u_child", "session-child"), "its views do not show whom a child claims to serve", served)


def through_the_processor(backend: Backend, upstream_protocol: str) -> bool:
    """Send with every client; print how each went, and return whether all is well."""
    upstream = backend.upstreams[upstream_protocol]
    flags = ["--upstream-endpoint", upstream, "--upstream-protocol", upstream_protocol]
    if backend.headers:
        flags += ["--upstream-headers", backend.headers]
    good, delivered = True, 0
    with processor_process(*flags) as processor:
        for client in (SHIM, PYTHON, JAVASCRIPT):
            for protocol in client.protocols:
                way = f"  {client.name} ({protocol}) -> processor ({upstream_protocol}) ->"
                before = frozenset(span.trace_id for span in backend.spans())
                try:
                    send(client, protocol, processor.endpoint if protocol == "grpc" else processor.http_endpoint)
                    spans = arrived(backend, before, 1 + len(client.children))
                    check(spans, client)
                except (NotHeldError, PeerUnavailableError, subprocess.TimeoutExpired) as error:
                    good = False
                    print(f"{way} {'not run' if isinstance(error, PeerUnavailableError) else 'NOT HELD'}: {error}")
                else:
                    delivered += len(spans)
                    print(f"{way} {len(spans)} spans, each once, end user {spans_user(spans)}", flush=True)
    # A backend may fold two deliveries of a span into one; the processor's own count shows that there were none.
    summary = processor.log.splitlines()[-1]
    if f"{delivered} received, {delivered} acknowledged, 0 refused" not in summary:
        good = False
        print(f"  NOT HELD: the backend tells of {delivered} spans, the processor of others: {summary}")
    return good


def under_its_own_keys(backend: Backend, upstream_protocol: str, preset: str) -> bool:
    """Send through a processor that emits the backend's keys; print and return whether its views show the end user."""
    flags = ["--upstream-endpoint", backend.upstreams[upstream_protocol], "--upstream-protocol", upstream_protocol]
    if backend.headers:
        flags += ["--upstream-headers", backend.headers]
    good = True
    for client, expected in ((SHIM, ("u_812", "session-1")), (PYTHON, ("u_7", "session-7"))):
        way = f"  {client.name} -> processor --emit-for {preset} ({upstream_protocol}) ->"
        before = frozenset(span.trace_id for span in backend.spans())
        try:
            with processor_process(*flags, "--emit-for", preset) as processor:
                send(client, "grpc", processor.endpoint)
            spans = arrived(backend, before, 1 + len(client.children))
            check(spans, client)
            served = backend.served(spans[0].trace_id)
            _demand(served == expected, f"its views show {served} and not {expected}")
        except (NotHeldError, subprocess.TimeoutExpired) as error:
            good = False
            print(f"{way} NOT HELD: {error}")
        else:
            print(f"{way} its views show user {served[0]}, session {served[1]}", flush=True)
    return good


def spans_user(spans: Sequence[Seen]) -> object:
    """The end user of the root among them."""
    return next(span.attributes.get(ID) for span in spans if span.parent_id is None)


def try_backend(kind: Kind, version: str) -> bool:
    """Try one backend with everything, print how it went, and return whether all is well."""
    print(f"{kind.name} {version}", flush=True)
    try:
        python = kind.python(version)
    except PeerUnavailableError as error:
        print(f"  not run: {error}")
        return False
    began = time.monotonic()
    try:
        with kind.run(python) as backend:
            said = backend.version()
            _demand(said == version, "another version answers", said)
            past_the_processor(backend)
            held = [through_the_processor(backend, protocol) for protocol in backend.upstreams]
            held += [under_its_own_keys(backend, protocol, kind.preset) for protocol in backend.upstreams]
    except (NotStartedError, NotHeldError) as error:
        print(f"  NOT HELD: {error}")
        return False
    print(f"  {'all held' if all(held) else 'NOT ALL HELD'}, {time.monotonic() - began:.0f} s", flush=True)
    return all(held)


def main() -> int:
    """Run as the command line says; 0 where everything ran and held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in KINDS:
        parser.add_argument(
            f"--{kind.package}", default=kind.version, metavar="VERSION", help=f"{kind.name} (default: %(default)s)"
        )
    parser.add_argument("--only", choices=[kind.package for kind in KINDS], help="one of them (default: all)")
    arguments = vars(parser.parse_args())
    chosen = [kind for kind in KINDS if arguments["only"] in (None, kind.package)]
    held = [try_backend(kind, arguments[kind.package.replace("-", "_")]) for kind in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
