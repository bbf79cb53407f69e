"""Sessions as records, from the sums and the members that an engine returned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from neatlogs_processor.query.results import SessionRow


def as_session_rows(
    sums: Sequence[tuple[Any, ...]], members: Iterable[tuple[str, str | None, str | None]]
) -> tuple[SessionRow, ...]:
    """Return sums of sessions as records.

    Args:
        sums: For each session its id, traces, spans, errors, tokens, start, end and duration.
        members: Session, end user and workflow of the traces in them, in any order.
    """
    users: dict[str, set[str]] = {}
    workflows: dict[str, set[str]] = {}
    for session, user, workflow in members:
        if user is not None:
            users.setdefault(session, set()).add(user)
        if workflow is not None:
            workflows.setdefault(session, set()).add(workflow)
    return tuple(
        SessionRow(
            session=name,
            end_users=tuple(sorted(users.get(name, ()))),
            traces=count,
            spans=spans,
            errors=errors,
            tokens=tokens,
            start=start,
            end=end,
            duration=duration,
            workflows=tuple(sorted(workflows.get(name, ()))),
        )
        for name, count, spans, errors, tokens, start, end, duration in sums
    )
