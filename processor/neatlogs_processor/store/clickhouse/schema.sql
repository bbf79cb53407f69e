-- Version 1 of the tables. Later versions are steps in migrating.py.
--
-- `otel_traces` and `otel_traces_trace_id_ts` are those of the OpenTelemetry Collector's ClickHouse exporter
-- (https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/clickhouseexporter), column for
-- column, so that its rows are on our page and ours in its tables. Every attribute is text there.
--
-- The rollups are filled by the views below whenever rows enter `otel_traces`, whoever writes them. A view's insert is
-- not atomic with the table's, a request can arrive twice and a block can be inserted again: so every column of a
-- rollup is one that takes the same span twice without counting it twice. What is summed is kept by span.
--
-- Times are nanoseconds since the epoch. Text is '' where nobody said anything. `day` is the day, in UTC, in which a
-- span starts; a trace has a row for each day of its spans, and several for one day until parts are merged.
-- The head of a trace is the span that speaks for it; see `schema.sql` of the embedded store, and `head` below.

CREATE TABLE IF NOT EXISTS otel_traces
(
    Timestamp          DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TraceId            String CODEC(ZSTD(1)),
    SpanId             String CODEC(ZSTD(1)),
    ParentSpanId       String CODEC(ZSTD(1)),
    TraceState         String CODEC(ZSTD(1)),
    SpanName           LowCardinality(String) CODEC(ZSTD(1)),
    SpanKind           LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName        LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName          String CODEC(ZSTD(1)),
    ScopeVersion       String CODEC(ZSTD(1)),
    SpanAttributes     Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration           UInt64 CODEC(ZSTD(1)),
    StatusCode         LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage      String CODEC(ZSTD(1)),
    Events             Nested (Timestamp DateTime64(9), Name LowCardinality(String),
                               Attributes Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    Links              Nested (TraceId String, SpanId String, TraceState String,
                               Attributes Map(LowCardinality(String), String)) CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_duration Duration TYPE minmax GRANULARITY 1
)
ENGINE = $merge_tree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
$ttl_timestamp
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1$window;

CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts
(
    TraceId String CODEC(ZSTD(1)),
    Start   DateTime CODEC(Delta(4), ZSTD(1)),
    End     DateTime CODEC(Delta(4), ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = $merge_tree
PARTITION BY toDate(Start)
ORDER BY (TraceId, Start)
$ttl_start
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1$window;

CREATE MATERIALIZED VIEW IF NOT EXISTS otel_traces_trace_id_ts_mv TO otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End FROM otel_traces WHERE TraceId != '' GROUP BY TraceId;

-- What each span says of itself and of its trace, worked out once for all the views below. It keeps nothing.
CREATE TABLE IF NOT EXISTS neatlogs_spans
(
    day           Date,
    trace_id      String,
    span_id       String,
    span          UInt64,                             -- the span id as a number
    rank          UInt8,
    start         Int64,
    known_start   Int64,
    end           Int64,
    head          UInt128,
    status        UInt8,
    service       LowCardinality(String),
    span_name     LowCardinality(String),
    name          String,
    workflow      String,
    session       String,
    end_user      String,
    source        String,
    metadata      String,
    tags          String,
    is_model_call UInt8,
    used_input    UInt64,
    used_output   UInt64,
    used_total    UInt64,
    ignored       Array(Tuple(String, String))        -- place and key of identity that is ignored
)
ENGINE = Null;

-- One row for each span that may speak for its trace: roots, and entry spans of listed services. It finds the traces of
-- an end user, and what anybody's latest metadata is. A span that arrives twice has two rows until parts are merged.
CREATE TABLE IF NOT EXISTS neatlogs_roots
(
    day       Date,
    end_user  String CODEC(ZSTD(1)),
    trace_id  String CODEC(ZSTD(1)),                  -- as in otel_traces: hexadecimal digits
    span_id   String CODEC(ZSTD(1)),
    head      UInt128,                                -- its place among the spans of its trace; see neatlogs_traces
    rank      UInt8,                                  -- 0: entry span of a listed service, 1: root span
    start     Int64 CODEC(Delta(8), ZSTD(1)),         -- 0 where the sender said nothing
    status    UInt8,                                  -- 0 unset, 1 ok, 2 error
    service   LowCardinality(String),
    name      String CODEC(ZSTD(1)),
    workflow  String CODEC(ZSTD(1)),
    session   String CODEC(ZSTD(1)),
    source    LowCardinality(String),
    metadata  String CODEC(ZSTD(1)),                  -- the text as it was sent; '' unless it is a JSON object
    tags      String CODEC(ZSTD(1)),                  -- a set: every member stands between line feeds
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_session session TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_start start TYPE minmax GRANULARITY 1
)
ENGINE = $replacing
PARTITION BY day
ORDER BY (end_user, trace_id, span_id)
$ttl_day
SETTINGS ttl_only_drop_parts = 1$window;

-- One row for each trace and day until merged: the sum of its spans. Completion markers are not counted.
CREATE TABLE IF NOT EXISTS neatlogs_traces
(
    day       Date,
    trace_id  String CODEC(ZSTD(1)),
    start     SimpleAggregateFunction(min, Int64),    -- the earliest that a span states; 2^63 - 1 where none does
    end       SimpleAggregateFunction(max, Int64),    -- the latest
    -- The head's place: its rank in the 2 highest bits (2: a span that is neither), its start in 62, its span id in 64.
    head      SimpleAggregateFunction(min, UInt128),
    spans     AggregateFunction(uniqExact, UInt64),   -- by span id
    errors    AggregateFunction(uniqExactIf, UInt64, UInt8),
    roots     AggregateFunction(uniqExactIf, UInt64, UInt8),
    entries   AggregateFunction(uniqExactIf, UInt64, UInt8),
    -- Of model calls: span id, input, output, total.
    tokens    AggregateFunction(groupUniqArrayIf, Tuple(UInt64, UInt64, UInt64, UInt64), UInt8),
    services  SimpleAggregateFunction(groupUniqArrayArray, Array(String)),
    -- What the head says. While no root is here, `name`, `end_user`, `source` and `metadata` are '', and `status` is 0.
    status    AggregateFunction(argMin, UInt8, UInt128),
    service   AggregateFunction(argMin, String, UInt128),
    name      AggregateFunction(argMin, String, UInt128),
    workflow  AggregateFunction(argMin, String, UInt128),
    session   AggregateFunction(argMin, String, UInt128),
    end_user  AggregateFunction(argMin, String, UInt128),
    source    AggregateFunction(argMin, String, UInt128),
    metadata  AggregateFunction(argMin, String, UInt128),
    tags      AggregateFunction(argMin, String, UInt128)
)
ENGINE = $aggregating
PARTITION BY day
ORDER BY trace_id
$ttl_day
SETTINGS index_granularity = 1024, ttl_only_drop_parts = 1$window;

-- One row for each end user whom a root names, until merged. Of conflicting roots it knows all, and cannot know which
-- of them speaks for its trace: it finds end users, and neatlogs_traces says what is theirs.
CREATE TABLE IF NOT EXISTS neatlogs_users
(
    end_user   String CODEC(ZSTD(1)),
    first_seen SimpleAggregateFunction(min, Int64),   -- start of a root; 2^63 - 1 where it has none
    last_seen  SimpleAggregateFunction(max, Int64),
    metadata   AggregateFunction(argMaxIf, String, Int64, UInt8)  -- the latest that there is; '' where there is none
)
ENGINE = $aggregating
ORDER BY end_user
SETTINGS index_granularity = 1024$window;

-- Identity that was ignored, once for each place and key; never the value.
CREATE TABLE IF NOT EXISTS neatlogs_overrides
(
    trace_id  String CODEC(ZSTD(1)),                  -- '' for an instrumentation scope
    span_id   String CODEC(ZSTD(1)),
    place     LowCardinality(String),                 -- child, event, link, scope
    service   LowCardinality(String),
    span_name String CODEC(ZSTD(1)),                  -- the scope's name for a scope
    key       LowCardinality(String),
    received  Int64 CODEC(Delta(8), ZSTD(1))          -- the last time it arrived
)
ENGINE = $replacing_received
ORDER BY (trace_id, span_id, place, service, span_name, key)
$ttl_received
SETTINGS index_granularity = 1024$window;

-- What else has to be remembered: the version of these tables (`schema`), how far a copy has come (`copy ...`).
CREATE TABLE IF NOT EXISTS neatlogs_state
(
    name  String,
    value String,
    at    DateTime64(6) DEFAULT now64(6)
)
ENGINE = $replacing_at
ORDER BY name;
