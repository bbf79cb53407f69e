"""A believable day of an AI product: some 200 traces of a dozen end users over the last 24 hours, sent at once.

It fills the traces page with what a day brings: conversations in sessions, a search, an agent with tools, errors,
services that forgot to set the end user, an override that is ignored, a session that two people share, and a trace
whose root never came. Spans are written with the OpenTelemetry SDK and past times; the same hour gives the same traces
again, so that a second run adds nothing.

    make run                                        # in one terminal
    .venv/bin/python examples/believable_day.py     # in another; `make demo` does it too

Then open http://127.0.0.1:4319/traces, which the processor names when it starts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

MILLISECOND = 1_000_000
HOUR = 3600 * 1000 * MILLISECOND

PEOPLE: dict[str, dict[str, Any]] = {
    "alice.moreau": {"plan": "pro", "company": {"name": "Moreau Architects", "size": 40}, "country": "FR"},
    "ali.haddad": {"plan": "pro", "company": {"name": "Haddad Logistics", "size": 220}, "country": "JO"},
    "b.okafor": {"plan": "enterprise", "company": {"name": "Lagos Port Services", "size": 1800}, "country": "NG"},
    "chen.wei": {"plan": "free", "country": "TW", "beta": True},
    "dora.lindqvist": {"plan": "enterprise", "company": {"name": "Lindqvist & Co", "size": 95}, "country": "SE"},
    "emre.yilmaz": {"plan": "free", "country": "TR"},
    "farah.n": {"plan": "pro", "company": {"name": "Studio N", "size": 6}, "country": "GB", "beta": True},
    "g.papadopoulos": {"plan": "enterprise", "company": {"name": "Aegean Ferries", "size": 640}, "country": "GR"},
    "hana.kim": {"plan": "pro", "company": {"name": "Kim Dental", "size": 12}, "country": "KR"},
    "ines.duarte": {"plan": "free", "country": "PT"},
    "jakub.novak": {"plan": "pro", "company": {"name": "Novak Brewing", "size": 31}, "country": "CZ"},
    "דנה": {"plan": "free", "country": "IL"},
}

DIALOGUES = (
    ("Where is my order 4471?", "It left the warehouse this morning and should reach you on Thursday before noon."),
    ("Can I change the delivery address?", "Yes, until it is out for delivery. Which address should it go to?"),
    ("To the office, 12 Harbour Street.", "Done. The new address is 12 Harbour Street; you will get a confirmation."),
    (
        "The invoice shows the wrong VAT number.",
        "I am sorry about that. Send me the right one and I will issue it again.",
    ),
    ("Do you offer a discount for schools?", "We do: 30 percent on all yearly plans. Proof of enrolment is enough."),
    (
        "How do I add a colleague to my account?",
        "Open Settings, then Members, and choose Invite. They need no plan of their own.",
    ),
    ("What happens to my data if I cancel?", "It stays for 90 days, and you can export all of it until then."),
    ("Thanks, that was quick!", "You are welcome. Is there anything else I can do?"),
)

QUESTIONS = (
    "retention period of customs documents",
    "how to calibrate the torque sensor",
    "holiday rules for part-time staff",
    "difference between FOB and CIF",
)


class SeededIds(IdGenerator):
    """Ids that are the same for the same seed: sending a day twice adds nothing."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311  # ids of a demonstration

    def generate_trace_id(self) -> int:
        """Return a trace id."""
        return self._random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        """Return a span id."""
        return self._random.getrandbits(64) or 1


@dataclass
class Service:
    """One program of the product: its tracer, and the time its spans stand at, in nanoseconds."""

    name: str
    workflow: str
    seed: str
    exporter: SpanExporter
    provider: TracerProvider = field(init=False)
    now: int = 0
    roots: int = 0

    def __post_init__(self) -> None:
        resource = {"service.name": self.name, "deployment.environment.name": "demo", "service.version": "3.2.0"}
        if self.workflow:
            resource["neatlogs.workflow_name"] = self.workflow
        self.provider = TracerProvider(resource=Resource(resource), id_generator=SeededIds(self.seed + self.name))
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter, max_queue_size=20_000))

    @contextmanager
    def span(self, name: str, kind: str, parent: Span | None = None, /, **attributes: Any) -> Iterator[Span]:
        """Open a span at the service's time; it ends where its time then stands."""
        written = {"openinference.span.kind": kind.upper()} | {
            key: one for key, one in attributes.items() if one is not None
        }
        self.roots += parent is None
        context = None if parent is None else set_span_in_context(parent)
        span = self.provider.get_tracer("shop.assistant", "1.4").start_span(
            name, context=context, attributes=written, start_time=self.now
        )
        yield span
        self.now += 2 * MILLISECOND
        span.end(end_time=self.now)


class Day:
    """Writes a day that ends now.

    Args:
        exporter: Makes an exporter; each service has its own.
        now: Nanoseconds since the epoch.
    """

    def __init__(self, exporter: type[SpanExporter] | Any = OTLPSpanExporter, *, now: int | None = None) -> None:
        self.end = time.time_ns() if now is None else now
        hour = self.end // HOUR
        self.chance = random.Random(hour)  # noqa: S311  # a demonstration
        self.beginning = (hour - 23) * HOUR

        def service(name: str, workflow: str) -> Service:
            return Service(name, workflow, f"{hour} ", exporter())

        self.chat = service("chat-api", "support-chat")
        self.search = service("search-api", "document-search")
        self.agent = service("invoice-agent", "invoice-agent")
        self.jobs = service("nightly-jobs", "")

    def write(self) -> int:
        """Write everything, wait until it is sent, and return how many root spans there are."""
        people = list(PEOPLE)
        weights = [9, 8, 7, 6, 6, 4, 4, 4, 3, 2, 2, 1]
        for number in range(46):
            self._conversation(self.chance.choices(people, weights)[0], self._when(room=17), number)
        for _ in range(58):
            self._search(self.chance.choices(people, weights)[0], self._when())
        for number in range(18):
            self._agent(self.chance.choices(people[:9], weights[:9])[0], self._when(), fails=number % 6 == 4)
        for _ in range(9):
            self._search(None, self._when())
        self._job(self.beginning + 3 * HOUR)
        self._shared_session(self.end - 5 * HOUR)
        self._orphan(self.end - 40 * 60_000 * MILLISECOND)
        self._override(self.end - 12 * 60_000 * MILLISECOND)
        services = (self.chat, self.search, self.agent, self.jobs)
        for service in services:
            service.provider.shutdown()
        return sum(service.roots for service in services)

    def _when(self, room: int = 2) -> int:
        """Return a time of the day that leaves so many minutes: few at night, most in the morning and after lunch."""
        hours = [1, 1, 0, 0, 1, 1, 2, 4, 8, 10, 9, 7, 5, 8, 10, 9, 7, 5, 4, 4, 3, 3, 2, 2]
        started = self.chance.choices(range(24), hours)[0]
        # The hour of the day that lies within the last 24 hours.
        first = self.beginning // HOUR % 24
        at = self.beginning + (started - first) % 24 * HOUR + self.chance.randrange(HOUR)
        # The last hour is not over: what would lie ahead happened an hour earlier.
        return at if at < self.end - room * HOUR // 60 else at - HOUR

    def _identity(self, end_user: str | None, source: str = "trace", session: str | None = None) -> dict[str, Any]:
        if end_user is None:
            return {}
        metadata = json.dumps(PEOPLE[end_user], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        found = {
            "end_user.id": end_user,
            "end_user.metadata": metadata,
            "end_user.source": source,
            "session.id": session,
        }
        return {f"neatlogs.{key}": one for key, one in found.items() if one is not None}

    def _model(self, service: Service, parent: Span, asked: list[tuple[str, str]], answer: str, **more: Any) -> None:
        messages = {}
        for place, (role, said) in enumerate(asked):
            messages[f"llm.input_messages.{place}.message.role"] = role
            messages[f"llm.input_messages.{place}.message.content"] = said
        into = 180 + sum(len(said) for _, said in asked) * self.chance.randrange(3, 6)
        out = len(answer) // 3 + self.chance.randrange(20)
        with service.span(
            "chat gpt-4.1-mini",
            "llm",
            parent,
            **messages,
            **{
                "llm.model_name": "gpt-4.1-mini",
                "gen_ai.request.model": "gpt-4.1-mini",
                "gen_ai.request.temperature": 0.2,
                "gen_ai.usage.input_tokens": into,
                "gen_ai.usage.output_tokens": out,
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.content": answer,
            },
            **more,
        ):
            service.now += self.chance.randrange(380, 2600) * MILLISECOND

    def _turn(self, end_user: str, at: int, session: str, said: tuple[str, str], before: list[tuple[str, str]]) -> None:
        chat = self.chat
        chat.now = at
        asked, answer = said
        opened = self._identity(end_user, "trace", session)
        with chat.span("POST /chat", "workflow", **opened, **{"input.value": asked, "output.value": answer}) as root:
            chat.now += 4 * MILLISECOND
            with chat.span("load history", "chain", root, **{"db.system.name": "postgresql"}):
                chat.now += self.chance.randrange(3, 30) * MILLISECOND
            if self.chance.random() < 0.6:
                with chat.span("find articles", "retriever", root, **{"input.value": asked, "retrieval.documents": 4}):
                    chat.now += self.chance.randrange(30, 190) * MILLISECOND
            history = [("system", "You are the assistant of a shop. Be brief and kind."), *before, ("user", asked)]
            self._model(chat, root, history, answer)

    def _conversation(self, end_user: str, at: int, number: int) -> None:
        session = f"chat-{self.chance.getrandbits(32):08x}"
        first = self.chance.randrange(len(DIALOGUES))
        before: list[tuple[str, str]] = []
        for place in range(self.chance.randrange(1, 6)):
            said = DIALOGUES[(first + place) % len(DIALOGUES)]
            if number % 15 == 7 and place == 2:
                self._failed_turn(end_user, at, session, said[0])
            else:
                self._turn(end_user, at, session, said, before)
            before = [*before, ("user", said[0]), ("assistant", said[1])]
            at = min(at + self.chance.randrange(20, 190) * 1000 * MILLISECOND, self.end - 2000 * MILLISECOND)

    def _failed_turn(self, end_user: str, at: int, session: str, asked: str) -> None:
        chat = self.chat
        chat.now = at
        with chat.span(
            "POST /chat", "workflow", **self._identity(end_user, "trace", session), **{"input.value": asked}
        ) as root:
            with chat.span("chat gpt-4.1-mini", "llm", root, **{"gen_ai.request.model": "gpt-4.1-mini"}) as model:
                chat.now += 8000 * MILLISECOND
                failure = {
                    "exception.type": "RateLimitError",
                    "exception.message": "429: too many requests, retry in 20 s",
                }
                model.add_event("exception", failure, timestamp=chat.now)
                model.set_status(Status(StatusCode.ERROR, "429: too many requests, retry in 20 s"))
            root.set_status(Status(StatusCode.ERROR, "the model did not answer"))

    def _search(self, end_user: str | None, at: int) -> None:
        search = self.search
        search.now = at
        question = self.chance.choice(QUESTIONS)
        found = self._identity(end_user, "identify")
        with search.span(
            "GET /search", "chain", **found, **{"input.value": question, "neatlogs.tags": "search,web"}
        ) as root:
            with search.span(
                "embed query", "embedding", root, **{"llm.token_count.prompt": 8, "llm.token_count.total": 8}
            ):
                search.now += self.chance.randrange(12, 60) * MILLISECOND
            with search.span("vector search", "retriever", root, **{"retrieval.top_k": 20}):
                search.now += self.chance.randrange(20, 240) * MILLISECOND
            if self.chance.random() < 0.5:
                with search.span("rerank", "reranker", root):
                    search.now += self.chance.randrange(60, 300) * MILLISECOND

    def _agent(self, end_user: str, at: int, *, fails: bool) -> None:
        agent = self.agent
        agent.now = at
        task = "Check the invoices of October and file those that match an order."
        with agent.span("invoice agent", "agent", **self._identity(end_user, "span"), **{"input.value": task}) as root:
            for step in range(self.chance.randrange(2, 5)):
                with agent.span(f"step {step + 1}", "chain", root) as chain:
                    self._model(agent, chain, [("user", task)], "I will look up the next invoice.")
                    with agent.span(
                        "lookup_invoice",
                        "tool",
                        chain,
                        **{"tool.name": "lookup_invoice", "input.value": f'{{"number": {4470 + step}}}'},
                    ) as tool:
                        agent.now += self.chance.randrange(40, 700) * MILLISECOND
                        if fails and step == 1:
                            failure = {
                                "exception.type": "TimeoutError",
                                "exception.message": "the ledger did not answer",
                            }
                            tool.add_event("exception", failure, timestamp=agent.now)
                            tool.set_status(Status(StatusCode.ERROR, "the ledger did not answer"))
            root.set_attribute("output.value", "Filed 3 invoices; 1 needs a person.")

    def _job(self, at: int) -> None:
        """A job that works for nobody in particular: its root names no end user."""
        self.jobs.now = at
        with self.jobs.span("rebuild search index", "workflow") as root:
            for _ in range(6):
                with self.jobs.span(
                    "embed batch", "embedding", root, **{"llm.token_count.prompt": 5200, "llm.token_count.total": 5200}
                ):
                    self.jobs.now += self.chance.randrange(800, 2200) * MILLISECOND

    def _shared_session(self, at: int) -> None:
        """Two people with one session id: a mixed session."""
        self._turn("chen.wei", at, "kiosk-lobby-2", DIALOGUES[4], [])
        self._turn("ines.duarte", at + 90_000 * MILLISECOND, "kiosk-lobby-2", DIALOGUES[5], [])

    def _orphan(self, at: int) -> None:
        """Children of a root that never comes: its process was killed, or it sends somewhere else."""
        ids = SeededIds(f"orphan {at // HOUR}")
        context = SpanContext(
            ids.generate_trace_id(), ids.generate_span_id(), is_remote=True, trace_flags=TraceFlags(1)
        )
        self.search.now = at
        with (
            self.search.span(
                "GET /search", "chain", NonRecordingSpan(context), **{"input.value": QUESTIONS[1]}
            ) as root,
            self.search.span("vector search", "retriever", root),
        ):
            self.search.now += 130 * MILLISECOND

    def _override(self, at: int) -> None:
        """A tool that claims to know better whose trace it is: ignored, and shown."""
        agent = self.agent
        agent.now = at
        with agent.span("invoice agent", "agent", **self._identity("alice.moreau", "span")) as root:
            with agent.span("lookup_invoice", "tool", root, **{"neatlogs.end_user.id": "service-account"}):
                agent.now += 210 * MILLISECOND
            self._model(agent, root, [("user", "File the invoice 4470.")], "Filed under Moreau Architects.")


if __name__ == "__main__":
    print(f"{Day().write()} traces of {len(PEOPLE)} people and a nightly job, and one whose root never came.")
