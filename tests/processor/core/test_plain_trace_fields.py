"""Plain traces: what becomes of each field, and whose words win."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.plain_fields import FIELDS
from support import plain_trace_table
from support.otlp_sink import attributes
from support.plain_traces import MS, NOON, SESSION, request, root, spans

EXAMPLES: dict[str, Any] = {
    "name": "chat",
    "kind": "LLM",
    "input": "in",
    "output": {"a": 1},
    "model": "gpt-4o",
    "tokens": {"prompt": 1, "completion": 2, "total": 3},
    "query": "q",
    "documents": [{"content": "c", "id": "d1", "score": 0.5, "metadata": {"a": 1}}],
    "tool_name": "search",
    "passed": True,
    "score": 1,
    "metadata": {"a": 1},
    "status": "pending",
    "error": "bad",
    "start": "2026-11-20T10:00:00Z",
    "end": "2026-11-20T10:00:01Z",
    "duration_ms": 5,
    "attributes": {"a": 1},
    "logs": [{"message": "m", "level": "info", "timestamp": "2026-11-20T10:00:00.5Z"}],
    "children": [{"name": "step"}],
    "endUserId": "u_1",
    "endUserMetadata": {"plan": "pro"},
    "sessionId": "s_1",
    "tags": ["a", "b"],
    "project": "shop",
}


def test_the_tables_are_what_the_code_says() -> None:
    """The README's table, the data file for other languages and the code's own table are the same."""
    assert plain_trace_table.current() == plain_trace_table.table(), (
        "run: cd tests && python -m support.plain_trace_table"
    )
    assert json.loads(plain_trace_table.DATA.read_text(encoding="utf-8")) == plain_trace_table.data()


@pytest.mark.parametrize("one", FIELDS, ids=lambda one: one.name)
def test_a_field_becomes_the_attributes_of_the_table(one: Any) -> None:
    """A span with one field has the attributes that the table names, which one without it has not."""
    name, within = re.match(r"(\w+)(?:\[\])?\.?(\w*)", one.name).groups()
    value = EXAMPLES[name]
    if within:
        value = [{within: value[0][within]}] if isinstance(value, list) else {within: value[within]}

    def everything(document: Any) -> set[tuple[str, object]]:
        group = request(document).resource_spans[0]
        span = group.scope_spans[0].spans[0]
        carriers: list[Resource | Span | Span.Event] = [group.resource, span, *span.events]
        return {item for carrier in carriers for item in attributes(carrier).items()}

    for spelling in (name, *one.aliases):
        new = everything({"name": "chat", spelling: value}) - everything({"name": "chat"})
        assert {key.replace("documents.0", "documents.N") for key, _ in new} >= set(one.attributes)


@pytest.mark.parametrize("case", plain_trace_table.cases(), ids=lambda case: case["name"])
def test_the_cases_that_clients_share(case: dict[str, Any]) -> None:
    """Each case of the data file for clients in other languages is what becomes of its span here."""
    # As JavaScript writes it: without spaces.
    text = json.dumps({"name": "span", **case["fields"]}, separators=(",", ":"))
    span = spans(text.encode())[0]
    assert (attributes(span), span.status.code, span.status.message) == (
        case["attributes"],
        case["status"]["code"],
        case["status"]["message"],
    )


def test_every_example_is_a_field() -> None:
    """The examples of these tests cover the table."""
    assert EXAMPLES.keys() == {re.split(r"\W", one.name)[0] for one in FIELDS}


def test_unknown_fields_are_passed_over() -> None:
    """What the table does not name changes nothing, and neither does null."""
    assert root(temperature=1, user="x", model=None, attributes=None, logs=None, children=None, endUserId=None) == {}


def test_tokens_that_are_null_or_unknown_are_passed_over() -> None:
    """A count that is not known is not zero."""
    assert root(tokens={"prompt": None, "completion": 2.0, "cached": "?"}) == {
        "gen_ai.usage.output_tokens": 2,
        "llm.token_count.completion": 2,
    }


def test_text_stays_text_and_anything_else_is_json() -> None:
    """What went in and came out: text as it is, anything else as the JSON text that was sent, with its media type."""
    found = root(input="hi \ud83d\ude42", output=[{"role": "assistant", "content": "1 < 2"}])
    assert found == {
        "input.value": "hi 🙂",
        "input.mime_type": "text/plain",
        "output.value": '[{"role": "assistant", "content": "1 < 2"}]',
        "output.mime_type": "application/json",
    }


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    """Text that UTF-8 cannot hold is repaired where it is text, and stays an escape where it is JSON."""
    found = root(input="\ud800", output={"a": "\ud800"})
    assert (found["input.value"], found["output.value"]) == ("\ufffd", '{"a": "\\ud800"}')


def test_attributes_win_over_fields() -> None:
    """An attribute that is named by its key stands, whatever the field for it says."""
    found = root(
        input="field",
        model="field",
        tokens={"prompt": 1},
        attributes={"input.value": "own", "llm.model_name": "own", "gen_ai.usage.input_tokens": 9},
    )
    assert found == {
        "input.value": "own",
        "llm.model_name": "own",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.request.model": "field",
        "llm.token_count.prompt": 1,
    }


def test_attributes_keep_their_types() -> None:
    """Text, numbers, truth and arrays of them stay what they are; the rest is JSON; null is none."""
    given = {
        "text": "a",
        "int": -7,
        "big": 2**70,
        "double": 0.5,
        "true": True,
        "false": False,
        "none": None,
        "map": {"a": [1]},
        "mixed": [1, {"a": 1}, 2],
        "holes": [1, None],
    }
    assert root(attributes=given) == {
        "text": "a",
        "int": -7,
        "big": float(2**70),
        "double": 0.5,
        "true": True,
        "false": False,
        "map": '{"a": [1]}',
        "mixed": '[1, {"a": 1}, 2]',
        "holes": "[1, null]",
    }
    (array,) = (
        one for one in spans({"name": "a", "attributes": {"k": ["\ud800", 1, 2.5, True], "e": []}})[0].attributes[:1]
    )
    assert [one.WhichOneof("value") for one in array.value.array_value.values] == [
        "string_value",
        "int_value",
        "double_value",
        "bool_value",
    ]
    assert array.value.array_value.values[0].string_value == "\ufffd"


def test_a_query_is_the_input_where_there_is_none() -> None:
    """A retriever's query is what went in, unless the span says what went in."""
    assert root(query={"q": 1}) == {
        "gen_ai.retrieval.query.text": '{"q": 1}',
        "input.value": '{"q": 1}',
        "input.mime_type": "application/json",
    }
    assert root(query="q", input="i")["input.value"] == "i"


def test_documents_are_text_or_objects() -> None:
    """Each document's content, id, score and metadata are found, and nothing of a document is lost."""
    documents = [
        "plain",
        {"text": "t", "id": 7, "score": 1, "metadata": {"a": 1}, "more": 1},
        {"pageContent": "p", "source": "wiki"},
        {"title": "no content", "id": None},
        None,
        5,
    ]
    prefix = "retrieval.documents"
    assert root(documents=documents) == {
        f"{prefix}.0.document.content": "plain",
        f"{prefix}.1.document.content": "t",
        f"{prefix}.1.document.id": "7",
        f"{prefix}.1.document.score": 1.0,
        f"{prefix}.1.document.metadata": '{"a": 1}',
        f"{prefix}.2.document.content": "p",
        f"{prefix}.2.document.metadata": '{"pageContent": "p", "source": "wiki"}',
        f"{prefix}.3.document.content": '{"title": "no content", "id": null}',
        f"{prefix}.5.document.content": "5",
    }


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "workflow"),
        ({"kind": " Mcp_Tool "}, "mcp_tool"),
        ({"kind": " ", "model": "m"}, "llm"),
        ({"tokens": {}}, "llm"),
        ({"query": "q", "model": "m"}, "retriever"),
        ({"documents": []}, "retriever"),
        ({"tool_name": "t", "query": "q"}, "tool"),
        ({"passed": False}, "guardrail"),
        ({"score": 0}, "evaluator"),
    ],
    ids=str,
)
def test_the_kind_of_a_span(fields: dict[str, Any], kind: str) -> None:
    """A span is of the kind that it says, else of the one that its fields tell; in lower case and in capitals."""
    found = attributes(spans({"name": "a", **fields})[0])
    assert (found["neatlogs.span.kind"], found["openinference.span.kind"]) == (kind, kind.upper())


def test_a_child_without_a_kind_is_a_step_of_a_chain() -> None:
    """Below the root nothing is a workflow unless it says so."""
    _, child = spans({"name": "a", "children": [{"name": "b"}]})
    assert attributes(child)["neatlogs.span.kind"] == "chain"


@pytest.mark.parametrize(
    ("fields", "code", "message", "attribute"),
    [
        ({}, 0, "", None),
        ({"status": "ok"}, 1, "", None),
        ({"status": "SUCCESS"}, 1, "", None),
        ({"status": "Failed"}, 2, "", None),
        ({"status": "unset"}, 0, "", None),
        ({"status": "pending"}, 0, "", "pending"),
        ({"error": "429: too many"}, 2, "429: too many", None),
        ({"error": {"code": 1}, "status": "ok"}, 2, '{"code": 1}', None),
        ({"error": ""}, 0, "", None),
        ({"error": False}, 0, "", None),
    ],
    ids=str,
)
def test_the_status_of_a_span(fields: dict[str, Any], code: int, message: str, attribute: str | None) -> None:
    """Words say what became of a span, an error outweighs them, and a word that is not known is kept."""
    (span,) = spans({"name": "a", **fields})
    assert (span.status.code, span.status.message) == (code, message)
    assert attributes(span).get("neatlogs.status") == attribute


def test_logs_are_events_of_the_span() -> None:
    """Each log is an event with its time, which is the span's start where it says none; its text may be any JSON."""
    logs = [{"message": {"a": 1}, "level": "warn", "timestamp": 1_000, "more": 1}, {"message": "hi", "level": None}, {}]
    (span,) = spans({"name": "a", "logs": logs})
    assert [(event.name, event.time_unix_nano, attributes(event)) for event in span.events] == [
        ("log", 1_000 * MS, {"level": "warn", "message": '{"a": 1}'}),
        ("log", NOON, {"message": "hi"}),
        ("log", NOON, {}),
    ]


def test_what_stands_on_the_resource() -> None:
    """The project is the service too; without one, the service is unknown and there is no project."""
    project = request({"name": "a", "project": "shop", "children": [{"name": "b", "project": "other"}]})
    assert attributes(project.resource_spans[0].resource) == {"neatlogs.project": "shop", "service.name": "shop"}
    for nothing in ({}, {"project": " "}):
        resource = request({"name": "a", **nothing}).resource_spans[0].resource
        assert attributes(resource) == {"service.name": "unknown_service"}


def test_session_and_tags_are_the_roots() -> None:
    """The root says which session it belongs to and its tags; a child's are passed over."""
    document = {
        "name": "a",
        "sessionId": "",
        "session_id": 7,
        "tags": ["a", "b"],
        "children": [{"name": "b", "sessionId": "s", "tags": "t"}],
    }
    first, child = spans(document)
    assert {key: attributes(first)[key] for key in (SESSION, "neatlogs.tags")} == {SESSION: "7", "neatlogs.tags": "a,b"}
    assert attributes(child).keys() == {"neatlogs.span.kind", "openinference.span.kind"}
    assert root(tags="a, b", sessionId="s") == {SESSION: "s", "neatlogs.tags": "a, b"}
    assert root(sessionId=" ") == {}
