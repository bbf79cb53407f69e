"""Plain traces: what becomes of each field, whose identity counts, when spans began, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.answers_json import plain_trace_answer, plain_trace_refusal
from neatlogs_processor.core.plain_attributes import MAX_ARRAY_BYTES, MAX_PIECES
from neatlogs_processor.core.plain_fields import FIELDS
from neatlogs_processor.core.plain_json import MAX_MEMBERS
from neatlogs_processor.core.plain_trace import MAX_SPANS, PlainTrace, plain_trace_to_otlp
from neatlogs_processor.core.policy import Counts, EndUserPolicy, Place
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError
from support import plain_trace_table
from support.otlp_sink import attributes

ID, METADATA, SESSION = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.session.id"
NOON = 1_795_000_000_000_000_000
"""When every trace of these tests arrives."""
MS = 1_000_000


def convert(document: Any, **limits: int) -> PlainTrace:
    """A document as OTLP, before the rule."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return plain_trace_to_otlp(text, received=NOON, **{"max_size": 2**26, **limits})


def request(document: Any) -> ExportTraceServiceRequest:
    """The request that a document becomes, before the rule."""
    return ExportTraceServiceRequest.FromString(convert(document).body)


def spans(document: Any) -> list[Span]:
    """The spans that a document becomes, before the rule, in its order."""
    return list(request(document).resource_spans[0].scope_spans[0].spans)


def root(**fields: Any) -> dict[str, object]:
    """The attributes of a root span with these fields, without its kind."""
    found = attributes(spans({"name": "chat", **fields})[0])
    return {key: value for key, value in found.items() if not key.endswith("span.kind")}


def enforced(document: Any) -> tuple[list[Span], Counts]:
    """The spans after the rule, and what it found."""
    after = enforce_traces(convert(document).body, EndUserPolicy())
    request = ExportTraceServiceRequest.FromString(after.body)
    return list(request.resource_spans[0].scope_spans[0].spans), after.counts


def refused(document: Any, **limits: int) -> str:
    """Why a document is refused."""
    with pytest.raises(MalformedOtlpError) as caught:
        convert(document, **limits)
    return str(caught.value)


# The table.

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


# Identity.

FORMS = {
    "fields": {"endUserId": "u_1", "endUserMetadata": {"plan": "pro"}},
    "documented fields": {"endUser": "u_1", "endUserMetadata": {"plan": "pro"}},
    "snake case": {"end_user_id": "u_1", "end_user_metadata": {"plan": "pro"}},
    "npm 1.1.15": {"attributes": {ID: "u_1", METADATA: '{"plan": "pro"}'}},
    "attributes, metadata as an object": {"attributes": {ID: "u_1", METADATA: {"plan": "pro"}}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_root_names_the_end_user(form: dict[str, Any]) -> None:
    """Whatever form the root's identity comes in, it arrives as the same two attributes."""
    (span,), counts = enforced({"name": "a", **form})
    found = attributes(span)
    assert (found[ID], found[METADATA]) == ("u_1", '{"plan": "pro"}')
    assert (counts.roots, counts.roots_with_identity, counts.overrides_total, counts.invalid) == (1, 1, 0, 0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_childs_claim_is_ignored_and_counted(form: dict[str, Any]) -> None:
    """What a child says of an end user is removed and counted in every form, at every depth."""
    inner = {"name": "c", **form}
    document = {"name": "a", "endUserId": "u_root", "children": [{"name": "b", **form, "children": [inner]}]}
    found, counts = enforced(document)
    assert [attributes(span).get(ID) for span in found] == ["u_root", None, None]
    assert not any(key.startswith("neatlogs.end_user") for span in found[1:] for key in attributes(span))
    assert counts.overrides[Place.CHILD] == 4


def test_both_forms_on_one_child_are_two_overrides() -> None:
    """Each claim is counted, even of the same key, and even one of no use."""
    claim = {"endUserId": True, "endUser": "u_1", "attributes": {ID: "u_2", "neatlogs.end_user": {}, "other": 1}}
    found, counts = enforced({"name": "a", "children": [{"name": "b", **claim}]})
    assert counts.overrides[Place.CHILD] == 4
    assert attributes(found[1])["other"] == 1


@pytest.mark.parametrize(
    ("fields", "end_user", "metadata"),
    [
        # The attributes' own id keeps its own metadata.
        ({"endUserId": "f", "endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", None),
        ({"endUserId": "f", "attributes": {ID: "a", METADATA: '{"of":"a"}'}}, "a", '{"of":"a"}'),
        # The same person in both forms.
        ({"endUserId": "a", "endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", '{"of": "f"}'),
        # No id in the attributes: the fields' id comes with the fields' metadata.
        (
            {"endUserId": "f", "endUserMetadata": {"of": "f"}, "attributes": {METADATA: '{"of":"a"}'}},
            "f",
            '{"of": "f"}',
        ),
        # Metadata alone is lent to the id.
        ({"endUserId": "f", "attributes": {METADATA: '{"of":"a"}'}}, "f", '{"of":"a"}'),
        ({"endUserMetadata": {"of": "f"}, "attributes": {ID: "a"}}, "a", '{"of": "f"}'),
        # Blank and null ids are none.
        ({"endUserId": "f", "attributes": {ID: " "}}, "f", None),
        ({"endUserId": " ", "endUser": "f"}, "f", None),
        ({"endUserId": None, "attributes": {ID: None, METADATA: None}}, None, None),
        ({"endUserMetadata": {"of": "f"}}, None, '{"of": "f"}'),
        # Whole numbers are ids.
        ({"endUserId": 42}, "42", None),
        ({"attributes": {ID: 42}}, "42", None),
    ],
    ids=str,
)
def test_id_and_metadata_are_one_unit(fields: dict[str, Any], end_user: str | None, metadata: str | None) -> None:
    """One user's id never meets another's metadata, in whichever forms the two are sent."""
    (span,), counts = enforced({"name": "a", **fields})
    found = attributes(span)
    assert (found.get(ID), found.get(METADATA)) == (end_user, metadata)
    assert counts.invalid == 0


@pytest.mark.parametrize("bad", [True, 1.5, {"id": "u_1"}, ["u_1"], 2**70], ids=str)
def test_an_id_of_no_use_is_nobody_and_counted(bad: Any) -> None:
    """An id that is neither text nor a whole number is removed and counted, and nobody else's takes its place."""
    for fields in ({"endUserId": bad, "endUser": "u_2"}, {"attributes": {ID: bad}, "endUserId": "u_2"}):
        (span,), counts = enforced({"name": "a", **fields})
        assert ID not in attributes(span)
        assert (counts.roots_with_identity, counts.invalid) == (0, 1)


@pytest.mark.parametrize("bad", [True, 7, ["a", {"b": 1}]], ids=str)
def test_metadata_of_no_use_is_removed_and_the_id_stays(bad: Any) -> None:
    """Metadata that is no object is removed and counted."""
    for fields in ({"endUserMetadata": bad}, {"attributes": {METADATA: bad}}):
        (span,), counts = enforced({"name": "a", "endUserId": "u_1", **fields})
        assert (attributes(span).get(ID), METADATA in attributes(span), counts.invalid) == ("u_1", False, 1)


def test_a_source_in_the_attributes_stays() -> None:
    """Other attributes of the identity namespace pass on the root as everybody's do."""
    (span,), _ = enforced({"name": "a", "endUserId": "u_1", "attributes": {"neatlogs.end_user.source": "init"}})
    assert attributes(span)["neatlogs.end_user.source"] == "init"


def test_the_operator_is_never_an_end_user() -> None:
    """Fields that name an operator elsewhere are passed over."""
    assert root(userId="op", user_id="op", user="op") == {}


# Ids and hierarchy.


def test_nesting_is_the_hierarchy() -> None:
    """Each child's parent is the span around it, all in one trace, each with an id of its own."""
    tree = {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}, {"name": "d"}]}
    found = {span.name: span for span in spans(tree)}
    assert list(found) == ["a", "b", "c", "d"]
    parents = {"a": b"", "b": found["a"].span_id, "c": found["b"].span_id, "d": found["a"].span_id}
    assert {name: span.parent_span_id for name, span in found.items()} == parents
    assert {(len(span.trace_id), span.trace_id.hex()) for span in found.values()} == {(16, convert(tree).trace_id)}
    assert len({span.span_id for span in found.values()}) == 4
    assert {len(span.span_id) for span in found.values()} == {8}


def test_the_same_body_is_the_same_trace() -> None:
    """Ids are made from the body: sent again it is the same trace, and any other body is another."""
    one, again = (
        convert({"name": "a", "children": [{"name": "b"}]}),
        convert({"name": "a", "children": [{"name": "b"}]}),
    )
    assert one == again
    assert one.spans == 2
    assert convert({"name": "a", "children": [{"name": "c"}]}).trace_id != one.trace_id
    later = plain_trace_to_otlp(b'{"name":"a"}', received=NOON + 1, max_size=1000)
    assert later.trace_id == convert(b'{"name":"a"}').trace_id


# Times.


def milliseconds(document: Any) -> list[tuple[float, float]]:
    """Start and end of each span in milliseconds before the trace arrived."""
    return [((s.start_time_unix_nano - NOON) / MS, (s.end_time_unix_nano - NOON) / MS) for s in spans(document)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0, 0)),
        ({"duration_ms": 12.5}, (-12.5, 0)),
        ({"start": NOON // MS - 100}, (-100, -100)),
        ({"start": NOON // MS - 100, "duration_ms": 30}, (-100, -70)),
        ({"start": NOON // MS - 100, "end": NOON // MS - 50, "duration_ms": 1}, (-100, -50)),
        ({"end": NOON // MS - 50, "duration_ms": 10}, (-60, -50)),
        ({"end": NOON // MS - 50}, (-50, -50)),
        # Clocks are set back: what was said stays.
        ({"start": NOON // MS, "end": NOON // MS - 50}, (0, -50)),
    ],
    ids=str,
)
def test_the_times_of_a_root(fields: dict[str, Any], expected: tuple[float, float]) -> None:
    """What a root says of its times holds; what it does not say follows, and without anything it ends on arrival."""
    assert milliseconds({"name": "a", **fields}) == [expected]


def test_children_follow_one_another() -> None:
    """Steps that say only how long they took lie one after the other, and the root lasts as long as all of them."""
    tree = {
        "name": "a",
        "children": [
            {"name": "b", "duration_ms": 10},
            {"name": "c", "children": [{"name": "d", "duration_ms": 20}, {"name": "e", "duration_ms": 5}]},
        ],
    }
    assert milliseconds(tree) == [(-35, 0), (-35, -25), (-25, 0), (-25, -5), (-5, 0)]


def test_children_that_say_when_they_were_are_inside_their_parent() -> None:
    """A parent that says nothing lasts from the first start to the last end of its children."""
    tree = {
        "name": "a",
        "children": [
            {"name": "b", "start": NOON // MS - 100, "end": NOON // MS - 90},
            {"name": "c", "start": NOON // MS - 80, "duration_ms": 30},
            {"name": "d", "duration_ms": 7},
        ],
    }
    assert milliseconds(tree) == [(-100, -50), (-100, -90), (-80, -50), (-50, -43)]
    assert milliseconds({**tree, "start": NOON // MS - 120})[0] == (-120, -50)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-20T10:00:00.123Z", 1_795_168_800_123_000_000),
        ("2026-11-20T10:00:00.123456789123Z", 1_795_168_800_123_456_789),
        ("2026-11-20 10:00", 1_795_168_800_000_000_000),
        ("2026-11-20T12:30:00+02:30", 1_795_168_800_000_000_000),
        ("2026-11-20T05:00:00-0500", 1_795_168_800_000_000_000),
        (1_795_168_800_123.5, 1_795_168_800_123_500_000),
        (0, 0),
    ],
)
def test_a_time_is_iso_8601_or_milliseconds(text: Any, nanoseconds: int) -> None:
    """Times are read to the nanosecond; without an offset they are UTC."""
    assert spans({"name": "a", "start": text})[0].start_time_unix_nano == nanoseconds


def test_a_time_never_leaves_its_range() -> None:
    """Durations that reach beyond what can be written end there, at both ends."""
    century = 100 * 365 * 86_400_000
    (early,) = spans({"name": "a", "end": 5, "duration_ms": century})
    assert (early.start_time_unix_nano, early.end_time_unix_nano) == (0, 5 * MS)
    late = spans({"name": "a", "start": "2262-01-01T00:00:00Z", "duration_ms": century})[0]
    assert late.end_time_unix_nano == 2**63 - 1


# Refusals.


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the trace: an object is expected"),
        ("trace", "the trace: an object is expected"),
        ({}, "name: the span's name is expected"),
        ({"name": None}, "name: the span's name is expected"),
        ({"name": "a", "children": [{"name": "b"}, {}]}, "children[1].name: the span's name is expected"),
        ({"name": "a", "children": [{"name": "b", "children": [7]}]}, "children[0].children[0]: an object is expected"),
        ({"name": "a", "children": {"name": "b"}}, "children: an array is expected"),
        ({"name": "a", "attributes": []}, "attributes: an object is expected"),
        ({"name": "a", "tokens": 7}, "tokens: an object is expected"),
        ({"name": "a", "tokens": {"prompt": "7"}}, "tokens.prompt: a number is expected"),
        ({"name": "a", "tokens": {"prompt": -1}}, "tokens.prompt: a whole number, not below zero, is expected"),
        ({"name": "a", "tokens": {"total": 1.5}}, "tokens.total: a whole number, not below zero, is expected"),
        ({"name": "a", "tokens": {"total": 2**63}}, "tokens.total: a whole number, not below zero, is expected"),
        ({"name": "a", "passed": "yes"}, "passed: true or false is expected"),
        ({"name": "a", "score": "high"}, "score: a number is expected"),
        ({"name": "a", "documents": {}}, "documents: an array is expected"),
        ({"name": "a", "documents": ["a", {"score": "1"}]}, "documents[1].score: a number is expected"),
        ({"name": "a", "logs": "x"}, "logs: an array is expected"),
        ({"name": "a", "logs": [{}, "x"]}, "logs[1]: an object is expected"),
        ({"name": "a", "duration_ms": -1}, "duration_ms: a number of milliseconds, not below zero, is expected"),
        ({"name": "a", "sessionId": True}, "sessionId: text or a whole number is expected"),
        ({"name": "a", "sessionId": 1.5}, "sessionId: text or a whole number is expected"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_its_place(document: Any, message: str) -> None:
    """A field that holds what it must not refuses the whole trace, and the message says which field and what fits."""
    assert refused(document) == message


@pytest.mark.parametrize(
    "time",
    ["soon", "2026-11-20", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", True, -1, 1e30],
)
@pytest.mark.parametrize("field", ["start", "end", "logs"])
def test_what_is_no_time_is_refused(field: str, time: Any) -> None:
    """A time that cannot be read or written is refused with its place."""
    value = [{"timestamp": time}] if field == "logs" else time
    place = "logs[0].timestamp" if field == "logs" else field
    assert refused({"name": "a", "children": [{"name": "b", field: value}]}).startswith(f"children[0].{place}: a ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"{",
        b'{"name":"a"',
        b'{"name":"a",}',
        b'{"name":"a"}{}',
        b'{"name":"a"} x',
        b"{'name':'a'}",
        b'{"name":"a","input":NaN}',
        b'{"name":"a","score":Infinity}',
        b'{"name":"a","score":01}',
        b'{"name":"a","input":"\x00"}',
        b'{"name":"\xff"}',
        b'{"name":"a","children":[{"name":"b"} {"name":"c"}]}',
        b'{"name":"a","children":[{"name":"b"},]}',
        b"\xfe\xff\x00{\x00}",
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """Text that no JSON reader takes is refused, and nothing of it is repeated."""
    assert refused(text)


def test_a_byte_order_mark_is_passed_over() -> None:
    """What editors put at the beginning of a text does no harm."""
    assert convert(b'\xef\xbb\xbf {"name":"a","children":[]} \n').spans == 1


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":"a","name":"b"}',
        b'{"name":"a","n\\u0061me":"b"}',
        b'{"name":"a","x":1,"x":1}',
        b'{"name":"a","children":[],"children":[]}',
        b'{"name":"a","attributes":{"neatlogs.end_user.id":"u_1","neatlogs\\u002eend_user.id":"u_2"}}',
        b'{"name":"a","input":{"a":{"b":1,"b":2}}}',
        b'{"name":"a","children":[{"name":"b","endUserId":"u_1","endUserId":"u_2"}]}',
    ],
    ids=repr,
)
def test_a_member_named_twice_is_refused(text: bytes) -> None:
    """Readers disagree about what two members of one name mean, however the name is written."""
    assert refused(text) == "an object names a member twice"


def test_numbers_that_no_double_holds_are_refused() -> None:
    """A number beyond a double, or of more digits than any number needs, is refused where it would be a number."""
    for number in (b"1e999", b"-1e999", b"9" * 2000):
        for template in (b'{"attributes":{"a":%s}}', b'{"attributes":{"a":[%s]}}', b'{"score":%s}', b'{"start":%s}'):
            assert "a number" in refused((template % number).replace(b"{", b'{"name":"a",', 1))
        (span,) = spans(b'{"name":"a","input":%s}' % number)
        assert attributes(span)["input.value"] == number.decode()
    for harmless in (b"0e99999999999999999999", b"1e-99999999999999999999", b"-0.0"):
        assert spans(b'{"name":"a","start":%s}' % harmless)[0].start_time_unix_nano == 0


def test_depth_is_bounded() -> None:
    """Spans and what they hold may nest as deeply as JSON may, and no deeper, however deep the text is."""

    def nested(levels: int) -> bytes:
        return b'{"name":"a","children":[' * levels + b'{"name":"a"}' + b"]}" * levels

    assert convert(nested(63)).spans == 64
    for text in (
        nested(64),
        nested(100_000),
        b'{"name":"a","children":[' * 100_000,
        b'{"name":"a","input":' + b"[" * 1_000_000,
        b'{"name":"a","x":' + b'{"x":' * 1_000_000,
        b"[" * 1_000_000,
    ):
        assert "--max-json-depth" in refused(text)
    assert "--max-json-depth" in refused({"name": "a", "children": []}, max_depth=1)
    assert "--max-json-depth" in refused({"name": "a", "children": [{"name": "b"}]}, max_depth=2)
    assert "--max-json-depth" in refused({"name": "a"}, max_depth=0)


def test_the_number_of_spans_is_bounded() -> None:
    """A trace has so many spans and no more."""
    children = [{"name": "b"}] * MAX_SPANS
    assert convert({"name": "a", "children": children[1:]}).spans == MAX_SPANS
    with pytest.raises(RequestTooLargeError, match=r"at most 10,000 spans"):
        convert({"name": "a", "children": children})


def test_the_members_of_an_object_are_bounded() -> None:
    """An object may have far more members than people write, wherever it stands, and no more."""
    most = {f"k{number}": 0 for number in range(MAX_MEMBERS)}
    for field in ("input", "attributes", "x"):
        assert convert({"name": "a", field: most}).spans == 1
        assert "members" in refused({"name": "a", field: {**most, "more": 0}})


@pytest.mark.parametrize(
    "field",
    [
        {"name": "n" * 1000},
        {"documents": [0] * 100},
        {"attributes": {"a": [0] * 300}},
        {"attributes": {f"k{number}": 0 for number in range(100)}},
        {"logs": [{}] * 100},
        {"error": "e" * 1000},
        {"input": "i" * 1000},
    ],
    ids=lambda field: str(field)[:30],
)
def test_what_comes_out_is_bounded(field: dict[str, Any]) -> None:
    """Small JSON can be large as attributes; the limit holds for both."""
    with pytest.raises(RequestTooLargeError, match="--max-message-size"):
        convert({"name": "a", **field}, max_size=1000)
    convert({"name": "a"}, max_size=1000)


@pytest.mark.parametrize(
    "fields",
    [
        {"documents": [0] * MAX_PIECES},
        {"logs": [{}] * MAX_PIECES},
        {"children": [{"name": "b", "attributes": {"a": [0] * 20_000}}] * 13},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_number_of_small_things_is_bounded(fields: dict[str, Any]) -> None:
    """Attributes, elements and events cost more than their text: a trace has so many and no more."""
    with pytest.raises(RequestTooLargeError, match=r"at most 250,000"):
        convert({"name": "a", **fields})


def test_a_long_array_is_json() -> None:
    """An array attribute that is too long to look into is kept as the text that it is."""
    long = [0] * MAX_ARRAY_BYTES
    assert root(attributes={"a": long})["a"] == json.dumps(long)


# Answers.


def test_the_answer_names_the_trace_and_its_spans() -> None:
    """The answer holds the trace's id and how many spans were taken; a remark of the destination travels on."""

    def answer(**partial: Any) -> Any:
        response = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(**partial))
        return json.loads(plain_trace_answer("ab", 3, response.SerializeToString()))

    assert answer() == {"ok": True, "trace_id": "ab", "spans": 3}
    assert answer(error_message="mind") == {"ok": True, "trace_id": "ab", "spans": 3, "warning": "mind"}
    assert answer(rejected_spans=2, error_message="no") == {"ok": False, "trace_id": "ab", "spans": 1, "error": "no"}
    assert answer(rejected_spans=9) == {"ok": False, "trace_id": "ab", "spans": 0}
    assert json.loads(plain_trace_answer("ab", 3, b"\xff")) == {"ok": True, "trace_id": "ab", "spans": 3}


def test_a_refusal_says_why() -> None:
    """What the published client shows of a refusal is a sentence."""
    assert plain_trace_refusal("because") == b'{"ok":false,"error":"because"}'
