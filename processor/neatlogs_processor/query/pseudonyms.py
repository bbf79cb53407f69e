"""Asking for end users by their ids where a store holds pseudonyms of them.

What is typed is an id, from before there were pseudonyms or from whoever wants to find somebody, or a pseudonym. So a
filter that compares whole ids looks for the id itself and for its pseudonym under each known key; one that compares
parts of an id cannot be answered, because nothing of an id is left in its pseudonym.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from neatlogs_processor.core.pseudonyms import PseudonymKeys
from neatlogs_processor.query.errors import FilterRefusedError
from neatlogs_processor.query.fields import Field, Operator
from neatlogs_processor.query.filters import MAX_VALUES, Filter
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.results import (
    Bucket,
    Coverage,
    Exclusion,
    Neighbours,
    Page,
    SessionDetail,
    SessionRow,
    Summary,
    TraceDetail,
    TraceRow,
    UserDetail,
    UserRow,
    ValueCount,
)
from neatlogs_processor.query.text import operators_of
from neatlogs_processor.query.view import View

_END_USER: Final = "end_user"
_WHOLE: Final = {
    Operator.IS: Operator.IS_ANY_OF,
    Operator.IS_ANY_OF: Operator.IS_ANY_OF,
    Operator.IS_NOT: Operator.IS_NONE_OF,
    Operator.IS_NONE_OF: Operator.IS_NONE_OF,
}
_ANSWERED: Final = tuple(one.words for one in (*_WHOLE, Operator.IS_SET, Operator.IS_NOT_SET))


def with_lookups(view: View, keys: PseudonymKeys) -> View:
    """Return the view as a store of pseudonyms understands it.

    Raises:
        FilterRefusedError: A filter compares parts of an id, or lists more ids than can be looked up at once.
    """
    filters = tuple(
        _looked_up(filter_, place, keys) if filter_.field.name == _END_USER and filter_.values else filter_
        for place, filter_ in enumerate(view.filters)
    )
    return view if filters == view.filters else replace(view, filters=filters)


def _looked_up(filter_: Filter, place: int, keys: PseudonymKeys) -> Filter:
    operator = _WHOLE.get(filter_.operator)
    if operator is None:
        raise FilterRefusedError(
            f'end_user does not go with "{filter_.operator.words}" here: end users are kept under pseudonyms, and'
            " nothing of an id is left in its pseudonym; end_user is ID finds one by the whole id",
            place=place,
            expected=_ANSWERED,
        )
    values = tuple(dict.fromkeys(known for value in filter_.values for known in keys.lookup(str(value))))
    if len(values) > MAX_VALUES:
        raise FilterRefusedError(
            f"with pseudonyms, {len(filter_.values)} end users are too many for one list: their ids and pseudonyms are"
            f" {len(values)}, and {MAX_VALUES} can be looked for at once",
            place=place,
        )
    return Filter(filter_.field, operator, values)


class PseudonymousReader:
    """A `TraceReader` whose questions are about ids, over one whose store holds pseudonyms.

    Args:
        reader: The store.
        keys: Returns the keys as they are now.
    """

    def __init__(self, reader: TraceReader, keys: Callable[[], PseudonymKeys]) -> None:
        self._reader = reader
        self._keys = keys

    @staticmethod
    def operators_of(field: Field) -> tuple[str, ...]:
        """Return the operators that go with a field here, as they are offered."""
        return _ANSWERED if field.name == _END_USER else operators_of(field)

    def _asked(self, view: View) -> View:
        return with_lookups(view, self._keys())

    def traces(self, view: View, *, now: int) -> Page[TraceRow]:
        """See `TraceReader`."""
        return self._reader.traces(self._asked(view), now=now)

    def sessions(self, view: View, *, now: int) -> Page[SessionRow]:
        """See `TraceReader`."""
        return self._reader.sessions(self._asked(view), now=now)

    def users(self, view: View, *, now: int) -> Page[UserRow]:
        """See `TraceReader`."""
        return self._reader.users(self._asked(view), now=now)

    def summary(self, view: View, *, now: int) -> Summary:
        """See `TraceReader`."""
        return self._reader.summary(self._asked(view), now=now)

    def histogram(self, view: View, *, now: int, buckets: int) -> tuple[Bucket, ...]:
        """See `TraceReader`."""
        return self._reader.histogram(self._asked(view), now=now, buckets=buckets)

    def newer(self, view: View, *, now: int, than: str) -> int:
        """See `TraceReader`."""
        return self._reader.newer(self._asked(view), now=now, than=than)

    def neighbours(self, view: View, trace_id: str, *, now: int) -> Neighbours:
        """See `TraceReader`."""
        return self._reader.neighbours(self._asked(view), trace_id, now=now)

    def trace(self, trace_id: str) -> TraceDetail | None:
        """See `TraceReader`."""
        return self._reader.trace(trace_id)

    def session(self, session: str) -> SessionDetail | None:
        """See `TraceReader`."""
        return self._reader.session(session)

    def user(self, end_user: str, view: View, *, now: int) -> UserDetail | None:
        """See `TraceReader`; of an id, what the first of its pseudonyms has that is here."""
        asked = self._asked(view)
        found = (self._reader.user(known, asked, now=now) for known in self._keys().lookup(end_user))
        return next((detail for detail in found if detail is not None), None)

    def sparklines(self, end_users: Sequence[str], view: View, *, now: int, buckets: int) -> dict[str, tuple[int, ...]]:
        """See `TraceReader`."""
        return self._reader.sparklines(end_users, self._asked(view), now=now, buckets=buckets)

    def coverage(self, view: View, *, now: int) -> Coverage:
        """See `TraceReader`."""
        return self._reader.coverage(self._asked(view), now=now)

    def values(self, field: Field, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`; of end users, their pseudonyms."""
        return self._reader.values(field, prefix, self._asked(view), now=now, limit=limit)

    def metadata_keys(self, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`."""
        return self._reader.metadata_keys(prefix, self._asked(view), now=now, limit=limit)

    def exclusions(self, view: View, *, now: int) -> tuple[Exclusion, ...]:
        """See `TraceReader`."""
        return self._reader.exclusions(self._asked(view), now=now)
