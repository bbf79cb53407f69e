"""The example page does what it says, in a real browser and against a real processor."""

from __future__ import annotations

import json
import socket
import subprocess
from collections import Counter

import pytest

from support.page import NO_BROWSER, chromium, page_under_test
from support.typescript_package import PACKAGE, built_package, run_node_program
from support.web_pages import ask

pytestmark = pytest.mark.timeout(600)


def free_port() -> int:
    """Return a port that was free just now: the processor has to know the page's origin before it starts."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(autouse=True)
def _chromium() -> None:
    """The system's chromium, which the example opens itself."""
    if chromium() is None:
        pytest.skip(NO_BROWSER)


def test_a_visit_of_the_example_page() -> None:
    """Ada asks twice, logs out, and nobody asks once: three traces of page and server, two of them Ada's."""
    port = free_port()
    with page_under_test("--cors-origins", f"http://localhost:{port}") as site:
        arguments = ("--visit", "--port", str(port), "--endpoint", site.processor.http_endpoint)
        printed = run_node_program(
            "../../examples/page.mjs", *arguments, variables={"NEATLOGS_ENDPOINT": site.processor.endpoint}
        )
        rows = ask(site, "traces")["rows"]
    assert printed == "Ada asked twice, and then nobody: three traces, two of them u_ada's.\n"
    assert Counter((row["name"], row["end_user"]) for row in rows) == {("ask", "u_ada"): 2, ("ask", None): 1}
    assert [row["spans"] for row in rows] == [2, 2, 2]


ENDPOINTS: list[tuple[dict[str, str], str]] = [
    ({}, "http://localhost:4318"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, "http://localhost:4318"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, "http://localhost:4318"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://box:14317/"}, "http://box:14318"),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://box:9000/v1/traces"}, "http://box:9000"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://box:9000", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http://box:9000"),
    ({"NEATLOGS_ENDPOINT": "box:14317", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4317"}, "http://box:14318"),
    ({"NEATLOGS_ENDPOINT": " ", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://[::1]:4317"}, "https://[::1]:4318"),
    ({"NEATLOGS_ENDPOINT": "https://otlp.example.com"}, "https://otlp.example.com"),
    ({"NEATLOGS_ENDPOINT": "unix:/run/otlp.sock"}, "http://localhost:4318"),
]


def test_the_example_page_sends_where_the_other_examples_send() -> None:
    """It follows their variables: to the address itself where that is OTLP/HTTP, else to the next port."""
    source = f"""
    import {{ otlpHttp }} from {(PACKAGE / "examples" / "otlp_http.mjs").as_uri()!r};
    console.log(JSON.stringify({json.dumps([variables for variables, _ in ENDPOINTS])}.map(otlpHttp)));
    """
    command = [built_package(), "--input-type=module", "-e", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert json.loads(done.stdout) == [expected for _, expected in ENDPOINTS]


def test_a_visit_needs_no_address_of_its_own() -> None:
    """Under a variable that names another processor, page and server meet there."""
    port = free_port()
    with page_under_test("--cors-origins", f"http://localhost:{port}") as site:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": site.processor.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        run_node_program("../../examples/page.mjs", "--visit", "--port", str(port), variables=variables)
        rows = ask(site, "traces")["rows"]
    assert [row["spans"] for row in rows] == [2, 2, 2]


def test_the_example_page_says_how_to_let_it_send() -> None:
    """Where the processor does not let the page send, the example prints what to start the processor with, and ends."""
    port = free_port()
    with page_under_test() as site:
        arguments = ("--visit", "--port", str(port), "--endpoint", site.processor.http_endpoint)
        printed = run_node_program(
            "../../examples/page.mjs", *arguments, variables={"NEATLOGS_ENDPOINT": site.processor.endpoint}
        )
    assert f"--cors-origins http://localhost:{port}" in printed
