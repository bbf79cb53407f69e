"""What cannot be measured on one machine, by discrete events: late roots, duplicates, lag, a replica lost.

A small world with a seed: traces whose spans end in several clients, clients that export as OpenTelemetry's batch span
processor does, processors that answer when the store has the spans (with a queue: when their own disk has them), and
a store that counts a span once. Every span that was made is found again at the end: stored, or given up by a client and
counted there. Time is simulated, so a run takes a second or two and is the same for the same world.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles


@dataclass(frozen=True)
class World:
    """The assumptions of a run. Times are seconds.

    Attributes:
        traces: How many begin, evenly spread by chance over `seconds`.
        seconds: How long traces begin; afterwards the run goes on until everything is settled.
        spans: Spans a trace, the root included, on average.
        median: How long half of the traces take at most; `spread` is the sigma of the lognormal distribution.
        long_share: The share of traces that take `long_median` instead: agents that work for minutes.
        clients: Processes that export; a span ends in any of them, the root in the one where its trace began.
        export_every, export_size, client_queue, patience: Of a client: how often it exports, how many spans at most a
            request, how many it holds (more are dropped), how long it tries a request. These are the defaults of
            OpenTelemetry's SDKs.
        processors: How many share the requests.
        budget: How long a processor tries to store a request before it answers that it is unavailable.
        insert_every: How often a processor inserts what it has; it answers afterwards.
        insert_takes: How long an insert takes.
        durable: Processors answer when their disk has the request, and deliver it until it is stored.
        answers_lost: The share of answers that do not reach the client, which then sends the same again.
        away: Processors that are killed: which one, from when to when it is gone.
        unnoticed: How long requests are still sent to one that is gone.
        store_away: From when to when no insert succeeds.
        copy_takes: With two replicas of the store: how long an insert takes on average to reach the other one, which
            is the one that readers ask. 0: one replica.
        replica_lost: When one of the two is lost for good, with what it had not passed on.
        quorum: An insert succeeds when both replicas have it.
        seed: The same seed gives the same run.
    """

    traces: int = 4000
    seconds: float = 120.0
    spans: int = 8
    median: float = 2.0
    spread: float = 1.0
    long_share: float = 0.0
    long_median: float = 120.0
    clients: int = 20
    export_every: float = 5.0
    export_size: int = 512
    client_queue: int = 2048
    patience: float = 10.0
    processors: int = 3
    budget: float = 8.0
    insert_every: float = 1.0
    insert_takes: float = 0.1
    durable: bool = False
    answers_lost: float = 0.0
    away: tuple[tuple[int, float, float], ...] = ()
    unnoticed: float = 5.0
    store_away: tuple[float, float] | None = None
    copy_takes: float = 0.0
    replica_lost: float | None = None
    quorum: bool = False
    seed: int = 1


@dataclass
class Outcome:
    """What came of a run. Times are seconds.

    Attributes:
        made: Spans that ended.
        stored: Spans that the store has, each counted once.
        lost: Spans that clients dropped, because their queue was full or their patience at an end, and that the store
            never had.
        lost_after_ok: Spans that were acknowledged and are gone all the same, with a replica of the store. Nothing else
            may be missing: `made` is `stored`, `lost` and `lost_after_ok` together.
        copies: Spans that reached the store, as often as they did.
        lags: For each stored span, from its end to when the store had it.
        root_waits: For each trace with root and children stored, from the first of its spans to the root; 0 where the
            root came with the first.
        orphans: Traces of which spans are stored, and the root never came.
    """

    made: int = 0
    stored: int = 0
    lost: int = 0
    lost_after_ok: int = 0
    copies: int = 0
    lags: list[float] = field(default_factory=list)
    root_waits: list[float] = field(default_factory=list)
    orphans: int = 0

    @property
    def duplicates(self) -> float:
        """The share of spans at the store's door that it had already."""
        return 1 - self.stored / self.copies if self.copies else 0.0

    def later_than(self, seconds: float) -> float:
        """The share of traces whose root came so long after the first of their spans, or never."""
        traces = len(self.root_waits) + self.orphans
        late = sum(wait > seconds for wait in self.root_waits) + self.orphans
        return late / traces if traces else 0.0


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed; 0 where there are none."""
    if percent == 100 or len(values) < 2:
        return max(values, default=0.0)
    return quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True)
class _Span:
    trace: int
    number: int
    is_root: bool
    ended: float


@dataclass(eq=False)
class _Request:
    """One export of a client, with the bytes of its first try."""

    spans: tuple[_Span, ...]
    client: _Client
    begun: float
    tries: int = 0
    settled: bool = False


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        # The count keeps events of the same moment in their order.
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then))

    def run(self) -> None:
        while self._events:
            self.now, _, then = heapq.heappop(self._events)
            then()


class _Store:
    """Counts a span once, whoever sends it how often."""

    def __init__(self, clock: _Clock, world: World, chance: random.Random) -> None:
        self._clock, self._world, self._chance = clock, world, chance
        self.found: dict[tuple[int, int], float] = {}
        self.gone: set[tuple[int, int]] = set()
        self.roots: dict[int, float] = {}
        self.first: dict[int, float] = {}
        self.lags: list[float] = []
        self.copies = 0

    def is_away(self) -> bool:
        away = self._world.store_away
        return away is not None and away[0] <= self._clock.now < away[1]

    def insert(self, spans: tuple[_Span, ...], then: Callable[[bool], None]) -> None:
        """Take spans, and say whether that succeeded: at once, or with a quorum when both replicas have them."""
        both = self._world.copy_takes > 0 and not self._one_is_lost()
        if not both:
            self._take(spans)
            then(True)
            return
        goes_with_it = self._chance.random() < 0.5

        def copied() -> None:
            if goes_with_it and self._one_is_lost():
                self.gone.update((span.trace, span.number) for span in spans)
            else:
                self._take(spans)
            if self._world.quorum:
                then(not goes_with_it or not self._one_is_lost())

        self._clock.after(self._chance.expovariate(1 / self._world.copy_takes), copied)
        if not self._world.quorum:
            then(True)

    def _one_is_lost(self) -> bool:
        return self._world.replica_lost is not None and self._clock.now >= self._world.replica_lost

    def _take(self, spans: tuple[_Span, ...]) -> None:
        now = self._clock.now
        for span in spans:
            self.copies += 1
            if (span.trace, span.number) in self.found:
                continue
            self.found[span.trace, span.number] = now
            self.lags.append(now - span.ended)
            self.first.setdefault(span.trace, now)
            if span.is_root:
                self.roots[span.trace] = now


class _Processor:
    """Holds requests until its next insert; in between they are lost with it, unless they are on its disk."""

    def __init__(self, clock: _Clock, world: World, store: _Store, chance: random.Random) -> None:
        self._clock, self._world, self._store, self._chance = clock, world, store, chance
        self._waiting: list[tuple[float, _Request]] = []
        self._in_flight: list[tuple[float, _Request]] = []
        self._inserting = False
        self._life = 0
        self.alive = True

    def receive(self, request: _Request) -> None:
        if not self.alive:
            request.client.failed(request)
            return
        self._waiting.append((self._clock.now, request))
        if self._world.durable:
            self._answer(request)
        self._insert_soon()

    def die(self) -> None:
        self.alive, self._inserting = False, False
        self._life += 1
        held, self._in_flight = [*self._in_flight, *self._waiting], []
        # What is on disk is there again after the start, also what was on its way: nobody has noted that it arrived.
        self._waiting = held if self._world.durable else []
        if not self._world.durable:
            for _, request in held:
                request.client.failed(request)

    def live_again(self) -> None:
        self.alive = True
        self._insert_soon()

    def _insert_soon(self) -> None:
        if self.alive and self._waiting and not self._inserting:
            self._inserting = True
            life = self._life
            self._clock.after(self._world.insert_every, lambda: self._insert(life))

    def _insert(self, life: int) -> None:
        if life != self._life:
            return
        if self._store.is_away():
            self._refuse_what_is_out_of_time()
            self._inserting = False
            self._insert_soon()
            return
        self._in_flight, self._waiting = self._waiting, []
        batch = tuple(span for _, request in self._in_flight for span in request.spans)
        self._clock.after(self._world.insert_takes, lambda: self._inserted(life, batch))

    def _inserted(self, life: int, batch: tuple[_Span, ...]) -> None:
        # The store has it, whether or not the processor lives to see it.
        self._store.insert(batch, lambda succeeded: self._settled(life, succeeded))

    def _settled(self, life: int, succeeded: bool) -> None:
        if life != self._life:
            return
        done, self._in_flight = self._in_flight, []
        self._inserting = False
        if not succeeded:
            self._waiting = [*done, *self._waiting]
        elif not self._world.durable:
            for _, request in done:
                self._answer(request)
        self._insert_soon()

    def _refuse_what_is_out_of_time(self) -> None:
        if self._world.durable:
            return
        late = [request for since, request in self._waiting if self._clock.now - since >= self._world.budget]
        self._waiting = [one for one in self._waiting if self._clock.now - one[0] < self._world.budget]
        for request in late:
            request.client.failed(request)

    def _answer(self, request: _Request) -> None:
        if self._chance.random() < self._world.answers_lost:
            request.client.failed(request)
        else:
            request.client.done(request)


class _Client:
    """Exports as OpenTelemetry's batch span processor: one request at a time, the next when it is settled."""

    def __init__(self, clock: _Clock, world: World, chance: random.Random, choose: Callable[[], _Processor]) -> None:
        self._clock, self._world, self._chance, self._choose = clock, world, chance, choose
        self._queue: deque[_Span] = deque()
        self._busy = self._scheduled = False
        self.given_up: list[_Span] = []

    def ended(self, span: _Span) -> None:
        if len(self._queue) >= self._world.client_queue:
            self.given_up.append(span)
            return
        self._queue.append(span)
        if len(self._queue) >= self._world.export_size:
            self._export()
        elif not self._scheduled:
            self._scheduled = True
            # Clients are not in step with each other.
            self._clock.after(self._world.export_every * self._chance.random(), self._due)

    def done(self, request: _Request) -> None:
        if not request.settled:
            self._settle(request)

    def failed(self, request: _Request) -> None:
        if request.settled:
            return
        wait = min(2 ** (request.tries - 1), 32) * (0.8 + 0.4 * self._chance.random())
        if self._clock.now + wait - request.begun > self._world.patience:
            self.given_up += request.spans
            self._settle(request)
            return
        self._clock.after(wait, lambda: self._send(request))

    def _settle(self, request: _Request) -> None:
        request.settled = True
        self._busy = False
        if len(self._queue) >= self._world.export_size:
            self._export()
        elif self._queue and not self._scheduled:
            self._scheduled = True
            self._clock.after(self._world.export_every, self._due)

    def _due(self) -> None:
        self._scheduled = False
        self._export()

    def _export(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        count = min(len(self._queue), self._world.export_size)
        spans = tuple(self._queue.popleft() for _ in range(count))
        self._send(_Request(spans, self, self._clock.now))

    def _send(self, request: _Request) -> None:
        request.tries += 1
        travels = 0.001 + self._chance.expovariate(100)
        self._clock.after(travels, lambda: self._choose().receive(request))


def simulate(world: World) -> Outcome:
    """Run a world until everything in it is settled."""
    clock, chance = _Clock(), random.Random(world.seed)  # noqa: S311  # the same in every run, not secret
    store = _Store(clock, world, chance)
    processors = [_Processor(clock, world, store, chance) for _ in range(world.processors)]

    def choose() -> _Processor:
        # Who shares the requests out takes a while to notice that somebody is gone.
        gone = {which for which, since, until in world.away if since + world.unnoticed <= clock.now < until}
        return chance.choice([one for which, one in enumerate(processors) if which not in gone] or processors)

    clients = [_Client(clock, world, chance, choose) for _ in range(world.clients)]
    made = 0
    for trace in range(world.traces):
        begins = chance.random() * world.seconds
        median = world.long_median if chance.random() < world.long_share else world.median
        takes = median * chance.lognormvariate(0, world.spread)
        home = chance.choice(clients)
        for number in range(max(1, round(chance.gauss(world.spans, world.spans / 4)))):
            # The root is number 0 and ends last; children end within it, each in the client where it ran.
            ended = begins + (takes if number == 0 else takes * chance.random())
            client = home if number == 0 else chance.choice(clients)
            span = _Span(trace, number, number == 0, ended)
            clock.after(ended, lambda client=client, span=span: client.ended(span))  # type: ignore[misc]  # bound now
            made += 1
    for which, since, until in world.away:
        clock.after(since, processors[which].die)
        clock.after(until, processors[which].live_again)
    clock.run()
    given_up = {(span.trace, span.number) for client in clients for span in client.given_up}
    return Outcome(
        made=made,
        stored=len(store.found),
        lost=len(given_up - store.found.keys()),
        lost_after_ok=len(store.gone - store.found.keys() - given_up),
        copies=store.copies,
        lags=store.lags,
        root_waits=[store.roots[trace] - first for trace, first in store.first.items() if trace in store.roots],
        orphans=sum(trace not in store.roots for trace in store.first),
    )
