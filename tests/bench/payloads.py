"""Trace requests as applications send them: LLM spans of about 2.6 KB, service spans of about 300 bytes."""

from __future__ import annotations

import json
import random
from typing import Final, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

Kind = Literal["llm", "service"]
Identity = Literal["nowhere", "roots", "eighth", "every"]

KINDS: Final[tuple[Kind, ...]] = ("llm", "service")
IDENTITIES: Final[tuple[Identity, ...]] = ("nowhere", "roots", "eighth", "every")
SPANS_A_TRACE: Final = 8

_SENTENCE: Final = (
    "the model answers with a short plan and asks whether the invoice of March was paid by card or by transfer while "
    "customer support looks for similar tickets in which a refund took longer than five working days because the "
    "bank needed another document and the agent forgot to attach it to the message that it sent last week"
)
_WORDS: Final = tuple(_SENTENCE.split())


def request(kind: Kind, spans: int, identity: Identity, *, seed: int = 7) -> bytes:
    """A serialised trace request.

    Args:
        kind: LLM spans carry prompts, as OpenInference writes them, below the span of a workflow; service spans carry
            what HTTP clients write.
        spans: How many. Every eighth is a root.
        identity: Which spans carry id, metadata and source: none, the roots, the roots and one child in eight, or all.
    """
    chance = random.Random(seed)  # noqa: S311  # payloads are to be the same in every run, not secret
    make = _llm_attributes if kind == "llm" else _service_attributes
    out = []
    trace_id = parent = b""
    for number in range(spans):
        is_root = number % SPANS_A_TRACE == 0
        span_id = chance.randbytes(8)
        if is_root:
            trace_id, parent = chance.randbytes(16), span_id
        attributes = _workflow_attributes(chance) if kind == "llm" and is_root else make(chance)
        has_identity = {
            "nowhere": False,
            "roots": is_root,
            # The second child of each trace: one child in seven, one span in eight.
            "eighth": is_root or number % SPANS_A_TRACE == 2,
            "every": True,
        }[identity]
        if has_identity:
            attributes += _identity(chance)
        start = 1_780_000_000_000_000_000 + number * 1_000_000
        out.append(
            Span(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=b"" if is_root else parent,
                flags=0x101,
                name="POST /chat" if is_root else "ChatCompletion",
                kind=Span.SPAN_KIND_SERVER if is_root else Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=start,
                end_time_unix_nano=start + 900_000_000,
                attributes=attributes,
                status={"code": 1},
            )
        )
    resource = Resource(
        attributes=[
            _string("service.name", "chat-backend"),
            _string("telemetry.sdk.language", "python"),
            _string("telemetry.sdk.name", "opentelemetry"),
            _string("neatlogs.workflow_name", "support-chat"),
        ]
    )
    scope = ScopeSpans(scope={"name": "openinference.instrumentation.openai", "version": "0.1.66"}, spans=out)
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[scope])]
    ).SerializeToString()


def said_by_an_sdk(body: bytes, where: Literal["roots", "children", "every"]) -> bytes:
    """The request with user, session and metadata on these spans, under the keys of OpenInference."""
    message = ExportTraceServiceRequest.FromString(body)
    for resource_spans in message.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                if where == "every" or bool(span.parent_span_id) == (where == "children"):
                    span.attributes.extend(
                        (
                            _string("user.id", "u_812"),
                            _string("session.id", "s_1"),
                            _string("metadata", '{"plan":"pro","region":"eu"}'),
                        )
                    )
    return message.SerializeToString()


def shaped(spans: int, *, attributes: int, value_bytes: int, hits: int, seed: int = 7) -> bytes:
    """A serialised trace request of a given shape, for pictures of how cost grows.

    Args:
        spans: How many. Every eighth is a root with identity.
        attributes: A span, besides identity.
        value_bytes: An attribute's value.
        hits: How many of the children carry identity, evenly spread.
    """
    chance = random.Random(seed)  # noqa: S311  # as above
    children = spans - -(-spans // SPANS_A_TRACE)
    given = seen = 0
    out = []
    parent = b""
    for number in range(spans):
        is_root = number % SPANS_A_TRACE == 0
        span_id = chance.randbytes(8)
        if is_root:
            parent, has_identity = span_id, True
        else:
            seen += 1
            has_identity = given < min(hits, children) * seen // children
            given += has_identity
        out.append(
            Span(
                trace_id=chance.randbytes(16),
                span_id=span_id,
                parent_span_id=b"" if is_root else parent,
                name="ChatCompletion",
                start_time_unix_nano=1_780_000_000_000_000_000,
                end_time_unix_nano=1_780_000_000_900_000_000,
                attributes=[
                    *(
                        _string(f"llm.attribute.{at}", _text(chance, 1 + value_bytes // 5)[:value_bytes])
                        for at in range(attributes)
                    ),
                    *(_identity(chance) if has_identity else ()),
                ],
            )
        )
    scope = ScopeSpans(scope={"name": "bench"}, spans=out)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope])]).SerializeToString()


def _identity(chance: random.Random) -> list[KeyValue]:
    return [
        _string("neatlogs.end_user.id", f"u_{chance.randrange(10_000)}"),
        _string("neatlogs.end_user.metadata", '{"plan":"pro","region":"eu"}'),
        _string("neatlogs.end_user.source", "trace"),
    ]


def _string(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))


def _int(key: str, number: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=number))


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _llm_attributes(chance: random.Random) -> list[KeyValue]:
    system, user, answer = _text(chance, 40), _text(chance, 60), _text(chance, 70)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return [
        _string("openinference.span.kind", "LLM"),
        _string("llm.system", "openai"),
        _string("llm.provider", "openai"),
        _string("llm.model_name", "gpt-4o-2024-08-06"),
        _string("llm.invocation_parameters", '{"model":"gpt-4o","temperature":0.2,"max_tokens":512}'),
        _string("input.mime_type", "application/json"),
        _string("input.value", json.dumps({"messages": messages, "model": "gpt-4o"})),
        _string("llm.input_messages.0.message.role", "system"),
        _string("llm.input_messages.0.message.content", system),
        _string("llm.input_messages.1.message.role", "user"),
        _string("llm.input_messages.1.message.content", user),
        _string("output.mime_type", "text/plain"),
        _string("output.value", answer),
        _string("llm.output_messages.0.message.role", "assistant"),
        _int("llm.token_count.prompt", chance.randrange(2_000)),
        _int("llm.token_count.completion", chance.randrange(600)),
        _int("llm.token_count.total", chance.randrange(2_600)),
        _int("llm.token_count.prompt_details.cache_read", 0),
        _string("gen_ai.operation.name", "chat"),
        _string("server.address", "api.example.com"),
    ]


def _workflow_attributes(chance: random.Random) -> list[KeyValue]:
    return [
        _string("openinference.span.kind", "CHAIN"),
        _string("input.value", _text(chance, 220)),
        _string("input.mime_type", "text/plain"),
        _string("output.value", _text(chance, 160)),
        _string("output.mime_type", "text/plain"),
        _string("http.route", "/chat"),
    ]


def _service_attributes(chance: random.Random) -> list[KeyValue]:
    return [
        _string("http.request.method", "GET"),
        _string("http.route", "/tickets/{id}"),
        _int("http.response.status_code", 200),
        _string("url.path", f"/tickets/{chance.randrange(100_000)}"),
        _string("server.address", "tickets.internal"),
        _int("server.port", 8080),
    ]
