"""What a sender may put into a span to make a page that nobody can open: each page opens all the same."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.page.access import PageToken
from neatlogs_processor.page.app import PageOptions
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.served_page import root_span, served_page, write_spans
from support.stored import NOW

LARGEST = 2**63 - 1
USER, SESSION, METADATA = "neatlogs.end_user.id", "neatlogs.session.id", "neatlogs.end_user.metadata"
WHOSE = {USER: "ali", SESSION: "s"}
DEEP = "[" * 900 + "]" * 900

PAYLOADS: dict[str, dict[str, Any]] = {
    "half a surrogate pair in the input": {"input.value": '{"cut": "\\ud83d"}'},
    "half a surrogate pair in a message": {"gen_ai.input.messages": '[{"role": "user", "content": "\\ud83d"}]'},
    "half a surrogate pair in instructions": {"gen_ai.system_instructions": '["\\udfff"]'},
    "half a surrogate pair in an attribute": {"x": json.dumps({"cut": "\ud83d", "long": "z" * 100})},
    "half a surrogate pair in metadata": {METADATA: '{"plan": "\\ud83d", "\\ud83d": 1}'},
    "an index of 5,000 digits": {f"llm.input_messages.0.message.contents.{'9' * 5000}.message_content.text": "x"},
    "a number of 5,000 digits": {"input.value": f"[{'9' * 5000}]", METADATA: f'{{"n": {"9" * 5000}}}'},
    "values nested 900 deep": {"gen_ai.input.messages": f'[{{"content": {{"a": {DEEP}}}}}]', "input.value": DEEP},
    "infinities": {METADATA: '{"a": 1e999, "b": NaN, "c": 1e308}', "f": float("inf"), "n": float("nan")},
    "messages that are none": {"gen_ai.input.messages": '[{"role": {"a": 1}, "parts": {"a": 2}}, {"role": null}, 3]'},
    "keys of nothing": {METADATA: '{"": 1, " ": 2, "a.b": {"": 3}, "\\u0000": 4, "x": "\\u0000"}', "": ""},
    "characters of no meaning": {"\0": "\0\x1b[2J\u202e", USER: "a\0b\u202e", SESSION: "s\0t"},
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_attribute_makes_a_page_that_cannot_be_opened(tmp_path: Path, payload: dict[str, Any]) -> None:
    """The trace, the lists, its session and its end user are shown whatever the text, JSON and keys of attributes."""
    said = {**WHOSE, **payload}
    write_spans(tmp_path / "traces.db", root_span(1, said))
    with served_page(tmp_path / "traces.db") as client:
        addresses = [f"/traces/{1:032x}", f"/api/traces/{1:032x}", "/traces", "/sessions", "/users", "/coverage"]
        addresses += ["/api/users", "/api/traces.csv", "/complete?text=metadata:", "/complete?text=end_user+is+"]
        for address in addresses:
            assert client.get(address).status_code == 200, address
        assert client.get("/session", params={"id": said[SESSION]}).status_code == 200
        assert client.get("/user", params={"id": said[USER]}).status_code == 200


@pytest.mark.parametrize(
    "times",
    [
        {"start_time_unix_nano": 0, "end_time_unix_nano": 0},
        {"end_time_unix_nano": 0},
        {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 5},
        {"start_time_unix_nano": 1, "end_time_unix_nano": 2**64 - 1},
        {"start_time_unix_nano": 2**64 - 1, "end_time_unix_nano": 2**64 - 1},
    ],
    ids=["no times", "no end", "no start", "an end before its start", "five centuries", "a far future"],
)
def test_no_time_makes_a_list_that_cannot_be_opened(tmp_path: Path, times: dict[str, int]) -> None:
    """Spans without times, with times the wrong way round or at the ends of what 64 bits hold are shown everywhere."""
    usual = root_span(1, WHOSE)
    write_spans(tmp_path / "traces.db", usual, *(root_span(number, WHOSE, **times) for number in (2, 3, 4)))
    with served_page(tmp_path / "traces.db") as client:
        for tab in ("traces", "sessions", "users", "coverage"):
            assert client.get(f"/{tab}?last=all").status_code == 200
            assert client.get(f"/api/{tab}?last=all").status_code == 200
        for path in (f"/traces/{2:032x}", "/session?id=s", "/user?id=ali&last=all"):
            assert client.get(path).status_code == 200
        for tab in ("sessions", "users"):
            (row,) = client.get(f"/api/{tab}?last=all").json()["rows"]
            assert row["duration_ns"] >= 10**9


def test_numbers_as_large_as_they_get_add_up_to_the_largest(tmp_path: Path) -> None:
    """Two spans with the largest number of tokens do not end in an error for everybody: sums stop at 2^63 - 1."""
    tokens = {**WHOSE, "llm.token_count.total": LARGEST}
    write_spans(tmp_path / "traces.db", *(root_span(number, tokens) for number in (1, 2, 3)))
    with served_page(tmp_path / "traces.db") as client:
        for address in ("/traces", "/sessions?sort=-tokens", "/users?filter=tokens+%3E+5", "/user?id=ali"):
            assert client.get(address).status_code == 200
        for tab in ("sessions", "users"):
            assert [row["tokens"] for row in client.get(f"/api/{tab}").json()["rows"]] == [LARGEST]


@pytest.mark.parametrize(
    "query", ["self=1", "filter=x&self=1", "name=&name=", "%00=%00", "filter=%00", "filter=%F0%9F", "cursor=%00"]
)
def test_any_address_is_answered_in_words(tmp_path: Path, query: str) -> None:
    """An address that says nothing sensible is a 400 with words on every list, never an error of the program."""
    write_spans(tmp_path / "traces.db", root_span(1, WHOSE))
    with served_page(tmp_path / "traces.db") as client:
        for tab in ("traces", "sessions", "users", "coverage"):
            answer = client.get(f"/{tab}?{query}")
            assert answer.status_code == 400
            assert 'class="question"' in answer.text


TAG = '"><script>alert(1)</script><img src=x onerror=alert(1)> javascript:alert(1)'
"""Ends an attribute's value, opens an element, and reads as an address that runs."""


class Elements(HTMLParser):
    """Notes everything in a page that could run or lead away."""

    def __init__(self) -> None:
        super().__init__()
        self.suspects: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that is none of ours, and an attribute that runs something or leads elsewhere."""
        said = {name: value or "" for name, value in attrs}
        if tag in ("script", "img") and not said.get("src", "").startswith("/static/"):
            self.suspects.append(f"<{tag} {said}>")
        for name, value in said.items():
            leads = name in ("href", "src", "action", "hx-get", "hx-replace-url", "data-complete")
            if name.startswith("on") or name == "style" or (leads and not value.startswith(("/", "#"))):
                self.suspects.append(f"{tag} {name}={value}")


def test_nothing_from_a_payload_becomes_markup_or_an_address(tmp_path: Path) -> None:
    """Whatever field of OTLP holds markup or a `javascript:` address, every page shows it as text."""
    said = {TAG: TAG, USER: TAG, SESSION: TAG, METADATA: json.dumps({TAG: TAG, "nested": {TAG: [TAG]}})}
    said |= {"neatlogs.end_user.source": TAG, "openinference.span.kind": TAG, "input.value": TAG, "url.full": TAG}
    said |= {"llm.output_messages.0.message.role": TAG, "llm.output_messages.0.message.content": TAG}
    span = root_span(1, said, name=TAG)
    span.status.code, span.status.message, span.trace_state = 2, TAG, TAG
    marked = root_span(1, {TAG: TAG}).attributes
    span.events.add(name=TAG, time_unix_nano=NOW, attributes=marked)
    span.links.add(trace_id=b"<script>" * 2, span_id=b"<script>", trace_state=TAG, attributes=marked)
    second = root_span(1, {USER: TAG}, name=TAG, span_id=b"\x07" * 8)
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add(schema_url=TAG)
    named = {"service.name": TAG, "neatlogs.workflow_name": TAG, "neatlogs.tags": TAG, TAG: TAG}
    resource.resource.attributes.extend(root_span(1, named).attributes)
    scope = resource.scope_spans.add(schema_url=TAG)
    scope.scope.name, scope.scope.version = TAG, TAG
    scope.spans.extend([span, second])
    override = Override(span.trace_id, span.span_id, TAG, TAG, Place.CHILD, TAG)
    path = tmp_path / "traces.db"
    with contextlib.closing(open_writer(path)) as connection:
        batch = read_request(request.SerializeToString(), EndUserPolicy())
        Writing(connection).write([(batch, (override,))], NOW)
    name, of = quote_plus(TAG), f"/traces/{1:032x}"
    addresses = ["/traces", "/sessions", "/users", "/coverage", of, f"{of}/spans/{1:016x}", f"/session?id={name}"]
    addresses += [f"/user?id={name}", f"/traces?filter=end_user+is+{quote_plus(json.dumps(TAG))}"]
    addresses += [
        f"/traces?filter={name}",
        f"/traces?{name}={name}",
        f"/traces?cursor={name}",
        f"/{name}",
        f"/live?than={name}",
    ]
    with served_page(path) as client:
        for address in addresses:
            page = client.get(address)
            elements = Elements()
            elements.feed(page.text)
            assert elements.suspects == [], address
            assert "<script>alert" not in page.text, address
        assert "alert(1)" in client.get(of).text
        login = PageOptions(token=PageToken(lambda: "a-token-that-is-hard-to-guess"))
    with served_page(path, login) as client:
        elements = Elements()
        elements.feed(client.get(f"/login?next={name}").text)
        assert elements.suspects == []


def test_a_table_holds_any_text_in_one_cell(tmp_path: Path) -> None:
    """Line ends, quotes, commas and control characters of ids and metadata break no line of the CSV and no cell."""
    user, session = 'a,"b"\r\n=1+1\n\t"', "\t=cmd|' /C calc'!A0"
    said = {USER: user, SESSION: session, METADATA: json.dumps({"k": 'v,"w"\r\n'})}
    write_spans(tmp_path / "traces.db", root_span(1, said))
    with served_page(tmp_path / "traces.db") as client:
        text = client.get("/api/traces.csv").text
        (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["end_user"], row["session"]) == (user, f"'{session}")
    assert json.loads(row["metadata"]) == {"k": 'v,"w"\r\n'}
