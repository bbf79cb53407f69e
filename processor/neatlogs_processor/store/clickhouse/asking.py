"""Asking a ClickHouse server: what is bound to a statement, what it may cost, what its errors mean to whoever asks.

Every value goes beside the statement as a server-side parameter, with its type; the statement itself is text of this
package. A question may read and change nothing, has a time and a memory, and ends on the server too when nobody waits
for its answer any more.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.view import View
from neatlogs_processor.store.clickhouse.relation import candidates, days_of, traces
from neatlogs_processor.store.selecting import GROUP_COLUMN, is_reference, read_cursor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ANSWER_SECONDS: Final = 10.0
"""How long a statement may take."""
AT_ONCE: Final = 6
"""How many questions are asked at once."""
MEMORY: Final = 4 * 2**30
"""How many bytes a statement may need on the server."""
MAX_LITERAL: Final = 2000
"""How many ids are looked up by name; of more, the server looks up what the question says. A server takes at most
128 KiB for a parameter (`http_max_field_value_size`)."""

_MARK: Final = re.compile(r"\?")
_RETRY_AFTER: Final = 1.0
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
_TOO_SLOW: Final = frozenset({159, 160, 209, 394})
_TOO_LARGE: Final = frozenset({158, 191, 241, 307, 396})
_TOO_BUSY: Final = frozenset({202})
_NO_TABLES: Final = frozenset({16, 47, 60, 81})
_MAY_NOT_SET: Final = frozenset({164, 452})
_NOT_LET_IN: Final = frozenset({192, 193, 194, 497, 516})


class Question:
    """One question: statements that are about the same view.

    Args:
        client: Of the server.
        patience: Seconds that a statement may take.
    """

    def __init__(self, client: Client, patience: float) -> None:
        self._client = client
        self.version = tuple(int(part) for part in re.findall(r"\d+", str(client.server_version))[:2])
        self._settings = {
            # 2 and not 1: a question that may change nothing says itself how much it may cost.
            "readonly": 2,
            "max_execution_time": patience,
            "max_memory_usage": MEMORY,
            # The server looks whether the connection is still there.
            "cancel_http_readonly_queries_on_client_close": 1,
        }

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement with question marks and what is bound to them.

        Raises:
            clickhouse_connect.driver.exceptions.Error: The server did not answer, or refused; see `answered`.
        """
        numbers = itertools.count()
        text = _MARK.sub(lambda _: _typed(parameters[number := next(numbers)], number), statement)
        bound = {f"p{number}": value for number, value in enumerate(parameters)}
        answer = self._client.query(text, parameters=bound, settings=dict(self._settings))
        return [tuple(row) for row in answer.result_rows]

    def dialect(self, view: View, now: int) -> ClickHouseDialect:
        """Return the dialect over the traces that the view's filters may select: all that they do, and others."""
        where = [days_of(view, now)]
        wanted = candidates(view.filters, view, now, self.version)
        if wanted is not None:
            where.append(self._named(wanted))
        return self.over(conjunction(where))

    def over(self, where: Condition) -> ClickHouseDialect:
        """Return the dialect over the traces of which all rows pass a condition on `neatlogs_traces AS r`."""
        return ClickHouseDialect(traces(where, self.version), self.version)

    def _named(self, wanted: Condition) -> Condition:
        # One statement that uses a subquery several times computes it as often.
        found = self.rows(f"{wanted.sql} LIMIT ?", (*wanted.parameters, MAX_LITERAL + 1))
        if len(found) <= MAX_LITERAL:
            return Condition("r.trace_id IN ?", ([row[0] for row in found],))
        return Condition(f"r.trace_id IN ({wanted.sql})", wanted.parameters)


def place_of(view: View) -> tuple[Any, Any] | None:
    """Return what the view's cursor says, `None` where it has none; see `selecting.read_cursor`.

    Raises:
        QueryError: It is not a cursor of this list in this order, or one of an embedded store: a server compares only
            what is of one type.
    """
    place = read_cursor(view)
    if place is None:
        return None
    value, tie = place
    named = view.tab in GROUP_COLUMN and view.order.key == "end_user"
    if not (isinstance(tie, str) or is_reference(tie)) or not (
        isinstance(value, str) or is_reference(value) if named else isinstance(value, int)
    ):
        raise QueryError("this cursor is of another store; begin with the first page", parameter="cursor")
    return place


def _typed(value: Any, number: int) -> str:
    types: dict[type, str] = {str: "String", int: "Int64", float: "Float64"}
    if isinstance(value, list):
        # All of one type.
        return f"{{p{number}:Array({types[type(value[0])] if value else 'String'})}}"
    return f"{{p{number}:{types[type(value)]}}}"


class Connection:
    """The server, for as long as somebody asks it. Safe to use from any thread.

    It is connected to when the first question comes, so that a page can start before its server does.

    Args:
        connect: Returns a client that several threads may use at once.
        patience: Seconds that a statement may take, and that one waits for others to be answered.
    """

    def __init__(self, connect: Callable[[], Client], *, patience: float = ANSWER_SECONDS) -> None:
        self._connect = connect
        self._patience = patience
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._connecting = threading.Lock()
        self._client: Client | None = None

    @contextlib.contextmanager
    def question(self) -> Iterator[Question]:
        """Ask something, in the statements of a block.

        Raises:
            StoreUnavailableError: The server does not answer, or not in time, or refuses.
        """
        with self._place(), answered(self._patience):
            yield Question(self._server(), self._patience)

    def close(self) -> None:
        """Close the connections that are open."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
            self._client = None

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=self._patience):
            raise StoreUnavailableError("too many questions wait for the store; ask again", retry_after=_RETRY_AFTER)
        try:
            yield
        finally:
            self._places.release()

    def _server(self) -> Client:
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client


@contextlib.contextmanager
def answered(patience: float) -> Iterator[None]:
    """Say what a server's errors mean to whoever asked the question in the block. What the server says is not shown:
    it quotes statements, and with them what was typed.

    Raises:
        StoreUnavailableError: In place of an error of the server, of the connection, or of what was read.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        raise StoreUnavailableError(_meaning(code, patience), retry_after=_RETRY_AFTER) from None
    except (HTTPError, OSError):
        raise StoreUnavailableError(_meaning(None, patience), retry_after=_RETRY_AFTER) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise StoreUnavailableError(
            f"the store holds what was asked for damaged: {error}", retry_after=_RETRY_AFTER
        ) from None


def _meaning(code: int | None, patience: float) -> str:
    if code is None:
        return "the ClickHouse server cannot be reached"
    if code in _TOO_SLOW:
        return f"this takes longer than {patience:g} s; ask for a shorter period or with fewer filters"
    if code in _TOO_LARGE:
        return "this needs more memory than the ClickHouse server gives a question; ask for a shorter period"
    if code in _TOO_BUSY:
        return "the ClickHouse server answers as many questions as it can; ask again"
    if code in _NO_TABLES:
        return "the tables are not there, or not all of them; `neatlogs-processor store migrate` makes them"
    if code in _MAY_NOT_SET:
        return "the ClickHouse server does not let this user limit a question; readonly = 2 would, 1 does not"
    if code in _NOT_LET_IN:
        return "the ClickHouse server does not let this user ask; see --store-password-file"
    return f"the ClickHouse server cannot answer (error {code})"
