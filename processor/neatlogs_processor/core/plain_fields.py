"""The fields of a plain trace, and what becomes of each: the table that people read, and the words that code needs.

A plain trace is what the published `neatlogs/browser` client sends to `POST /v1/trace`: one JSON object for the root
span, whose `children` are spans of the same form. `core/plain_trace.py` reads it. The table stands in the processor's
README and, for clients in other languages, in `tests/data/plain_trace_fields.json`; a test compares all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVERY, ROOT, RESOURCE = "every span", "root span", "resource"


@dataclass(frozen=True)
class PlainField:
    """One field.

    Attributes:
        name: Its name; a dot leads into an object, `[]` into each element of an array.
        on: Where it counts: `every span`, or on the root span alone; `resource` is the root's too.
        value: What it has to be; anything else is refused.
        attributes: The attributes that it becomes.
        meaning: What it means beyond that, or what it becomes that is no attribute.
        aliases: Other names of it. The first of them that is set counts.
    """

    name: str
    on: str
    value: str
    attributes: tuple[str, ...]
    meaning: str
    aliases: tuple[str, ...] = ()


FIELDS: Final = (
    PlainField("name", EVERY, "text, required", (), "The span's name; the root's is the workflow."),
    PlainField(
        "kind",
        EVERY,
        "text",
        ("neatlogs.span.kind", "openinference.span.kind"),
        "In lower case, and in capitals. Without it the other fields tell, see below.",
    ),
    PlainField("input", EVERY, "anything", ("input.value", "input.mime_type"), "Text as it is, anything else as JSON."),
    PlainField("output", EVERY, "anything", ("output.value", "output.mime_type"), "Likewise."),
    PlainField("model", EVERY, "text", ("gen_ai.request.model", "llm.model_name"), ""),
    PlainField("tokens.prompt", EVERY, "whole number", ("gen_ai.usage.input_tokens", "llm.token_count.prompt"), ""),
    PlainField(
        "tokens.completion", EVERY, "whole number", ("gen_ai.usage.output_tokens", "llm.token_count.completion"), ""
    ),
    PlainField("tokens.total", EVERY, "whole number", ("llm.token_count.total",), ""),
    PlainField(
        "query",
        EVERY,
        "anything",
        ("gen_ai.retrieval.query.text", "input.value", "input.mime_type"),
        "The last two where there is no `input`.",
    ),
    PlainField(
        "documents[]",
        EVERY,
        "text or object",
        (
            "retrieval.documents.N.document.content",
            "retrieval.documents.N.document.id",
            "retrieval.documents.N.document.score",
            "retrieval.documents.N.document.metadata",
        ),
        "Text is the content. Of an object: `content` (or `text`, `page_content`, `pageContent`), `id`, `score`, "
        "`metadata`; one without content is the content, as JSON; one with further members is the metadata too, unless "
        "it has some.",
    ),
    PlainField("tool_name", EVERY, "text", ("gen_ai.tool.name", "tool.name"), ""),
    PlainField("passed", EVERY, "true or false", ("gen_ai.evaluation.score.label",), "`pass` or `fail`."),
    PlainField("score", EVERY, "number", ("gen_ai.evaluation.score.value",), ""),
    PlainField("metadata", EVERY, "anything", ("metadata",), "As JSON."),
    PlainField(
        "status",
        EVERY,
        "text",
        ("neatlogs.status",),
        "The span's status: `ok` and `success` are OK; `error`, `fail`, `failed` and `failure` are ERROR; `unset` is "
        "none. Any other word is the attribute.",
    ),
    PlainField("error", EVERY, "anything", (), "The status is ERROR, and this is its message."),
    PlainField("start", EVERY, "time", (), "When the span began: ISO 8601 (UTC unless it says otherwise) or ms."),
    PlainField("end", EVERY, "time", (), "When it ended."),
    PlainField("duration_ms", EVERY, "number", (), "How long it took, where `start` or `end` is missing."),
    PlainField(
        "attributes",
        EVERY,
        "object",
        (),
        "Attributes by their own keys; they win over all other fields. Text, numbers, true, false and arrays of them "
        "stay what they are, objects become JSON.",
    ),
    PlainField("logs[].message", EVERY, "anything", ("message",), "An event `log` of the span."),
    PlainField("logs[].level", EVERY, "text", ("level",), "Of that event."),
    PlainField("logs[].timestamp", EVERY, "time", (), "The event's time; without it, the span's start."),
    PlainField("children[]", EVERY, "object", (), "A child span, with the fields of this table."),
    PlainField(
        "endUserId",
        ROOT,
        "text or whole number",
        ("neatlogs.end_user.id",),
        "The end user, unless `attributes` names one. On a child it is an ignored override, and counted.",
        ("endUser", "end_user_id"),
    ),
    PlainField(
        "endUserMetadata",
        ROOT,
        "object",
        ("neatlogs.end_user.metadata",),
        "As JSON. It goes with the id that it stands beside, never with another. On a child as above.",
        ("end_user_metadata",),
    ),
    PlainField("sessionId", ROOT, "text or whole number", ("neatlogs.session.id",), "", ("session_id",)),
    PlainField("tags", ROOT, "text or array of text", ("neatlogs.tags",), "With commas between them."),
    PlainField(
        "project",
        RESOURCE,
        "text",
        ("neatlogs.project", "service.name"),
        "Without it: `unknown_service`.",
    ),
)
"""Every field. Others are passed over."""

KINDS: Final = (
    (("tool_name",), "tool"),
    (("query", "documents"), "retriever"),
    (("model", "tokens"), "llm"),
    (("passed",), "guardrail"),
    (("score",), "evaluator"),
)
"""The kind of a span without `kind`, by the fields that it has; the first that fits."""

KIND_OF_ROOT, KIND_OF_CHILD = "workflow", "chain"
"""The kind of a span that has none of them."""

ERROR_WORDS: Final = frozenset({"error", "fail", "failed", "failure"})
OK_WORDS: Final = frozenset({"ok", "success"})
UNSET_WORDS: Final = frozenset({"", "unset"})
