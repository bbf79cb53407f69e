"""Which fragments wait and which may go on, without a disk or a clock."""

from __future__ import annotations

import random

from neatlogs_processor.core.stamping import Owner
from neatlogs_processor.holding.memory import STAMPED, TIMED_OUT, Shelf
from neatlogs_processor.holding.rows import Held

OWNER = Owner(b"", b"x")


def test_each_fragment_leaves_once_for_the_first_reason_there_is() -> None:
    """However arrivals, roots and the end of the wait alternate: in order, and none stays or leaves twice."""
    chance = random.Random(3)  # noqa: S311  # the same in every run
    shelf = Shelf()
    waiting: dict[int, bytes] = {}
    left: list[tuple[int, str]] = []
    for number in range(20_000):
        trace_id = bytes([chance.choice((1, 1, 1, 1, 2, 3))])
        shelf.wait(Held(number, trace_id, float(number), 1, 10))
        waiting[number] = trace_id
        if chance.random() < 0.01:
            shelf.root_arrived(trace_id, OWNER)
            left += [(one, STAMPED) for one, of in waiting.items() if of == trace_id]
            waiting = {one: of for one, of in waiting.items() if of != trace_id}
        if chance.random() < 0.3:
            before = number - chance.randint(0, 300)
            late = [one for one in waiting if one < before]
            assert shelf.time_out(float(before)) == len(late)
            left += [(one, TIMED_OUT) for one in late]
            for one in late:
                del waiting[one]
        assert shelf.traces == len(set(waiting.values()))
        assert shelf.oldest == next(iter(waiting), None)
        assert shelf.spans == len(waiting) + len(left)
    assert [(one.held.id, one.outcome) for one in shelf.next_to_leave(10**9)] == left
