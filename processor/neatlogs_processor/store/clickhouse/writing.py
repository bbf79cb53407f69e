"""Inserting spans: what goes in together, under which token, and what a refusal means for each request of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from neatlogs_processor.core.policy import EndUserPolicy, Override
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import MalformedOtlpError, ProcessorError, StoreUnavailableError
from neatlogs_processor.store.clickhouse.connection import ClickHouseError, ClickHouseLogin, connect, explain
from neatlogs_processor.store.clickhouse.migrating import check
from neatlogs_processor.store.clickhouse.spans import COLUMNS, TYPES, Row, Spans, day_of, read_spans

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

INSERT_SECONDS: Final = 30.0
"""How long one insert may take; clients wait for less."""
MAX_DAYS: Final = 90
"""How many days one insert holds: a server refuses to write more than 100 partitions at once."""

INSERT_SETTINGS: Final = {
    # Acknowledged means written, and the token counts.
    "async_insert": 0,
    # The views see a repeated block, too, and recognise it for themselves: so a retry mends what a crash between the
    # table and its views has left short.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
OVERRIDE_COLUMNS: Final = ("trace_id", "span_id", "place", "service", "span_name", "key", "received")
"""The columns of `neatlogs_overrides`."""
OVERRIDE_TYPES: Final = (
    "String",
    "String",
    *["LowCardinality(String)"] * 2,
    "String",
    "LowCardinality(String)",
    "Int64",
)
_TRIES: Final = 2


@dataclass
class Outcome:
    """What became of a group of requests.

    Attributes:
        answers: For each request how many spans could not be kept because they have no id, or why nothing was kept.
        written: Spans that are in the store now. (Whether they had been there before is not asked.)
        duplicates: Spans that stood in the group twice.
    """

    answers: list[int | Exception]
    written: int = 0
    duplicates: int = 0


class ClickHouseWriter:
    """Writes to one database. For one thread.

    Args:
        login: Where, and how to get in.
        policy: What the rule was told.
        clock: Returns nanoseconds since the epoch.
        unavailable: Makes the error for a request that may be kept later, from the cause.
    """

    def __init__(
        self,
        login: ClickHouseLogin,
        *,
        policy: EndUserPolicy,
        clock: Callable[[], int],
        unavailable: Callable[[str], StoreUnavailableError],
    ) -> None:
        self._login = login
        self._policy = policy
        self._clock = clock
        self._unavailable = unavailable
        self._client: Client | None = None

    def check(self) -> None:
        """See whether the server answers and has the tables.

        Raises:
            ConfigError: It has not, or they are not of this version; or the client's package is missing.
            ClickHouseError: It cannot be reached, or does not let us in.
        """
        try:
            check(self._server(), self._login.address)
        except ProcessorError:
            raise
        except Exception as error:  # noqa: BLE001  # what is not of the client is raised again
            raise explain(error, self._login.address) from None

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def write(self, requests: Sequence[Request]) -> Outcome:
        """Insert the spans of requests. Raises nothing."""
        outcome = Outcome([0] * len(requests))
        read: dict[int, Spans] = {}
        for index, request in enumerate(requests):
            try:
                read[index] = read_spans(request.body, self._policy)
                outcome.answers[index] = read[index].without_id
            except MalformedOtlpError as error:  # noqa: PERF203  # seldom raised
                outcome.answers[index] = error
        self._write({index: (requests[index], spans) for index, spans in read.items()}, outcome)
        return outcome

    def _write(self, group: dict[int, tuple[Request, Spans]], outcome: Outcome) -> None:
        rows: dict[tuple[bytes, bytes], Row] = {}
        for _, spans in group.values():
            rows |= spans.rows
        try:
            self._insert(list(rows.values()), [request for request, _ in group.values()])
        except ClickHouseError as error:
            if error.is_about_data and len(group) > 1:
                # One of them must not cost the others.
                for index, one in group.items():
                    self._write({index: one}, outcome)
                return
            for index in group:
                outcome.answers[index] = self._refusal(error)
        except Exception as error:  # noqa: BLE001  # a bug with these requests; the next ones may be fine
            for index in group:
                outcome.answers[index] = error
        else:
            outcome.written += len(rows)
            outcome.duplicates += sum(len(spans.rows) for _, spans in group.values()) - len(rows)

    def _refusal(self, error: ClickHouseError) -> Exception:
        if error.is_about_data:
            return MalformedOtlpError(f"the store cannot keep the request: ClickHouse refuses it (error {error.code})")
        return self._unavailable(str(error))

    def _insert(self, rows: list[Row], requests: Sequence[Request]) -> None:
        """Insert rows, and the overrides that were ignored in their requests.

        The token is that of the requests: the same ones again, in whatever order, are not written twice.
        """
        digests = sorted(blake2b(request.body, digest_size=16).digest() for request in requests)
        token = blake2b(b"".join(digests), digest_size=16).hexdigest()
        for number, some in enumerate(by_days(rows)):
            self._put("otel_traces", some, COLUMNS, TYPES, f"{token}-{number}")
        overrides = self._overrides(requests)
        if overrides:
            self._put("neatlogs_overrides", overrides, OVERRIDE_COLUMNS, OVERRIDE_TYPES, token)

    def _overrides(self, requests: Sequence[Request]) -> list[Row]:
        received = self._clock()
        found: set[Override] = set()
        for request in requests:
            found.update(() if request.enforced is None else request.enforced.overrides)
        return [
            (one.trace_id.hex(), one.span_id.hex(), one.place.value, one.service, one.span_name, one.key, received)
            for one in sorted(found)
        ]

    def _put(self, table: str, rows: list[Row], columns: Sequence[str], types: Sequence[str], token: str) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                insert(self._server(), table, rows, columns, types, token)
                return
            except Exception as error:  # noqa: BLE001, PERF203  # what is not of the client is raised again
                explained = explain(error, self._login.address)
                # The server may have it although the answer was lost: the token says that it is the same again.
                if explained.is_about_data or explained.is_about_setup or attempt == _TRIES:
                    raise explained from None

    def _server(self) -> Client:
        if self._client is None:
            self._client = connect(self._login, patience=INSERT_SECONDS)
        return self._client


def insert(
    client: Client, table: str, rows: Sequence[Row], columns: Sequence[str], types: Sequence[str], token: str
) -> None:
    """Insert rows under a token; the same token again, within the table's window, inserts nothing.

    Raises:
        Exception: Of clickhouse-connect, or of the connection.
    """
    if not rows:
        return
    values: list[Any] = list(zip(*rows, strict=True))
    client.insert(
        table,
        values,
        column_names=list(columns),
        column_type_names=list(types),
        column_oriented=True,
        settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
    )


def by_days(rows: list[Row]) -> list[list[Row]]:
    """Divide rows so that no part is of more than `MAX_DAYS` days; most requests are of one."""
    days = {day_of(row) for row in rows}
    if len(days) <= MAX_DAYS:
        return [rows] if rows else []
    part_of = {day: number // MAX_DAYS for number, day in enumerate(sorted(days))}
    parts: list[list[Row]] = [[] for _ in range(max(part_of.values()) + 1)]
    for row in rows:
        parts[part_of[day_of(row)]].append(row)
    return parts
