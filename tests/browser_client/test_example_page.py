"""The example page does what it says, in a real browser and against a real processor."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from support.page import NO_BROWSER, chromium, page_under_test
from support.typescript_package import run_node_program
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


def test_the_example_page_says_how_to_let_it_send() -> None:
    """Where the processor does not let the page send, the example prints what to start the processor with, and ends."""
    port = free_port()
    with page_under_test() as site:
        arguments = ("--visit", "--port", str(port), "--endpoint", site.processor.http_endpoint)
        printed = run_node_program(
            "../../examples/page.mjs", *arguments, variables={"NEATLOGS_ENDPOINT": site.processor.endpoint}
        )
    assert f"--cors-origins http://localhost:{port}" in printed
