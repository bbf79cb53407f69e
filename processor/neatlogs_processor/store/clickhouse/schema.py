"""The tables as statements: for one server, or for a cluster (which nobody has run yet; see `statements`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template
from typing import Final

VERSION: Final = 1
"""The version of the tables that this program writes and reads; `neatlogs_state` remembers it as `schema`."""

ROLLUPS: Final = ("neatlogs_roots", "neatlogs_traces", "neatlogs_users", "neatlogs_overrides")
"""The tables that materialised views fill, in the order in which the views are made: users are taken from roots."""

TABLES: Final = ("otel_traces", "otel_traces_trace_id_ts", *ROLLUPS, "neatlogs_state")
"""Every table, the Collector's two first."""

ENTRY_SPAN: Final = "neatlogs.entry_span"
"""The attribute, with the text `true`, that a span gets in `otel_traces` if it is an entry span of a listed service.

The Collector's table has no column for OTLP's `flags`, by which an entry span shows. An attribute of this name that a
sender sets is not kept, so that nobody can claim it."""

UNSET_TIME: Final = 2**63 - 1
"""`neatlogs_traces.start` where no span states when it began; time is sorted from the earliest."""

DEDUPLICATION_WINDOW: Final = 10_000
"""How many inserts back a repeated one is recognised by its token."""

_SHARDED_BY: Final = {
    "otel_traces": "sipHash64(TraceId)",
    "otel_traces_trace_id_ts": "sipHash64(TraceId)",
    "neatlogs_roots": "sipHash64(trace_id)",
    "neatlogs_traces": "sipHash64(trace_id)",
    "neatlogs_users": "sipHash64(end_user)",
    "neatlogs_overrides": "sipHash64(trace_id)",
    "neatlogs_state": "sipHash64(name)",
}
_TTL: Final = {
    "ttl_timestamp": "toDateTime(Timestamp)",
    "ttl_start": "toDateTime(Start)",
    "ttl_day": "day",
    "ttl_received": "toDateTime(intDiv(received, 1000000000))",
}
_ENGINES: Final = {
    "merge_tree": ("MergeTree", ""),
    "replacing": ("ReplacingMergeTree", ""),
    "replacing_received": ("ReplacingMergeTree", "received"),
    "replacing_at": ("ReplacingMergeTree", "at"),
    "aggregating": ("AggregatingMergeTree", ""),
}
_SPANS: Final = "neatlogs_spans"
_NAMED: Final = re.compile(r"^-- (neatlogs_[a-z]+)$", re.MULTILINE)
_TABLE_NAMES: Final = re.compile(rf"\b({'|'.join((*TABLES, _SPANS))})(_mv)?\b")


def statements(*, keep_days: int | None = None, cluster: str | None = None) -> list[str]:
    """Return the statements that make every table and view; each leaves what is there as it is.

    Args:
        keep_days: After how many days a server lets rows go by itself; `None` for never.
        cluster: The name of a cluster: then the tables are replicated and named `..._local`, and those with the usual
            names are `Distributed` over them by trace id. Provided as documentation: it has been parsed by ClickHouse,
            and has not been run on a cluster.
    """
    made = _statements(_engines(cluster) | _ttl(keep_days) | _settings(cluster))
    made += [view(table) for table in (_SPANS, *ROLLUPS)]
    if cluster is None:
        return made
    return [_local(statement, cluster) for statement in made] + [_distributed(table, cluster) for table in TABLES]


def views() -> list[str]:
    """Return the names of the views."""
    return ["otel_traces_trace_id_ts_mv", *(f"{table}_mv" for table in (_SPANS, *ROLLUPS))]


def view(table: str) -> str:
    """Return the statement that makes the view which fills a table."""
    query = spans_of("otel_traces") if table == _SPANS else _queries()[table]
    return f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table}_mv TO {table} AS\n{query}"


def spans_of(source: str) -> str:
    """Return the query for what the spans of `otel_traces` say, as `neatlogs_spans` takes it in.

    Args:
        source: `otel_traces`, or a subquery of it in parentheses.
    """
    return _queries()[_SPANS].replace("$source", source)


@cache
def _queries() -> Mapping[str, str]:
    _, *parts = _NAMED.split(_text("rollups.sql"))
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _statements(filled: Mapping[str, str]) -> list[str]:
    # Comments go, because what stands in them need not be SQL.
    lines = [line.partition(" -- ")[0].rstrip() for line in _text("schema.sql").splitlines()]
    script = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("--"))
    script = Template(script).substitute(filled)
    script = "\n".join(line for line in script.splitlines() if line.strip())
    return [statement.strip().removesuffix(";") for statement in script.split(";\n")]


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _engines(cluster: str | None) -> dict[str, str]:
    if cluster is None:
        return {name: engine + (f"({by})" if by else "") for name, (engine, by) in _ENGINES.items()}
    where = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
    return {name: f"Replicated{engine}({where}{', ' + by if by else ''})" for name, (engine, by) in _ENGINES.items()}


def _ttl(keep_days: int | None) -> dict[str, str]:
    if keep_days is None:
        return dict.fromkeys(_TTL, "")
    return {name: f"TTL {time} + INTERVAL {keep_days} DAY" for name, time in _TTL.items()}


def _settings(cluster: str | None) -> dict[str, str]:
    kind = "non_replicated" if cluster is None else "replicated"
    return {"window": f", {kind}_deduplication_window = {DEDUPLICATION_WINDOW}"}


def _local(statement: str, cluster: str) -> str:
    head, name, rest = re.split(r"(?<=EXISTS )(\w+)", statement, maxsplit=1)
    local = _TABLE_NAMES.sub(lambda found: found[0] if found[2] else f"{found[1]}_local", rest)
    return f"{head}{name}{'' if name.endswith('_mv') else '_local'} ON CLUSTER {cluster}{local}"


def _distributed(table: str, cluster: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ON CLUSTER {cluster} AS {table}_local\n"
        f"ENGINE = Distributed({cluster}, currentDatabase(), {table}_local, {_SHARDED_BY[table]})"
    )
