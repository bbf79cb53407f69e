"""What was said to a model and by it: messages out of a span's attributes and events, whatever convention they follow.

Read are OpenInference (`llm.input_messages.0.message.content`, `input.value`), the GenAI conventions of OpenTelemetry
(`gen_ai.input.messages`, and events such as `gen_ai.user.message`) and their predecessors (`gen_ai.prompt.0.content`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from neatlogs_processor.page import shown
from neatlogs_processor.query.results import SpanDetail

_OPENINFERENCE: Final = re.compile(r"llm\.(input|output)_messages\.([0-9]{1,6})\.message\.(.+)")
_INDEXED: Final = re.compile(r"gen_ai\.(prompt|completion)\.([0-9]{1,6})\.(.+)")
# Longer ones are no places in a list, and Python refuses to read the longest.
_INDEX: Final = re.compile(r"[0-9]{1,6}")
_EVENT: Final = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_EVENT_CONTENT: Final = {"gen_ai.content.prompt": "gen_ai.prompt", "gen_ai.content.completion": "gen_ai.completion"}
_STRUCTURED: Final = (("gen_ai.system_instructions", "input"), ("gen_ai.input.messages", "input"))
MAX_MESSAGES: Final = 200
"""How many messages of one direction are shown."""


@dataclass(frozen=True)
class Message:
    """One message: who said it (`user`, `assistant`, `tool`, ...; may be empty), and what."""

    role: str
    text: str


@dataclass(frozen=True)
class Content:
    """What a span captured: what went in, and what came out; either may be empty."""

    input: tuple[Message, ...]
    output: tuple[Message, ...]


def content(span: SpanDetail) -> Content:
    """Return the messages of a span; of several conventions the most detailed one that it follows."""
    found = {"input": _messages(span, "input"), "output": _messages(span, "output")}
    for direction, messages in found.items():
        plain = span.attributes.get(f"{direction}.value")
        if not messages and plain not in (None, ""):
            found[direction] = [Message("", shown.pretty(shown.value(plain)))]
    return Content(tuple(found["input"][:MAX_MESSAGES]), tuple(found["output"][:MAX_MESSAGES]))


def _messages(span: SpanDetail, direction: str) -> list[Message]:
    attributes = span.attributes
    structured = [name for name, of in _STRUCTURED if of == direction] or ["gen_ai.output.messages"]
    messages = [message for name in structured for message in _structured(name, attributes.get(name))]
    if messages:
        return messages
    messages = _numbered(attributes, _OPENINFERENCE, direction)
    if messages:
        return messages
    messages = _numbered(attributes, _INDEXED, {"input": "prompt", "output": "completion"}[direction])
    return messages or _of_events(span, direction)


def _structured(name: str, found: Any) -> list[Message]:
    """Read messages as the GenAI conventions write them: a role and parts, as JSON text or as values."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return [Message("", found)] if found else []
    if not isinstance(found, list):
        return []
    if name == "gen_ai.system_instructions":
        return [Message("system", _parts(found))] if found else []
    return [
        Message(_text(one.get("role")), _parts(one.get("parts", one.get("content"))))
        for one in found
        if isinstance(one, dict)
    ]


def _parts(parts: Any) -> str:
    if not isinstance(parts, list):
        return _text(parts)
    return "\n".join(_part(part) for part in parts)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return _text(part)
    kind = part.get("type")
    if kind == "tool_call":
        return _call(part.get("name"), part.get("arguments"))
    if kind == "tool_call_response":
        return _text(part.get("response", part.get("result")))
    return _text(part.get("content", part.get("text", part)))


def _call(name: Any, arguments: Any) -> str:
    return f"→ {_text(name) or 'tool'}({_text(arguments)})"


def _numbered(attributes: Mapping[str, Any], pattern: re.Pattern[str], direction: str) -> list[Message]:
    """Read messages whose place and part stand in the names of attributes."""
    by_number: dict[int, dict[str, Any]] = {}
    for name, found in attributes.items():
        match = pattern.fullmatch(name)
        if match and match[1] == direction:
            by_number.setdefault(int(match[2]), {})[match[3]] = found
    return [_from_parts(by_number[place]) for place in sorted(by_number)]


def _from_parts(parts: Mapping[str, Any]) -> Message:
    texts = [_text(parts["content"])] if parts.get("content") not in (None, "") else []
    for name in sorted(parts, key=_natural):
        if name.startswith("contents.") and name.endswith(".text"):
            texts.append(_text(parts[name]))
        elif name.startswith("tool_calls.") and name.endswith(".name"):
            texts.append(_call(parts[name], parts.get(name.removesuffix("name") + "arguments", "")))
    return Message(_text(parts.get("role")), "\n".join(texts))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if _INDEX.fullmatch(part) else (-1, part) for part in name.split(".")]


def _of_events(span: SpanDetail, direction: str) -> list[Message]:
    messages = []
    for event in span.events:
        match = _EVENT.fullmatch(event.name)
        if event.name == "gen_ai.choice":
            said, role = "output", "assistant"
            text = _choice(event.attributes)
        elif match:
            said, role, text = "input", match[1], _text(event.attributes.get("content"))
        elif event.name in _EVENT_CONTENT:
            said = "input" if event.name.endswith("prompt") else "output"
            role, text = "", _text(event.attributes.get(_EVENT_CONTENT[event.name]))
        else:
            continue
        if said == direction and text:
            messages.append(Message(role, text))
    return messages


def _choice(attributes: Mapping[str, Any]) -> str:
    message = attributes.get("message", attributes.get("content"))
    if isinstance(message, str):
        try:
            message = json.loads(message)
        except (ValueError, RecursionError):
            return str(message)
    return _text(message.get("content", message)) if isinstance(message, dict) else _text(message)


def _text(found: Any) -> str:
    return "" if found is None else shown.value(found)


def preview(messages: tuple[Message, ...], chars: int = 400) -> str:
    """Return the last message on one line, cut; empty where there is none."""
    text = " ".join(messages[-1].text.split()) if messages else ""
    return text if len(text) <= chars else text[: chars - 1] + "…"
