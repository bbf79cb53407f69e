"""Traffic for the store: a week of traces of a few thousand end users, as batches that exporters would send.

Texts are slices of English prose at random places, so that they compress as prose does and not as repetitions. Spans
come in the order in which they end, from several traces at once: the root of a trace arrives last, and often in another
batch than its children.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.bench.payloads import Kind

SPANS_A_TRACE: Final = 8
BATCH: Final = 512
SECOND: Final = 10**9
WEEK: Final = 7 * 86_400 * SECOND
NOW: Final = 1_795_000_000 * SECOND
"""When the week ends."""

USERS: Final = 10_000
_TRACES_A_SESSION: Final = 4
_OPEN_AT_ONCE: Final = 24
# The manual of the language that this is written in: 430 kB of prose that every Python brings along.
_PROSE: Final = " ".join(" ".join(topics.values()).split())
_FIRST: Final = (
    *("alice", "bruno", "chen", "dana", "emil", "farah", "goran", "hana", "ivan", "jonas", "khalid", "lena", "mateo"),
    *("nadia", "omar", "priya", "quinn", "rosa", "samir", "tomas", "uma", "viktor", "wanda", "xenia", "yusuf", "zoe"),
)
_PLANS: Final = ("free", "free", "free", "free", "free", "free", "pro", "pro", "pro", "enterprise")
_REGIONS: Final = ("eu", "us", "apac")
_WORKFLOWS: Final = ("support-chat", "search", "summaries", "onboarding", "invoices")
_SERVICES: Final = ("gateway", "chat-backend", "retriever", "tickets", "billing", "mailer")
_ROUTES: Final = ("/chat", "/search", "/tickets/{id}", "/invoices/{id}/lines", "/users/{id}/settings")
_TABLES: Final = ("tickets", "invoices", "messages", "customers", "attachments")


def user_name(number: int) -> str:
    """Return the id of an end user, 0 to `USERS` - 1."""
    return f"{_FIRST[number % len(_FIRST)]}.{number:05}@example.com"


def batches(kind: Kind, spans: int, *, seed: int = 7) -> Iterator[bytes]:
    """Yield serialised trace requests of `BATCH` spans.

    Args:
        kind: LLM spans of about 2.6 KB (prompts and answers, as OpenInference writes them), or service spans of about
            400 bytes.
        spans: How many in all; their traces start evenly over the week before `NOW`.
        seed: The same seed yields the same requests.
    """
    traffic = _Traffic(kind, spans // SPANS_A_TRACE, random.Random(seed))  # noqa: S311  # the same in every run, not secret
    some: list[tuple[str, Span]] = []
    for one in traffic.spans():
        some.append(one)
        if len(some) == BATCH:
            yield _request(some)
            some = []
    if some:
        yield _request(some)


class _Traffic:
    def __init__(self, kind: Kind, traces: int, chance: random.Random) -> None:
        self._is_llm = kind == "llm"
        self._traces = traces
        self._chance = chance
        self._sessions: dict[int, tuple[str, int]] = {}

    def spans(self) -> Iterator[tuple[str, Span]]:
        """Yield spans with their service, as they end; a few traces are open at any time."""
        waiting: list[tuple[int, int, str, Span]] = []
        for number in range(self._traces):
            base = number * SPANS_A_TRACE
            for place, (service, span) in enumerate(self._trace(number)):
                # Ordered by when each is over, counted in traces, so that the mixture is the same at every rate.
                over = base + int((_OPEN_AT_ONCE * place / SPANS_A_TRACE) * SPANS_A_TRACE)
                heapq.heappush(waiting, (over, base + place, service, span))
            while waiting and waiting[0][0] <= base:
                _, _, service, span = heapq.heappop(waiting)
                yield service, span
        while waiting:
            _, _, service, span = heapq.heappop(waiting)
            yield service, span

    def _trace(self, number: int) -> list[tuple[str, Span]]:
        """Return the spans of one trace, the root last."""
        chance = self._chance
        trace_id, root_id = chance.randbytes(16), chance.randbytes(8)
        start = NOW - WEEK + number * WEEK // self._traces
        fails = chance.random() < 0.03
        found = []
        for place in range(1, SPANS_A_TRACE):
            service = chance.choice(_SERVICES)
            begins = start + place * 20_000_000 + chance.randrange(10_000_000)
            span = Span(
                trace_id=trace_id,
                span_id=chance.randbytes(8),
                parent_span_id=root_id,
                flags=0x101,
                name="ChatCompletion" if self._is_llm else f"GET {chance.choice(_ROUTES)}",
                kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=begins,
                end_time_unix_nano=begins + chance.randrange(900_000_000),
                attributes=self._llm() if self._is_llm else self._service(),
            )
            if fails and place == 1:
                span.status.code = 2
                span.status.message = _slice(chance, 60)
            found.append((service, span))
        root = Span(
            trace_id=trace_id,
            span_id=root_id,
            flags=0x101,
            name="POST " + chance.choice(_ROUTES),
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 1_000_000_000 + chance.randrange(2_000_000_000),
            attributes=[*(self._workflow() if self._is_llm else self._service()), *self._identity()],
        )
        found.append((_SERVICES[0], root))
        return found

    def _identity(self) -> list[KeyValue]:
        chance = self._chance
        if chance.random() < 0.1:
            return []
        # Some are there far more often than others.
        user = int(USERS * chance.random() ** 2)
        session, used = self._sessions.get(user, ("", _TRACES_A_SESSION))
        if used == _TRACES_A_SESSION:
            session, used = chance.randbytes(8).hex(), 0
        self._sessions[user] = session, used + 1
        plan, region = _PLANS[user % len(_PLANS)], _REGIONS[user % len(_REGIONS)]
        return [
            _string("neatlogs.end_user.id", user_name(user)),
            _string("neatlogs.end_user.metadata", json.dumps({"plan": plan, "region": region, "seats": user % 50})),
            _string("neatlogs.end_user.source", "trace"),
            _string("neatlogs.session.id", session),
        ]

    def _service(self) -> list[KeyValue]:
        chance = self._chance
        table, number = chance.choice(_TABLES), chance.randrange(10**7)
        return [
            _string("http.request.method", "GET"),
            _string("url.path", f"/{table}/{number}"),
            _int("http.response.status_code", chance.choice((200, 200, 200, 204, 304, 404))),
            _string("server.address", f"{table}-{chance.randrange(8)}.internal"),
            _int("server.port", 8080),
            # No query: text of an attribute that looks like one.
            _string("db.query.text", f"SELECT * FROM {table} WHERE id = {number} AND note = '{_slice(chance, 30)}'"),  # noqa: S608  # nobody runs it
            _string("request.id", chance.randbytes(8).hex()),
        ]

    def _llm(self) -> list[KeyValue]:
        chance = self._chance
        system, user, answer = _slice(chance, 250), _slice(chance, 380), _slice(chance, 620)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        used_in, used_out = chance.randrange(2_000), chance.randrange(600)
        return [
            _string("openinference.span.kind", "LLM"),
            _string("llm.system", "openai"),
            _string("llm.model_name", "gpt-4o-2024-08-06"),
            _string("llm.invocation_parameters", '{"model":"gpt-4o","temperature":0.2,"max_tokens":512}'),
            _string("input.mime_type", "application/json"),
            _string("input.value", json.dumps({"messages": messages, "model": "gpt-4o"})),
            _string("llm.input_messages.0.message.role", "system"),
            _string("llm.input_messages.0.message.content", system),
            _string("llm.input_messages.1.message.role", "user"),
            _string("llm.input_messages.1.message.content", user),
            _string("output.value", answer),
            _string("llm.output_messages.0.message.role", "assistant"),
            _int("llm.token_count.prompt", used_in),
            _int("llm.token_count.completion", used_out),
            _int("llm.token_count.total", used_in + used_out),
        ]

    def _workflow(self) -> list[KeyValue]:
        return [
            _string("openinference.span.kind", "CHAIN"),
            _string("input.value", _slice(self._chance, 1_200)),
            _string("output.value", _slice(self._chance, 1_000)),
        ]


def _request(spans: list[tuple[str, Span]]) -> bytes:
    by_service: dict[str, list[Span]] = {}
    for service, span in spans:
        by_service.setdefault(service, []).append(span)
    message = ExportTraceServiceRequest()
    for service, its in by_service.items():
        part = message.resource_spans.add()
        workflow = _WORKFLOWS[len(its) % len(_WORKFLOWS)]
        part.resource.attributes.extend(
            (
                _string("service.name", service),
                _string("service.instance.id", f"{service}-7c9d"),
                _string("telemetry.sdk.language", "python"),
                _string("telemetry.sdk.name", "opentelemetry"),
                _string("neatlogs.workflow_name", workflow),
            )
        )
        scope = part.scope_spans.add(scope={"name": "opentelemetry.instrumentation.http", "version": "0.60b0"})
        scope.spans.extend(its)
    return message.SerializeToString()


def _slice(chance: random.Random, length: int) -> str:
    begin = chance.randrange(len(_PROSE) - length)
    return _PROSE[begin : begin + length]


def _string(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))


def _int(key: str, number: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=number))
