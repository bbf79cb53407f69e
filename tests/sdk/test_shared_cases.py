"""The behaviour of the shim as data (`tests/data/shim_cases.json`), which the TypeScript package runs too."""

from __future__ import annotations

import contextvars
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Span, StatusCode

import neatlogs_otel as neatlogs
from neatlogs_otel import _warnings, conventions
from neatlogs_otel._context import Attached
from neatlogs_otel._identity import encode_session, end_user_from
from neatlogs_otel._process_default import ProcessDefault, set_process_default
from support.recording import Recording, remote_parent

CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "shim_cases.json").read_text(encoding="utf-8"))

by_about = {"ids": lambda case: case["about"]}


def value_of(written: Any) -> Any:
    """The value that the data file means."""
    if isinstance(written, list):
        return [value_of(item) for item in written]
    if not isinstance(written, dict):
        return written
    if "$" not in written:
        return {key: value_of(item) for key, item in written.items()}
    return special_value(written)


def special_value(written: Mapping[str, Any]) -> Any:
    """A value that JSON cannot hold."""
    match written["$"]:
        case "nan":
            return float("nan")
        case "integer":
            return int(value_of(written["digits"]))
        case "repeat":
            return written["text"] * written["times"]
        case "lone surrogate":
            return "\ud800"
        case "in itself":
            circle: dict[str, Any] = {}
            circle["self"] = circle
            return circle
        case "returns":
            return lambda: value_of(written["value"])
        case "throws":
            return lambda: 1 / 0
        case "later":
            return later(value_of(written["value"]))
    raise AssertionError(f"what is {written['$']}?")


def later(value: Any) -> Callable[[], Any]:
    async def asked() -> Any:
        return value

    return asked


@pytest.mark.parametrize("case", CASES["ids"], **by_about)
def test_id(case: dict[str, Any]) -> None:
    """Each id becomes the text that the data file says, or is refused."""
    if case.get("refused"):
        with pytest.raises(conventions.RefusedError):
            conventions.encode_id(value_of(case["value"]))
    else:
        assert conventions.encode_id(value_of(case["value"])) == value_of(case["text"])


@pytest.mark.parametrize("case", CASES["metadata"], **by_about)
def test_metadata(case: dict[str, Any]) -> None:
    """Metadata becomes the JSON that the data file says, to the byte, or is refused."""
    if case.get("refused"):
        with pytest.raises(conventions.RefusedError):
            conventions.encode_metadata(value_of(case["value"]))
        return
    text = conventions.encode_metadata(value_of(case["value"]))
    if "bytes" in case:
        assert text is not None
        assert len(text.encode()) == case["bytes"]
    else:
        assert text == case["json"]


@pytest.mark.parametrize("case", CASES["tags"], **by_about)
def test_tags(case: dict[str, Any]) -> None:
    """Tags become the text that the data file says, or are refused."""
    if case.get("refused"):
        with pytest.raises(conventions.RefusedError):
            conventions.encode_tags(value_of(case["value"]))
    else:
        assert conventions.encode_tags(value_of(case["value"])) == case["text"]


@pytest.mark.parametrize(("key", "inside"), CASES["identity_keys"])
def test_identity_key(key: str, inside: bool) -> None:
    """A key lies in the identity namespace where the data file says so."""
    assert conventions.is_identity_key(key) is inside


def identity_of(source: str) -> dict[str, Any]:
    return {"end_user_id": f"by-{source}", "end_user_metadata": {"from": source}}


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_ranks(present: tuple[bool, ...], record: Callable[..., Recording]) -> None:
    """Of any sources that name somebody, the first of the data file's ranks wins and brings its own metadata."""
    there = dict(zip(CASES["ranks"], present, strict=True))
    on_resource = {conventions.END_USER_ID: "by-resource", conventions.END_USER_METADATA: '{"from":"resource"}'}
    recorded = record(resource=Resource(on_resource if there["resource"] else {}))
    if there["init"]:
        set_default(identity_of("init"))
    with (
        neatlogs.identify(**(identity_of("identify") if there["identify"] else {})),
        neatlogs.trace("chat", **(identity_of("trace") if there["trace"] else {})),
    ):
        pass
    winner = next((source for source in CASES["ranks"] if there[source]), None)
    expected = (None, None, None) if winner is None else (f"by-{winner}", {"from": winner}, winner)
    assert recorded.identity("chat") == expected


def set_default(init: Mapping[str, Any]) -> None:
    set_process_default(
        ProcessDefault(
            end_user_from("init", init.get("end_user_id"), init.get("end_user_metadata"), place="init()"),
            encode_session(init.get("session_id"), place="init()"),
            bool(init.get("auto_session")),
        )
    )


class Stage:
    """Where a scenario is played."""

    def __init__(self, recorded: Recording) -> None:
        self.recorded = recorded
        self.spans: dict[str, Span] = {}
        self.contexts: dict[str, contextvars.Context] = {}

    def play(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            self.take(step)

    def take(self, step: dict[str, Any]) -> None:
        given = value_of({key: item for key, item in step.items() if key != "inside"})
        match next(iter(step)):
            case "trace":
                attributes = given.pop("attributes", {})
                with neatlogs.trace(given.pop("trace"), **given, **attributes):
                    self.inside(step)
            case "span":
                times = given.pop("times", 1)
                decorated = neatlogs.span(given.pop("span"), **given)(lambda: self.inside(step))
                for _ in range(times):
                    decorated()
            case "identify":
                with neatlogs.identify(**given["identify"]):
                    self.inside(step)
            case "open":
                self.open(given, step)
            case "remote":
                with Attached(self.remote(given)):
                    self.inside(step)
            case "within":
                self.contexts[given["within"]].copy().run(self.inside, step)
            case "set_end_user":
                assert neatlogs.set_end_user(*given["set_end_user"]) is given["returns"]
            case "current_end_user":
                self.expect_current(given["current_end_user"])
            case "set_attribute":
                name, key, value = given["set_attribute"]
                self.spans[name].set_attribute(key, value)
            case "end":
                self.spans[given["end"]].end()
            case "throw":
                raise ValueError(given["throw"])
            case unknown:
                raise AssertionError(f"what is {unknown}?")

    def inside(self, step: dict[str, Any]) -> None:
        self.play(step.get("inside", []))

    def open(self, given: dict[str, Any], step: dict[str, Any]) -> None:
        context = None
        if "remote" in given:
            context = self.remote(given)
        elif given.get("new_root"):
            context = trace_api.set_span_in_context(trace_api.INVALID_SPAN)
        name = given["open"]
        span = self.recorded.tracer.start_span(name, context=context, attributes=given.get("attributes"))
        self.spans[name] = span
        with trace_api.use_span(span, end_on_exit=False):
            self.contexts[name] = contextvars.copy_context()
            self.inside(step)
        if span.is_recording():
            span.end()

    def remote(self, given: dict[str, Any]) -> Any:
        trace_id, span_id = self.ids(given["remote"])
        parent = trace_api.get_current_span(remote_parent(trace_id, span_id, sampled=given.get("remote_sampled", True)))
        return trace_api.set_span_in_context(parent)

    def ids(self, written: str | list[int]) -> tuple[int, int]:
        if isinstance(written, str):
            context = self.spans[written].get_span_context()
            return context.trace_id, context.span_id
        return written[0], written[1]

    def expect_current(self, expected: dict[str, Any] | None) -> None:
        current = neatlogs.current_end_user()
        if expected is None:
            assert current is None
            return
        assert current is not None
        assert (current.id, current.metadata, current.source) == (
            expected["id"],
            expected.get("metadata", {}),
            expected["source"],
        )


def said_of(recorded: Recording, name: str) -> dict[str, Any]:
    """What a span says in the data file's words."""
    span = recorded.named(name)
    end_user_id, metadata, source = recorded.identity(name)
    said = {
        "id": end_user_id,
        "metadata": metadata,
        "source": source,
        "session": recorded.session_of(name),
        "tags": (span.attributes or {}).get(conventions.TAGS),
        "error": True if span.status.status_code is StatusCode.ERROR else None,
    }
    return {key: value for key, value in said.items() if value is not None}


@pytest.mark.parametrize("case", CASES["scenarios"], ids=lambda case: case["name"])
def test_scenario(case: dict[str, Any], record: Callable[..., Recording], said: Any) -> None:
    """A scenario ends with the spans and the warnings that the data file says."""
    recorded = record(
        roots=case.get("roots", "trace"),
        ours=case.get("span_processor", True),
        sampler=None if case.get("sampled", True) else ALWAYS_OFF,
        limits=SpanLimits(max_span_attribute_length=case["value_length_limit"])
        if "value_length_limit" in case
        else None,
        resource=Resource(case["resource"]) if "resource" in case else None,
    )
    set_default(value_of(case.get("init", {})))
    stage = Stage(recorded)
    if "throws" in case:
        with pytest.raises(ValueError, match=case["throws"]):
            stage.play(case["steps"])
    else:
        stage.play(case["steps"])
    assert {name: said_of(recorded, name) for name in case["spans"]} == case["spans"]
    assert _warnings.counts() == case.get("warnings", {})
    assert len(said.messages) == case.get("lines", sum(case.get("warnings", {}).values()))
    if not case.get("sampled", True):
        assert recorded.spans == ()
