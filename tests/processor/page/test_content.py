"""What was said to a model and by it, out of the spans of each convention."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neatlogs_processor.page.content import MAX_MESSAGES, Message, content, preview
from neatlogs_processor.query.results import EventDetail, SpanDetail


def span(attributes: dict[str, Any] | None = None, *events: tuple[str, dict[str, Any]]) -> SpanDetail:
    """Return a span with these attributes and events."""
    return SpanDetail(
        span_id="01" * 8,
        parent_id="",
        depth=0,
        name="chat",
        kind="llm",
        otel_kind="client",
        owns_identity=True,
        start=1,
        end=2,
        duration=1,
        status="unset",
        status_message="",
        tokens=0,
        service="chat-api",
        scope="",
        attributes=attributes or {},
        resource={},
        events=tuple(EventDetail(name, 1, more) for name, more in events),
        links=(),
        dropped=0,
    )


ASKED, ANSWERED = Message("user", "Where is it?"), Message("assistant", "On its way.")

CONVENTIONS: dict[str, SpanDetail] = {
    "OpenInference": span(
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "Where is it?",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "On its way.",
            "input.value": '{"messages": []}',
        }
    ),
    "OpenInference, several contents": span(
        {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.text": "Where is it?",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.contents.0.message_content.text": "On its way.",
        }
    ),
    "GenAI, messages as JSON": span(
        {
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": ASKED.text}]}]),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": "On its way."}]}]
            ),
        }
    ),
    "GenAI, messages as values": span(
        {
            "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}],
            "gen_ai.output.messages": [{"role": "assistant", "content": "On its way."}],
        }
    ),
    "GenAI, events": span(
        {},
        ("gen_ai.user.message", {"content": "Where is it?"}),
        ("gen_ai.choice", {"message": '{"role": "assistant", "content": "On its way."}'}),
    ),
    "numbered prompts": span(
        {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": "Where is it?",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "On its way.",
        }
    ),
}


@pytest.mark.parametrize("one", CONVENTIONS.values(), ids=CONVENTIONS)
def test_messages_are_read_whatever_the_convention(one: SpanDetail) -> None:
    """Each convention gives the same messages, and the whole request beside them is not shown once more."""
    found = content(one)
    assert found.input == (ASKED,)
    assert found.output == (ANSWERED,)


def test_plain_values_are_content_too() -> None:
    """`input.value` and `output.value` are what was said where there are no messages; JSON is set out in lines."""
    found = content(span({"input.value": '{"a":1}', "output.value": "done"}))
    assert found.input == (Message("", '{\n  "a": 1\n}'),)
    assert found.output == (Message("", "done"),)
    assert content(span()).input == content(span({"input.value": ""})).input == ()


def test_messages_stay_in_their_order() -> None:
    """Messages follow their numbers, not their spelling, and instructions come before them."""
    numbered = {f"llm.input_messages.{number}.message.content": str(number) for number in range(12)}
    assert [message.text for message in content(span(numbered)).input] == [str(number) for number in range(12)]
    told = {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be kind."}],
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hi."}]}],
    }
    assert content(span(told)).input == (Message("system", "Be kind."), Message("user", "Hi."))


def test_calls_of_tools_are_messages() -> None:
    """What a model wants to be called, and what came back, reads like a call."""
    called = {
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "find_order",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"number": 7}',
    }
    assert content(span(called)).output == (Message("assistant", '→ find_order({"number": 7})'),)
    parts = [
        {"role": "assistant", "parts": [{"type": "tool_call", "name": "find_order", "arguments": {"number": 7}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "found"}]},
    ]
    said = content(span({"gen_ai.input.messages": parts})).input
    assert said[0].text.startswith("→ find_order(")
    assert said[1] == Message("tool", "found")


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.input.messages": "no JSON"},
        {"gen_ai.input.messages": "[" * 100_000},
        {"gen_ai.input.messages": [1, None, "text", []]},
        {"gen_ai.input.messages": [{"role": None, "parts": None}]},
        {"gen_ai.input.messages": {"role": "user"}},
        {"llm.input_messages.x.message.content": "no number", "llm.input_messages.99999999.message.content": "far"},
        {"input.value": {"nested": ["a", 1, None]}},
        {f"gen_ai.prompt.{number}.content": "x" for number in range(3 * MAX_MESSAGES)},
    ],
    ids=["text", "deep", "other types", "nothing inside", "no list", "odd numbers", "a map", "many"],
)
def test_whatever_was_captured_can_be_shown(attributes: dict[str, Any]) -> None:
    """Content of any shape gives messages of text, and not more of them than anybody reads."""
    found = content(span(attributes))
    assert len(found.input) <= MAX_MESSAGES
    assert all(isinstance(message.text, str) for message in found.input)
    assert isinstance(preview(found.input), str)


def test_a_preview_is_one_line() -> None:
    """The last message stands for all, on one line and cut."""
    assert preview((ASKED, Message("user", "a\n\n  b"))) == "a b"
    assert preview((Message("", "x" * 500),)) == "x" * 399 + "…"
    assert preview(()) == ""
