"""Blocks: serialised spans of one trace that arrived in one request, compressed together.

A block is one byte that names the format, then a zlib stream of the length-delimited spans, which ends with a checksum.
Small spans are mostly attribute keys, so the stream starts from a dictionary of those; a dictionary is part of a format
for ever.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

MAX_BLOCK_BYTES: Final = 256 * 1024
"""Spans of a trace and request beyond this go into another block, so that no block is expensive to open."""

_FORMAT: Final = 1
# The fastest levels lose a tenth of the size; the default takes twice the time.
_LEVEL: Final = 4
_SPANS: Final = b"\x12"  # field 2 of ScopeSpans, length-delimited

# What is expected most often stands last, where references to it are shortest.
_DICTIONARY: Final = " ".join(
    (
        "exception exception.type exception.message exception.stacktrace exception.escaped Traceback (most recent call",
        "messaging.system messaging.destination.name messaging.operation rpc.system grpc rpc.service rpc.method",
        "db.system db.system.name postgresql db.name db.namespace db.statement db.query.text SELECT FROM WHERE",
        "db.operation.name db.collection.name net.peer.name net.peer.port network.protocol.version 1.1",
        "network.peer.address 127.0.0.1 network.peer.port client.address user_agent.original Mozilla/5.0",
        "http.method http.url http.status_code http.scheme http.target http.host http.flavor url.full https://",
        "url.scheme http url.path url.query http.request.method GET POST http.route http.response.status_code",
        "server.address server.port code.function code.filepath code.lineno thread.id thread.name MainThread",
        "embedding.model_name embedding.embeddings.0.embedding.text retrieval.documents.0.document.content",
        "retrieval.documents.0.document.id retrieval.documents.0.document.score tool.name tool.description",
        "tool.parameters llm.tools.0.tool.json_schema message.tool_calls.0.tool_call.function.name",
        "message.tool_calls.0.tool_call.function.arguments message.contents.0.message_content.type text",
        "session.id user.id metadata tag.tags graph.node.id gen_ai.system openai anthropic gen_ai.provider.name",
        "gen_ai.operation.name chat text_completion embeddings execute_tool invoke_agent gen_ai.agent.name",
        "gen_ai.tool.name gen_ai.tool.call.id gen_ai.conversation.id gen_ai.request.model gen_ai.response.model",
        "gen_ai.response.id gen_ai.response.finish_reasons stop gen_ai.request.max_tokens",
        "gen_ai.request.temperature gen_ai.request.top_p gen_ai.input.messages gen_ai.output.messages",
        '[{"role":"user","parts":[{"type":"text","content":" gen_ai.usage.input_tokens gen_ai.usage.output_tokens',
        "llm.token_count.prompt_details.cache_read llm.token_count.completion_details.reasoning",
        "llm.token_count.total llm.token_count.completion llm.token_count.prompt llm.system llm.provider",
        'llm.model_name gpt-4o claude- llm.invocation_parameters {"model": "temperature": "max_tokens": {"messages": [',
        '{"role": "system", "content": " {"role": "user", "content": " {"role": "assistant", "content": "',
        "llm.output_messages.0.message.content llm.output_messages.0.message.role assistant",
        "llm.input_messages.1.message.content llm.input_messages.1.message.role user",
        "llm.input_messages.0.message.content llm.input_messages.0.message.role system",
        "input.mime_type application/json output.mime_type text/plain output.value input.value",
        "openinference.span.kind LLM CHAIN TOOL AGENT WORKFLOW neatlogs.span.kind llm chain tool agent workflow",
        'neatlogs.session.id neatlogs.end_user.source trace neatlogs.end_user.metadata {"plan":"pro"}',
        "neatlogs.end_user.id",
    )
).encode()


def compress(spans: Iterable[bytes]) -> bytes:
    """Return the block that holds these serialised spans."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, 15, 8, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    framed = b"".join([_SPANS + _varint(len(span)) + span for span in spans])
    return bytes([_FORMAT]) + compressor.compress(framed) + compressor.flush()


def decompress(block: bytes) -> list[Span]:
    """Return the spans of a block, in their order.

    Raises:
        ValueError: It is not a block, or one of a newer format.
    """
    if block[:1] != bytes([_FORMAT]):
        raise ValueError("a block of spans in an unknown format")
    stream = zlib.decompressobj(15, _DICTIONARY)
    try:
        framed = stream.decompress(block[1:])
    except zlib.error as error:
        raise ValueError(f"a damaged block of spans ({error})") from None
    # Without its end the checksum was not compared.
    if not stream.eof:
        raise ValueError("a damaged block of spans (its end is missing)")
    return list(ScopeSpans.FromString(framed).spans)


def group(sizes: Iterable[int]) -> list[int]:
    """Divide spans of these sizes into blocks; return how many go into each."""
    counts: list[int] = []
    size = 0
    for one in sizes:
        if not counts or (size and size + one > MAX_BLOCK_BYTES):
            counts.append(0)
            size = 0
        counts[-1] += 1
        size += one
    return counts


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
