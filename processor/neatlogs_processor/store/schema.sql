-- Version 1 of the store's tables. Later versions are steps in migrations.py; this file never changes again.
--
-- Times are nanoseconds since the epoch, as in OTLP, cut to 2^63 - 1. 0 means that the sender said nothing.
-- A set is text in which every member stands between line feeds: '' is empty, char(10)||'a'||char(10)||'b'||char(10)
-- holds a and b, so that instr(tags, char(10)||'a'||char(10)) finds a member.
-- A folded column holds its neighbour in NFKC and case-folded (`core.text.fold`), for comparisons that ignore case.

-- One row for each trace: the rollup of its spans. It changes only with spans that were really inserted.
-- The head of a trace is the span that speaks for it: its root, or its earliest span while no root has arrived.
-- Of several roots the earliest start wins, then the smaller span id; an entry span of a listed service wins over both.
CREATE TABLE traces (
    id            INTEGER PRIMARY KEY,  -- grows with arrival; spans are clustered by it
    trace_id      BLOB    NOT NULL UNIQUE,
    received      INTEGER NOT NULL,     -- when its first span arrived, by this machine's clock; retention goes by it
    start         INTEGER NOT NULL,     -- the earliest start of its spans
    "end"         INTEGER NOT NULL,     -- the latest end
    duration      INTEGER NOT NULL,     -- nanoseconds between the two
    spans         INTEGER NOT NULL,     -- completion markers are not counted
    errors        INTEGER NOT NULL,     -- spans with status ERROR
    tokens_input  INTEGER NOT NULL,     -- of the spans that are model calls
    tokens_output INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,     -- total
    head_rank     INTEGER NOT NULL,     -- 0: entry span of a listed service, 1: root span, 2: root not received
    head_start    INTEGER NOT NULL,
    head_span_id  BLOB    NOT NULL,
    roots         INTEGER NOT NULL,     -- how many spans have the head's rank; 0 for rank 2; over 1: a conflict
    status        INTEGER NOT NULL,     -- the root's: 0 unset, 1 ok, 2 error; unset while there is none
    service       TEXT    NOT NULL,     -- the head's service.name
    name          TEXT,                 -- the root's name; NULL: root not received
    name_folded   TEXT,
    workflow      TEXT,                 -- neatlogs.workflow_name of the head's resource, else the root's name
    workflow_folded TEXT,
    session       TEXT,                 -- the head's neatlogs.session.id, else session.id of it or its resource
    session_folded TEXT,
    end_user      TEXT,                 -- the root's; NULL: no end user, or (rank 2) not known
    end_user_folded TEXT,
    source        TEXT,                 -- where the identity came from
    metadata      TEXT,                 -- the end user's, as strict JSON: an object, or NULL
    metadata_folded TEXT,               -- the same with every text value folded, keys as they are
    services      TEXT    NOT NULL,     -- a set: service.name of all spans
    services_folded TEXT  NOT NULL,
    tags          TEXT    NOT NULL,     -- a set: neatlogs.tags of the head and of its resource
    tags_folded   TEXT    NOT NULL
) STRICT;

-- These cover what is added up over many traces: the head of the list, the histogram, coverage; end users; sessions.
-- A row of `traces` is ten times as large, and where most of them have to be looked at, that is what takes the time.
CREATE INDEX traces_by_start
    ON traces (start, "end", end_user_folded, end_user, session, spans, errors, tokens, head_rank, service);
CREATE INDEX traces_by_end_user ON traces (end_user, start, "end", spans, errors, tokens, session)
    WHERE end_user IS NOT NULL;
-- Finds the latest metadata of an end user, however many traces without any lie after it.
CREATE INDEX traces_with_metadata ON traces (end_user, start) WHERE metadata IS NOT NULL;
CREATE INDEX traces_by_session ON traces (session, start) WHERE session IS NOT NULL;
-- What is too old, for retention.
CREATE INDEX traces_by_arrival ON traces (received);

-- What spans share, each once: a serialised ResourceSpans with the resource and its schema URL and without spans,
-- and a serialised ScopeSpans likewise.
CREATE TABLE resources (
    id        INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL UNIQUE,
    last_used INTEGER NOT NULL,         -- to the hour, never before a trace that uses it arrived; retention goes by it
    service   TEXT    NOT NULL,
    body      BLOB    NOT NULL
) STRICT;

CREATE TABLE scopes (
    id        INTEGER PRIMARY KEY,
    hash      BLOB    NOT NULL UNIQUE,
    last_used INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    body      BLOB    NOT NULL
) STRICT;

CREATE INDEX resources_by_use ON resources (last_used);
CREATE INDEX scopes_by_use ON scopes (last_used);

-- Spans of one trace that arrived in one request, compressed together: see `blocks.py`.
CREATE TABLE blocks (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- One row for each span: what a waterfall shows, and where the rest stands.
CREATE TABLE spans (
    trace     INTEGER NOT NULL,         -- traces.id
    span_id   BLOB    NOT NULL,
    parent_id BLOB    NOT NULL,         -- empty: a root span
    rank      INTEGER NOT NULL,         -- as traces.head_rank: 0 and 1 own identity, 2 does not
    name      TEXT    NOT NULL,
    kind      TEXT    NOT NULL,         -- llm, tool, agent, ... in lower case; '' where the span does not say
    otel_kind INTEGER NOT NULL,         -- SpanKind of OTLP: 0 unspecified ... 5 consumer
    start     INTEGER NOT NULL,
    "end"     INTEGER NOT NULL,
    status    INTEGER NOT NULL,         -- 0 unset, 1 ok, 2 error
    tokens    INTEGER NOT NULL,         -- total that counts for the trace
    resource  INTEGER NOT NULL,         -- resources.id
    scope     INTEGER NOT NULL,         -- scopes.id
    block     INTEGER NOT NULL,         -- blocks.id
    position  INTEGER NOT NULL,         -- which span of the block
    PRIMARY KEY (trace, span_id)
) STRICT, WITHOUT ROWID;

-- Identity that was ignored, once for each place and key; never the value.
CREATE TABLE overrides (
    trace     INTEGER NOT NULL,         -- traces.id; 0 for an instrumentation scope
    span_id   BLOB    NOT NULL,         -- empty for a scope
    place     TEXT    NOT NULL,         -- child, event, link, scope
    service   TEXT    NOT NULL,
    span_name TEXT    NOT NULL,         -- the scope's name for a scope
    key       TEXT    NOT NULL,
    received  INTEGER NOT NULL,         -- the last time it arrived
    PRIMARY KEY (trace, span_id, place, service, span_name, key)
) STRICT, WITHOUT ROWID;
