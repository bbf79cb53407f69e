"""How fast a filled store answers what the page asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.query.fields import Field
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Period, Sort, Tab, View
from neatlogs_processor.store.files import open_reader
from neatlogs_processor.store.reader import SqliteReader
from tests.bench.store_traffic import NOW, user_name

ROUNDS = 15
SECONDS = 20.0
"""A question that takes long is asked fewer times, but three times at least."""

_DAY = 86_400 * 10**9
_WEEK = Period(last=7 * _DAY)


def ask(path: Path) -> None:
    """Ask every question a number of times, and print what it took in milliseconds.

    Of the first time, when the reader is new; then the median, the most, and the median of the CPU's time alone, which
    other work on the machine disturbs least.
    """
    spans, traces, questions = _asked_of(path)
    print(f"Questions to a store of {spans:,} spans in {traces:,} traces, milliseconds\n")
    print(f"{'':64} {'first':>8} {'median':>8} {'most':>8} {'CPU':>8}")
    for name, question in questions.items():
        reader = SqliteReader(path)
        try:
            took, cpu = _took(question, reader)
            figures = (took[0], median(took[1:]), max(took[1:]), median(cpu[1:]))
            print(f"{name:64} {' '.join(f'{figure:>8.1f}' for figure in figures)}", flush=True)
        finally:
            reader.close()


def compare(path: Path, others: dict[str, TraceReader]) -> None:
    """Ask every question of stores beside an embedded one, all with the same traces, and print the medians."""
    spans, traces, questions = _asked_of(path)
    print(f"Questions to {spans:,} spans in {traces:,} traces, milliseconds, medians\n")
    with closing(SqliteReader(path)) as reader:
        _print_medians(questions, {"SQLite": reader, **others})


def ask_other(path: Path, others: dict[str, TraceReader]) -> None:
    """Ask stores that have the traces of an embedded one, and more, and print the medians."""
    _print_medians(_asked_of(path)[2], others)


def _print_medians(questions: dict[str, Callable[[TraceReader], object]], readers: dict[str, TraceReader]) -> None:
    print(f"{'':64} {' '.join(f'{name:>10}' for name in readers)}")
    for name, question in questions.items():
        print(f"{name:64} {' '.join(f'{_median(question, one):>10}' for one in readers.values())}", flush=True)


def _median(question: Callable[[TraceReader], object], reader: TraceReader) -> str:
    try:
        return f"{median(_took(question, reader, SECONDS / 5)[0][1:]):.1f}"
    except ProcessorError as error:
        # The others are asked all the same.
        return str(error)


def _asked_of(path: Path) -> tuple[int, int, dict[str, Callable[[TraceReader], object]]]:
    """Return how many spans and traces a store has, and the questions to it."""
    with closing(open_reader(path)) as connection:
        (traces, spans) = connection.execute("SELECT count(*), sum(spans) FROM traces").fetchone()
        trace = connection.execute("SELECT trace_id FROM traces WHERE id = ?", (traces // 2,)).fetchone()[0].hex()
        session = connection.execute(
            "SELECT session FROM traces WHERE session IS NOT NULL AND id > ?", (traces // 2,)
        ).fetchone()[0]
    return spans, traces, _questions(trace, session)


def _took(
    question: Callable[[TraceReader], object], reader: TraceReader, seconds: float = SECONDS
) -> tuple[list[float], list[float]]:
    """Ask a question a number of times; return each time's milliseconds by the clock, and those of our own CPU."""
    took: list[float] = []
    cpu: list[float] = []
    while len(took) < ROUNDS and (len(took) < 3 or sum(took) < seconds * 1000):
        began, used = time.perf_counter(), time.process_time()
        question(reader)
        took.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - used) * 1000)
    return took, cpu


def _view(tab: Tab, filters: str = "", *, period: Period = _WEEK, sort: Sort | None = None) -> View:
    return View(tab, parse(filters), period, sort)


def _questions(trace: str, session: str) -> dict[str, Callable[[TraceReader], object]]:
    both = "end_user contains ali and metadata:plan is pro"
    nothing = "end_user contains nobody-of-that-name"
    deep = _deep()
    found: dict[str, Callable[[TraceReader], object]] = {}

    def traces(name: str, view: View) -> None:
        found[f"traces: {name}"] = lambda reader: reader.traces(view, now=NOW)
        found[f"traces: {name}, and their sums"] = lambda reader: (
            reader.traces(view, now=NOW),
            reader.summary(view, now=NOW),
        )

    traces("all", _view(Tab.TRACES))
    traces("end user contains, metadata is", _view(Tab.TRACES, both))
    traces("end user is", _view(Tab.TRACES, f"end_user is {user_name(40)}"))
    traces("end user contains what nobody has", _view(Tab.TRACES, nothing))
    traces("metadata is what nobody has", _view(Tab.TRACES, "metadata:plan is gold"))
    traces("name contains what none has", _view(Tab.TRACES, "name contains gold"))
    traces("longest", _view(Tab.TRACES, sort=Sort("duration")))
    found["traces: all, 100,000 rows down"] = lambda reader: reader.traces(deep(reader), now=NOW)
    found["traces: one"] = lambda reader: reader.trace(trace)
    found["traces: beside one, end user contains, metadata is"] = lambda reader: reader.neighbours(
        _view(Tab.TRACES, both), trace, now=NOW
    )
    found["traces: histogram, all"] = lambda reader: reader.histogram(_view(Tab.TRACES), now=NOW, buckets=60)
    found["traces: histogram, end user contains, metadata is"] = lambda reader: reader.histogram(
        _view(Tab.TRACES, both), now=NOW, buckets=60
    )
    found["users: all, 7 days"] = lambda reader: reader.users(_view(Tab.USERS), now=NOW)
    found["users: all, 1 day"] = lambda reader: reader.users(_view(Tab.USERS, period=Period(last=_DAY)), now=NOW)
    found["users: all, by traces"] = lambda reader: reader.users(_view(Tab.USERS, sort=Sort("traces")), now=NOW)
    found["users: end user contains, metadata is"] = lambda reader: reader.users(_view(Tab.USERS, both), now=NOW)
    found["users: metadata is"] = lambda reader: reader.users(_view(Tab.USERS, "metadata:plan is pro"), now=NOW)
    found["users: one"] = lambda reader: reader.user(user_name(40), _view(Tab.USERS), now=NOW)
    found["users: sparklines of 50"] = lambda reader: reader.sparklines(
        [user_name(number) for number in range(50)], _view(Tab.USERS), now=NOW, buckets=24
    )
    found["sessions: all, 7 days"] = lambda reader: reader.sessions(_view(Tab.SESSIONS), now=NOW)
    found["sessions: end user contains, metadata is"] = lambda reader: reader.sessions(
        _view(Tab.SESSIONS, both), now=NOW
    )
    found["sessions: one"] = lambda reader: reader.session(session)
    found["coverage: all, 7 days"] = lambda reader: reader.coverage(_view(Tab.COVERAGE), now=NOW)
    found["values of end_user that contain ali"] = lambda reader: reader.values(
        Field("end_user"), "ali", _view(Tab.TRACES), now=NOW, limit=8
    )
    found["values of metadata:plan"] = lambda reader: reader.values(
        Field("metadata", "plan"), "", _view(Tab.TRACES), now=NOW, limit=8
    )
    found["keys of metadata"] = lambda reader: reader.metadata_keys("", _view(Tab.TRACES), now=NOW, limit=8)
    found["why nothing is shown: two filters and a period"] = lambda reader: reader.exclusions(
        _view(Tab.TRACES, f"{nothing} and metadata:plan is pro"), now=NOW
    )
    return found


def _deep() -> Callable[[TraceReader], View]:
    """Return what gives the view of a page far down; the way there is gone once for each store."""
    known: dict[TraceReader, View] = {}

    def view(reader: TraceReader) -> View:
        if reader not in known:
            at = View(Tab.TRACES, period=ALL_TIME, limit=500)
            for _ in range(200):
                cursor = reader.traces(at, now=NOW).next_cursor
                if cursor is None:
                    break
                at = at.from_cursor(cursor)
            known[reader] = replace(at, limit=50)
        return known[reader]

    return view
