"""The published `neatlogs/browser` client, unchanged but for its endpoint, sends to the real processor.

It runs under Node and in a real browser, from a page of another origin; its traces arrive upstream and in the store.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from playwright.sync_api import Browser, Page

from support.node_environments import SOURCES, node_environment
from support.otlp_sink import OtlpSink, attributes
from support.page import PageUnderTest, page_under_test
from support.peer_environments import PeerUnavailableError
from support.static_site import static_site

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

PACKAGES = ("neatlogs-1.1.11", "neatlogs-1.1.15")
SCENARIO = (SOURCES / "neatlogs-browser" / "scenario.cjs").read_text(encoding="utf-8")
ID, METADATA, SESSION = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.session.id"
KEY = "nlw_0123456789abcdef"
WAIT_SECONDS = 60.0

# In the page: load the client as a bundler would have put it there, and run the scenario.
_RUN = """async ([client, scenario, endpoint, key]) => {
  const { Neatlogs } = await import(client);
  const module = {};
  new Function("module", scenario)(module);
  return await module.exports(Neatlogs, endpoint, key);
}"""


@dataclass
class Conversation:
    """What the client said, and what came of it."""

    answers: dict[str, Any]
    errors: list[str]
    sent: list[tuple[Resource, Span]]
    traces: dict[str, Any]

    def span(self, name: str) -> Span:
        """The first span of this name that arrived upstream."""
        return next(span for _, span in self.sent if span.name == name)

    def stored(self, name: str) -> Any:
        """What the store says of the trace that the client was given for this answer."""
        return self.traces[self.answers[name]["trace_id"]]


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with the published packages."""
    try:
        return node_environment("neatlogs-browser")
    except PeerUnavailableError as error:
        pytest.skip(str(error))


@contextmanager
def page_of(browser: Browser, origin: str) -> Iterator[Page]:
    """A fresh tab at an origin."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(origin)
        yield page
    finally:
        context.close()


@contextmanager
def processor(folder: Path, origin: str, *flags: str) -> Iterator[PageUnderTest]:
    """A processor with a store that takes browser traces of one origin alone."""
    keys = folder / "browser-keys"
    keys.write_text(f"page {KEY} {origin}\n", encoding="utf-8")
    keys.chmod(0o600)
    with page_under_test("--browser-keys-file", str(keys), "--cors-origins", origin, *flags) as running:
        yield running


def stored(site: PageUnderTest) -> dict[str, Any]:
    """The traces that are stored, by their ids."""
    rows = httpx.get(f"{site.url}/api/traces", trust_env=False, timeout=30).raise_for_status().json()["rows"]
    return {row["trace_id"]: row for row in rows}


@pytest.fixture(
    scope="module", params=[(runtime, package) for runtime in ("node", "browser") for package in PACKAGES], ids="-".join
)
def conversation(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Conversation:
    """The scenario, run by one version of the client in one place."""
    runtime, package = request.param
    folder = tmp_path_factory.mktemp("plain")
    with OtlpSink() as sink, static_site(packages / "node_modules") as origin:
        flags = ("--upstream-endpoint", sink.grpc_endpoint)
        if runtime == "browser":
            tab: Browser = request.getfixturevalue("browser")
            with processor(folder, origin, *flags) as site, page_of(tab, origin) as page:
                client = f"/{package}/dist/browser.mjs"
                said = page.evaluate(_RUN, [client, SCENARIO, site.processor.http_endpoint, KEY])
                traces = stored(site)
        else:
            tokens = folder / "tokens"
            tokens.write_text(f"server {KEY}\n", encoding="utf-8")
            tokens.chmod(0o600)
            with page_under_test("--auth-tokens-file", str(tokens), *flags) as site:
                said = _run_node(packages, package, site.processor.http_endpoint)
                traces = stored(site)
        return Conversation(said["answers"], said["errors"], sink.spans_with_resources, traces)


def _run_node(packages: Path, package: str, endpoint: str) -> Any:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        ["node", "client.cjs", package, endpoint, KEY],
        cwd=packages,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TestScenario:
    """What holds wherever the client runs, in every version."""

    def test_every_trace_is_accepted(self, conversation: Conversation) -> None:
        """The client hears that all went well, with the trace's id and its spans, except of what is wrong."""
        answers = dict(conversation.answers)
        answers.pop("refused")
        assert all(answer["ok"] for answer in answers.values())
        assert {name: answer["spans"] for name, answer in answers.items()} == {
            **dict.fromkeys(("tracked", "overridden", "streamed", "anonymous", "raw"), 1),
            **dict.fromkeys(("nested", "again"), 4),
        }
        assert {span.trace_id.hex() for _, span in conversation.sent} == {
            answer["trace_id"] for answer in answers.values()
        }

    def test_a_refusal_reaches_the_page(self, conversation: Conversation) -> None:
        """What is wrong with a trace is what the client shows, and nothing of the trace is kept."""
        refusal = conversation.answers["refused"]
        assert refusal["ok"] is False
        assert refusal["error"].startswith("HTTP 400: ")
        assert "children[0].duration_ms" in refusal["error"]
        assert conversation.errors == [f"Error: {refusal['error']}"]
        assert "refused" not in {span.name for _, span in conversation.sent}

    @pytest.mark.parametrize(
        ("name", "end_user", "metadata", "session"),
        [
            ("tracked", "u_812", {"plan": "pro"}, "s_1"),
            ("overridden", "u_999", {"plan": "free"}, "s_2"),
            ("nested", "u_812", {"plan": "pro"}, "s_1"),
            ("streamed", "u_812", {"plan": "pro"}, "s_1"),
            ("anonymous", None, None, None),
            ("raw", "u_raw", {"plan": "team"}, None),
        ],
    )
    def test_traces_are_under_their_end_users(
        self, conversation: Conversation, name: str, end_user: str | None, metadata: Any, session: str | None
    ) -> None:
        """Upstream and in the store, each trace has the end user, the metadata and the session that the page named."""
        found = attributes(conversation.span(name))
        assert (found.get(ID), found.get(SESSION)) == (end_user, session)
        assert (json.loads(str(found[METADATA])) if METADATA in found else None) == metadata
        row = conversation.stored(name)
        assert (row["end_user"], row["metadata"], row["session"]) == (end_user, metadata, session)
        assert (row["workflow"], row["root_received"]) == (name, True)

    def test_children_name_nobody(self, conversation: Conversation) -> None:
        """What children say of an end user, as fields and as attributes, does not arrive, and is counted."""
        children = [span for _, span in conversation.sent if span.parent_span_id]
        assert {span.name for span in children} == {"retrieve", "answer", "lookup"}
        assert not any(key.startswith("neatlogs.end_user") for span in children for key in attributes(span))
        # The store names each key of a span once: "answer" names an id in both forms, and metadata; "lookup" an id.
        assert conversation.stored("nested")["overrides"] == 3

    def test_a_trace_sent_again_counts_once(self, conversation: Conversation) -> None:
        """The same body is the same trace, however often it is sent."""
        assert conversation.answers["again"] == conversation.answers["nested"]
        assert len(conversation.traces) == 6
        assert conversation.stored("nested")["spans"] == 4

    def test_nesting_arrives_as_hierarchy(self, conversation: Conversation) -> None:
        """Each span's parent is the one around it."""
        nested, answer = conversation.span("nested"), conversation.span("answer")
        assert nested.parent_span_id == b""
        assert [conversation.span(name).parent_span_id for name in ("retrieve", "answer", "lookup")] == [
            nested.span_id,
            nested.span_id,
            answer.span_id,
        ]

    def test_what_was_captured_arrives(self, conversation: Conversation) -> None:
        """Model, tokens, content, documents, logs, errors and times are where OpenTelemetry's readers look for them."""
        tracked = attributes(conversation.span("tracked"))
        assert tracked["gen_ai.request.model"] == "gpt-4o"
        assert (tracked["gen_ai.usage.input_tokens"], tracked["gen_ai.usage.output_tokens"]) == (10, 5)
        assert json.loads(str(tracked["input.value"])) == [{"role": "user", "content": "Where is my order?"}]
        assert (tracked["output.value"], tracked["neatlogs.span.kind"]) == ("On its way.", "llm")
        assert json.loads(str(tracked["metadata"])) == {"page": "/orders"}
        span = conversation.span("tracked")
        assert span.end_time_unix_nano - span.start_time_unix_nano == 1_200_000_000
        assert conversation.stored("tracked")["tokens"] == 15
        retrieve = attributes(conversation.span("retrieve"))
        assert retrieve["retrieval.documents.0.document.content"] == "30 days"
        answer = conversation.span("answer")
        assert attributes(answer)["neatlogs.llm.temperature"] == 0.7
        assert [(event.name, attributes(event)) for event in answer.events] == [
            ("log", {"level": "warn", "message": "slow"})
        ]
        lookup = conversation.span("lookup")
        assert (lookup.status.code, lookup.status.message) == (2, "timeout")
        resources = {span.name: attributes(resource) for resource, span in conversation.sent}
        assert resources["tracked"] == {"neatlogs.project": "shop", "service.name": "shop"}
        assert resources["anonymous"] == {"service.name": "unknown_service"}


def test_a_page_of_another_origin_is_refused(packages: Path, browser: Browser, tmp_path: Path) -> None:
    """A page whose origin is not listed cannot send: the client hears it, does not throw, and nothing is stored."""
    with (
        static_site(packages / "node_modules") as ours,
        static_site(packages / "node_modules") as theirs,
        processor(tmp_path, ours) as site,
        page_of(browser, theirs) as page,
    ):
        client = f"/{PACKAGES[-1]}/dist/browser.mjs"
        said = page.evaluate(_RUN, [client, SCENARIO, site.processor.http_endpoint, KEY])
        assert not any(answer["ok"] for answer in said["answers"].values())
        assert len(said["errors"]) == len(said["answers"])
        assert stored(site) == {}


def test_a_trace_survives_leaving_the_page(packages: Path, browser: Browser, tmp_path: Path) -> None:
    """A trace that is on its way when the page is left still arrives: the client asks the browser to see to it."""
    with (
        static_site(packages / "node_modules") as origin,
        processor(tmp_path, origin) as site,
        page_of(browser, origin) as page,
    ):
        page.evaluate(
            """async ([client, endpoint, apiKey]) => {
              const { Neatlogs } = await import(client);
              const nl = new Neatlogs({ apiKey, endpoint, endUserId: "u_leaving" });
              addEventListener("pagehide", () => void nl.trackAI({ name: "goodbye", input: "bye" }));
            }""",
            [f"/{PACKAGES[-1]}/dist/browser.mjs", site.processor.http_endpoint, KEY],
        )
        page.goto(f"{origin}/{PACKAGES[-1]}/")
        deadline = time.monotonic() + WAIT_SECONDS
        while not (traces := stored(site)):
            assert time.monotonic() < deadline, site.processor.log
            time.sleep(0.05)
    assert [(row["workflow"], row["end_user"]) for row in traces.values()] == [("goodbye", "u_leaving")]
