"""Plain traces of any shape: a result that agrees with Python's own JSON reader, or one named error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.plain_fields import FIELDS
from neatlogs_processor.core.plain_trace import plain_trace_to_otlp
from neatlogs_processor.core.policy import EndUserPolicy, names_somebody
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError
from neatlogs_processor.store.rows import read_request
from support.json_mutations import mutate_json
from support.otlp_sink import attributes

NAMESPACE = "neatlogs.end_user"
ID = f"{NAMESPACE}.id"
NAMES = sorted({name.partition(".")[0].partition("[")[0] for one in FIELDS for name in (one.name, *one.aliases)})

texts = st.text(max_size=8) | st.sampled_from(["u_1", "2026-11-20T10:00:00Z", "error", ID])
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            texts | st.sampled_from([ID, f"{NAMESPACE}.metadata", "message", "content", "prompt"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
wild = st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=6)
# Traces that are taken: what must fit does, and the rest is anything.
claims = st.fixed_dictionaries(
    {},
    optional={
        "endUserId": scalars,
        "endUser": scalars,
        "endUserMetadata": st.dictionaries(texts, scalars, max_size=2),
        "attributes": st.dictionaries(
            st.sampled_from([ID, f"{NAMESPACE}.metadata", f"{NAMESPACE}.source", "other"]),
            st.none() | st.booleans() | st.integers(-9, 9) | texts,
            max_size=3,
        ),
        "input": values,
        "output": values,
        "metadata": values,
        "model": values,
        "query": values,
        "kind": texts,
        "error": values,
        "duration_ms": st.floats(0, 1e6),
        "start": st.integers(0, 9 * 10**12),
        "x": values,
    },
)
trees = st.recursive(
    claims.map(lambda fields: {"name": "span", **fields}),
    lambda inner: st.builds(
        lambda fields, children: {"name": "span", **fields, "children": children}, claims, st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)


def convert(text: bytes) -> list[Span]:
    """The spans of a text after the rule; what is taken can be enforced and stored."""
    trace = plain_trace_to_otlp(text, received=10**18, max_size=2**24)
    enforced = enforce_traces(trace.body, EndUserPolicy())
    stored = read_request(enforced.body, EndUserPolicy())
    assert [len(rows) for rows in stored.traces.values()] == [trace.spans]
    spans = list(ExportTraceServiceRequest.FromString(enforced.body).resource_spans[0].scope_spans[0].spans)
    assert len(spans) == len({span.span_id for span in spans}) == trace.spans
    assert [bool(span.parent_span_id) for span in spans] == [False] + [True] * (trace.spans - 1)
    for span in spans[1:]:
        assert not any(key.startswith(f"{NAMESPACE}.") for key in attributes(span))
    return spans


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of a document, in its order."""
    yield tree
    for child in tree.get("children") or ():
        yield from nodes(child)


def outcome(text: bytes) -> str:
    """What becomes of any text; that nothing else is ever raised is the point."""
    try:
        spans = convert(text)
    except (MalformedOtlpError, RequestTooLargeError):
        return "refused"
    # What is taken, Python's reader takes too.
    assert len(list(nodes(json.loads(text)))) == len(spans)
    return "taken"


@given(st.binary(max_size=200) | wild.map(lambda document: json.dumps(document).encode("utf-8", "surrogatepass")))
def test_anything_gives_a_result_or_one_named_error(text: bytes) -> None:
    """No text raises anything but the two errors that say what is wrong, and what is taken is stored in full."""
    outcome(text)


@given(trees)
def test_what_is_taken_is_what_python_reads(tree: dict[str, Any]) -> None:
    """Span by span, what went in, out and around it is what Python's JSON reader finds in the text."""
    try:
        text = json.dumps(tree, allow_nan=False).encode()
    except ValueError:
        # Not JSON: NaN and infinity.
        assert outcome(json.dumps(tree).encode()) == "refused"
        return
    given_nodes, spans = list(nodes(tree)), convert(text)
    for node, span in zip(given_nodes, spans, strict=True):
        found = attributes(span)
        for field, key in (("input", "input.value"), ("output", "output.value"), ("metadata", "metadata")):
            value = node.get(field)
            if field == "input" and value is None:
                value = node.get("query")
            if value is None:
                assert key not in found
            elif isinstance(value, str) and field != "metadata":
                assert found[key] == value
            else:
                assert json.loads(str(found[key])) == value
        assert span.start_time_unix_nano <= span.end_time_unix_nano


@given(trees)
def test_the_end_user_is_the_roots_alone(tree: dict[str, Any]) -> None:
    """The end user of a trace is one that its root names, and no id of a child is anywhere in it."""
    try:
        text = json.dumps(tree, allow_nan=False).encode()
    except ValueError:
        return
    found = attributes(convert(text)[0]).get(ID)
    named = [tree.get("endUserId"), tree.get("endUser"), (tree.get("attributes") or {}).get(ID)]
    of_use = {str(one) for one in named if isinstance(one, (str, int)) and not isinstance(one, bool)}
    assert found is None or not names_somebody(str(found)) or found in of_use
    if all(isinstance(one, str) and names_somebody(one) for one in named if one is not None) and any(
        one is not None for one in named
    ):
        assert found == next(one for one in (named[2], *named[:2]) if one is not None)


def test_mutations_of_a_trace_give_a_result_or_one_named_error() -> None:
    """Five thousand mutated texts, always the same ones, are taken or refused, and both happen."""
    seed = json.dumps(
        {
            "name": "chat",
            "endUserId": "u_1",
            "endUserMetadata": {"plan": "pro"},
            "tokens": {"prompt": 1},
            "attributes": {ID: "u_1", "a": [1, "b"]},
            "logs": [{"message": "m", "level": "info"}],
            "children": [
                {"name": "step", "documents": [{"content": "c", "score": 1}], "start": "2026-11-20T10:00:00Z"},
                {"name": "step", "attributes": {ID: "u_2"}, "children": [{"name": "deep", "input": {"a": [1, None]}}]},
            ],
        }
    ).encode()
    chance = Random(0)  # noqa: S311  # the same in each run
    outcomes = [outcome(mutate_json(seed, chance)) for _ in range(5_000)]
    assert {"taken", "refused"} == set(outcomes)
