"""Spans wait on the disk until their root arrives, and go on with its end user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.core.stamping import INHERITED
from neatlogs_processor.errors import OverloadedError
from neatlogs_processor.holding import sorting
from neatlogs_processor.holding.file import HoldingFile, holding_file_in
from support.holding_parts import Queue, holding_in
from support.otlp_sink import attributes
from support.processor import until
from support.queue_parts import Clock
from support.spans import child, request, root

OTHER = b"\x09" * 16
USER = {"neatlogs__end_user__id": "u_1"}


async def test_children_that_come_before_their_root_wait_for_it_and_inherit(tmp_path: Path) -> None:
    """Children end first: they are acknowledged, wait, and go on with the root's end user once it is there."""
    async with holding_in(tmp_path) as parts:
        await parts.send(child("llm"), child("tool"))
        assert parts.queue.requests == []
        assert (parts.holding.spans, parts.holding.traces) == (2, 1)
        assert parts.holding.size > 0
        await parts.send(
            root("chat", neatlogs__end_user__metadata='{"plan":"pro"}', neatlogs__session__id="s_1", **USER)
        )
        await until(lambda: len(parts.queue.spans) == 3)
    assert parts.queue.end_users == {"chat": "u_1", "llm": "u_1", "tool": "u_1"}
    assert attributes(parts.queue.spans[1]) == {
        "neatlogs.end_user.id": "u_1",
        "neatlogs.end_user.metadata": '{"plan":"pro"}',
        "neatlogs.session.id": "s_1",
    }
    assert (parts.outcome("root"), parts.outcome("stamped")) == (1, 2)
    assert (parts.holding.spans, parts.holding.size, parts.holding.traces) == (0, 0, 0)


async def test_children_with_or_after_their_root_do_not_wait(tmp_path: Path) -> None:
    """Where the root is in the same request, or has gone on before, children are stamped and go on at once."""
    async with holding_in(tmp_path) as parts:
        await parts.send(child("before it"), root("chat", **USER))
        await parts.send(child("late"))
        assert parts.queue.end_users == {"before it": "u_1", "chat": "u_1", "late": "u_1"}
        assert parts.holding.roots == 1


async def test_a_trace_without_an_end_user_goes_on_as_it_is_when_its_root_is_there(tmp_path: Path) -> None:
    """A root that names nobody ends the waiting, and changes nothing."""
    async with holding_in(tmp_path) as parts:
        await parts.send(child("llm"))
        await parts.send(root("chat"))
        await until(lambda: len(parts.queue.spans) == 2)
        await parts.send(child("late"))
    assert parts.queue.spans == [root("chat"), child("llm"), child("late")]
    assert parts.outcome("no_end_user") == 2


async def test_a_request_of_which_nothing_changes_is_the_very_same(tmp_path: Path) -> None:
    """Roots alone, or a trace without an end user, go on untouched, with what the rule has found."""
    async with holding_in(tmp_path) as parts:
        sent = Request(Signal.TRACES, request(root("chat", **USER), child("other", trace_id=b"")))
        await parts.holding.send(sent)
    assert parts.queue.requests[0] is sent
    assert parts.outcome("no_trace_id") == 1


async def test_metrics_and_logs_pass_by(tmp_path: Path) -> None:
    """Only spans wait."""
    async with holding_in(tmp_path) as parts:
        for signal in (Signal.METRICS, Signal.LOGS):
            await parts.holding.send(Request(signal, b"whatever"))
    assert [one.signal for one in parts.queue.requests] == [Signal.METRICS, Signal.LOGS]


async def test_a_request_is_divided_between_what_goes_on_and_what_waits(tmp_path: Path) -> None:
    """Traces whose root is there do not wait for those of another trace, and what is no span goes on too."""
    async with holding_in(tmp_path) as parts:
        await parts.send_body(
            request(root("a", **USER), child("b"), child("c", trace_id=OTHER)) + request(service="empty")
        )
        assert parts.queue.end_users == {"a": "u_1", "b": "u_1"}
        assert b"empty" in parts.queue.requests[0].body
        assert parts.holding.traces == 1
        await parts.send_body(request(child("d", trace_id=OTHER)) + request(service="alone"))
        assert b"alone" in parts.queue.requests[1].body
        assert parts.holding.spans == 2


async def test_what_waits_too_long_goes_on_without_an_end_user(tmp_path: Path) -> None:
    """Without a root, spans go on as they were when --inherit-wait is over, counted; its root may still come."""
    async with holding_in(tmp_path, wait=0.05) as parts:
        await parts.send(child("llm"))
        await until(lambda: len(parts.queue.spans) == 1)
        await until(lambda: parts.outcome("timed_out") == 1)
        await parts.send(root("chat", **USER))
        await parts.send(child("later"))
    assert parts.queue.end_users == {"llm": None, "chat": "u_1", "later": "u_1"}


@pytest.mark.parametrize("limit", [{"max_spans": 3}, {"max_bytes": 1000}], ids=["spans", "bytes"])
async def test_when_too_much_waits_the_oldest_goes_on_without_an_end_user(
    tmp_path: Path, limit: dict[str, int]
) -> None:
    """What may wait is bounded; nobody is refused, and the newest still find their root."""
    async with holding_in(tmp_path, **limit) as parts:
        for number in range(5):
            await parts.send(child(f"{number}" + "." * 100, trace_id=bytes([number + 1]) * 16))
        await until(lambda: parts.outcome("evicted") == 2)
        await parts.send(root("root", trace_id=b"\x05" * 16, **USER))
        await until(lambda: len(parts.queue.spans) == 4)
    assert [name[0] for name, user in parts.queue.end_users.items() if user is None] == ["0", "1"]
    assert parts.holding.spans == 2


async def test_of_two_roots_the_earliest_speaks_for_the_trace(tmp_path: Path) -> None:
    """What goes on takes the end user of the root that began first, of all that have arrived; then the smaller id."""

    def begun(name: str, start: int, span_id: int) -> Span:
        span = root(name, neatlogs__end_user__id=name)
        span.start_time_unix_nano, span.span_id = start, bytes([span_id]) * 8
        return span

    async with holding_in(tmp_path) as parts:
        await parts.send(begun("b", 5, 2), begun("a", 5, 1), child("1"))
        await parts.send(begun("late", 9, 1), child("2"))
        await parts.send(begun("first", 1, 9), child("3"))
        await parts.send(child("4"))
    children = {name: user for name, user in parts.queue.end_users.items() if name.isdigit()}
    assert children == {"1": "a", "2": "a", "3": "first", "4": "first"}


async def test_an_entry_span_speaks_for_its_trace_where_the_policy_says_so(tmp_path: Path) -> None:
    """With --roots entry, spans wait for the entry span although the load balancer's root is there, or none ever is."""
    policy = EndUserPolicy("entry", frozenset({"shop"}))
    entry = child("entry", **USER)
    entry.flags = 0x300
    async with holding_in(tmp_path, policy=policy) as parts:
        await parts.send(child("llm"))
        await parts.send(root("balancer"), service="nginx")
        assert parts.holding.traces == 1
        await parts.send(entry)
        await until(lambda: len(parts.queue.spans) == 3)
        await parts.send(child("nobody", trace_id=OTHER))
        await parts.send(root("own root", trace_id=OTHER))
        await until(lambda: len(parts.queue.spans) == 5)
    expected = {"balancer": None, "entry": "u_1", "llm": "u_1", "own root": None, "nobody": None}
    assert parts.queue.end_users == expected


async def test_other_keys_are_inherited_too(tmp_path: Path) -> None:
    """What else names the end user on a root is inherited where it is asked for."""
    async with holding_in(tmp_path, keys=INHERITED | Sought((b"user.id",))) as parts:
        await parts.send(child("llm"))
        await parts.send(root("chat", user__id="u_1", **USER))
        await until(lambda: len(parts.queue.spans) == 2)
    assert attributes(parts.queue.spans[1])["user.id"] == "u_1"


async def test_traces_go_on_together_in_requests_that_servers_accept(tmp_path: Path) -> None:
    """Many traces make few requests, each below 4 MiB, although stamping makes spans larger."""
    queue = Queue()
    many = 150
    ids = [number.to_bytes(16, "big") for number in range(1, many + 1)]
    async with holding_in(tmp_path, queue) as parts:
        await parts.send(*(child("x" * 60_000, trace_id=trace_id) for trace_id in ids))
        # The roots' own request waits; meanwhile nothing is sent on.
        await parts.send(*(root("r", trace_id=trace_id, **USER) for trace_id in ids))
        await until(lambda: len(queue.spans) == 2 * many)
        assert all(len(one.body) < 4 * 2**20 for one in queue.requests)
        assert len(queue.requests) <= 6
        assert {one.enforced.counts.spans for one in queue.requests if one.enforced} != {0}
        await parts.send(*(child("y" * 60_000, trace_id=trace_id) for trace_id in ids))
    assert all(len(one.body) < 4 * 2**20 for one in queue.requests)
    assert set(queue.end_users.values()) == {"u_1"}


async def test_a_full_queue_is_waited_for_and_then_refused_without_a_loss(tmp_path: Path) -> None:
    """What may go on stays on the disk while the queue is full; past as much again, clients are to come back."""
    async with holding_in(tmp_path, max_bytes=1000) as parts:
        parts.queue.refuses = True
        with pytest.raises(OverloadedError):
            await parts.send(root("refused", **USER))
        assert parts.holding.roots == 0
        for number in range(1, 100):
            if parts.holding.full:
                break
            await parts.send(child(f"{number}" + "." * 100, trace_id=bytes([number]) * 16))
        with pytest.raises(OverloadedError, match="--queue-max-bytes"):
            await parts.send(child("no"))
        await until(lambda: parts.queue.tries > 3)
        parts.queue.refuses = False
        await until(lambda: not parts.holding.full)
        await until(lambda: parts.outcome("evicted") == len(parts.queue.spans))
        assert len(parts.queue.spans) + parts.holding.spans == number - 1


async def test_a_client_that_goes_away_does_not_stop_the_commit(tmp_path: Path) -> None:
    """What was on its way to the disk is kept, and goes on with its root."""
    async with holding_in(tmp_path) as parts:
        sending = asyncio.ensure_future(parts.send(child("llm")))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: parts.holding.spans == 1)
        await parts.send(root("chat", **USER))
        await until(lambda: len(parts.queue.spans) == 2)


async def test_a_root_that_arrives_while_its_children_are_written_is_not_missed(tmp_path: Path) -> None:
    """Children and root may come at the same moment, in either order."""
    async with holding_in(tmp_path) as parts:
        ids = [number.to_bytes(16, "big") for number in range(1, 60)]
        sends = [parts.send(child(f"{number}", trace_id=one)) for number, one in enumerate(ids)]
        sends += [parts.send(root(f"root {number}", trace_id=one, **USER)) for number, one in enumerate(ids)]
        await asyncio.gather(*sends)
        await until(lambda: len(parts.queue.spans) == 2 * len(ids))
    assert set(parts.queue.end_users.values()) == {"u_1"}


async def test_large_requests_are_worked_on_beside_the_event_loop(tmp_path: Path) -> None:
    """A request of megabytes is sorted, held and joined like any other, whether or not its client waits for it."""
    async with holding_in(tmp_path) as parts:
        many = [child("x" * 500) for _ in range(2_000)]
        await parts.send(*many)
        sending = asyncio.ensure_future(parts.send(*many, root("chat", **USER)))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert parts.holding.spans == 2_000
        await parts.send(*many, root("chat", **USER))
        await until(lambda: len(parts.queue.spans) == 4_001)
    assert set(parts.queue.end_users.values()) == {"u_1"}


async def test_of_a_request_of_countless_traces_only_so_many_wait(tmp_path: Path) -> None:
    """Memory is bounded for a request made of nothing but tiny spans: the rest goes on at once, counted."""
    tiny = [Span(trace_id=number.to_bytes(16, "big"), parent_span_id=b"\x01") for number in range(1, 17_000)]
    async with holding_in(tmp_path, max_spans=100_000) as parts:
        await parts.send(*tiny)
        assert parts.holding.spans == sorting.MOST_TRACES
        assert parts.outcome("evicted") == len(parts.queue.spans) == len(tiny) - sorting.MOST_TRACES
        roots = [Span(trace_id=number.to_bytes(16, "big")) for number in range(1, 17_000)]
        await parts.send(*roots)
        await until(lambda: parts.outcome("root") == len(roots))


async def test_of_a_huge_resource_not_every_trace_keeps_a_copy(tmp_path: Path) -> None:
    """Memory and disk are bounded for a request of many traces under one large resource: the rest goes on at once."""
    tiny = [Span(trace_id=number.to_bytes(16, "big"), parent_span_id=b"\x01") for number in range(1, 1_001)]
    async with holding_in(tmp_path, max_bytes=1024 * 2**20) as parts:
        await parts.send(*tiny, large="x" * 200_000)
        assert 100 < parts.holding.traces < 300
        assert parts.holding.size < sorting.MOST_FRAME_BYTES + 2 * 2**20
        assert parts.outcome("evicted") == len(tiny) - parts.holding.traces
        assert len(parts.queue.requests) == 1


async def test_a_clock_that_is_put_back_keeps_no_end_user_for_longer(tmp_path: Path) -> None:
    """A root that an earlier run remembered is forgotten an hour after the next start, whatever the clock said then."""
    clock = Clock(0.0)
    async with holding_in(tmp_path, wall=lambda: 2e9) as parts:
        await parts.send(root("r", **USER))
        await until(lambda: parts.holding.roots == 1)
    async with holding_in(tmp_path, wall=lambda: 1e9, monotonic=clock) as parts:
        assert parts.holding.roots == 1
        clock.now = 3_601.0
        await parts.send(root("r", trace_id=b"\x20" * 16, **USER))
        assert parts.holding.roots == 1


async def test_roots_are_forgotten_when_they_are_old_or_too_many(tmp_path: Path) -> None:
    """Memory for roots is bounded, and no id of an end user stays for longer than an hour."""
    clock = Clock(0.0)
    async with holding_in(tmp_path, max_memory=1000, monotonic=clock) as parts:
        for number in range(1, 10):
            await parts.send(root("r", trace_id=bytes([number]) * 16, **USER))
        assert parts.holding.roots == 2
        await parts.send(child("of one that is gone", trace_id=b"\x01" * 16))
        assert parts.holding.traces == 1
        clock.now = 3_601.0
        await parts.send(root("r", trace_id=b"\x20" * 16, **USER))
        assert parts.holding.roots == 1
    file = HoldingFile(holding_file_in(tmp_path))
    assert [one.trace_id for one in file.roots()] == [b"\x20" * 16]
    file.close()


async def test_a_bug_in_what_comes_behind_ends_nothing(tmp_path: Path) -> None:
    """An error that nobody expects is counted, and what failed is tried again."""

    class Broken(Queue):
        async def send(self, request: Request) -> bytes:
            if not self.tries:
                self.tries += 1
                raise ZeroDivisionError
            return await super().send(request)

    queue = Broken()
    async with holding_in(tmp_path, queue, wait=0.01) as parts:
        await parts.send(child("llm"))
        await until(lambda: len(queue.spans) == 1)
    assert parts.telemetry.counters.failures.total() == 1
