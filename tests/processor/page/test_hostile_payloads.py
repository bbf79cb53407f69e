"""What a sender may put into a span to make a page that nobody can open: each page opens all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.served_page import root_span, served_page, write_spans

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
