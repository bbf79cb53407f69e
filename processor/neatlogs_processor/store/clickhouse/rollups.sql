-- What the rollups take from rows of `otel_traces`, whoever wrote them. The same queries make the materialised views,
-- which see the rows of one insert, and the rebuild, which sees those of a day. Each has a name, and reads `$spans`,
-- which is the first of them.
--
-- This is the rule once more, in SQL, because what a Collector wrote has not been through our processor: identity
-- counts on root spans alone, and what stands on their resource is their default. On rows of ours it changes nothing.
-- Status and kind are spelled in two ways, because older Collectors wrote STATUS_CODE_ERROR for Error.

-- spans
WITH key -> match(key, '^neatlogs[.]end_user([.]|$)') AS is_identity
SELECT
    toDate(Timestamp, 'UTC') AS day,
    TraceId AS trace_id,
    SpanId AS span_id,
    -- Ids that are not eight bytes are none of OpenTelemetry's, and still are told apart.
    if(length(SpanId) = 16, reinterpretAsUInt64(reverse(unhex(SpanId))), sipHash64(SpanId)) AS span,
    multiIf(ParentSpanId = '', 1, SpanAttributes['neatlogs.entry_span'] = 'true', 0, 2) AS rank,
    greatest(toUnixTimestamp64Nano(Timestamp), 0) AS start,
    if(start = 0, 9223372036854775807, start) AS known_start,
    -- The Collector subtracts unsigned numbers: an end before the start is a duration beyond 2^63.
    greatest(toUnixTimestamp64Nano(Timestamp) + reinterpretAsInt64(Duration), 0) AS end,
    bitShiftLeft(toUInt128(rank), 126)
        + bitShiftLeft(toUInt128(least(known_start, 4611686018427387903)), 64)
        + toUInt128(span) AS head,
    multiIf(StatusCode IN ('Error', 'STATUS_CODE_ERROR'), 2, StatusCode IN ('Ok', 'STATUS_CODE_OK'), 1, 0) AS status,
    ServiceName AS service,
    SpanName AS span_name,
    if(rank < 2, SpanName, '') AS name,
    if(ResourceAttributes['neatlogs.workflow_name'] != '', ResourceAttributes['neatlogs.workflow_name'], name) AS workflow,
    multiIf(
        SpanAttributes['neatlogs.session.id'] != '', SpanAttributes['neatlogs.session.id'],
        SpanAttributes['session.id'] != '', SpanAttributes['session.id'],
        ResourceAttributes['session.id']) AS session,

    '[^\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]' AS visible,
    if(rank < 2 AND match(SpanAttributes['neatlogs.end_user.id'], visible), SpanAttributes['neatlogs.end_user.id'], '') AS own_id,
    if(rank < 2, SpanAttributes['neatlogs.end_user.metadata'], '') AS own_metadata,
    if(rank < 2, SpanAttributes['neatlogs.end_user.source'], '') AS own_source,
    -- A default is for roots without an id; its metadata is for those of them that have none either.
    if(rank < 2 AND own_id = '' AND match(ResourceAttributes['neatlogs.end_user.id'], visible),
        ResourceAttributes['neatlogs.end_user.id'], '') AS default_id,
    if(rank < 2 AND own_id = '' AND own_metadata = '', ResourceAttributes['neatlogs.end_user.metadata'], '') AS default_metadata,
    if(own_id != '', own_id, default_id) AS end_user,
    if(own_source = '' AND (default_id != '' OR default_metadata != ''), 'resource', own_source) AS source,
    if(own_metadata != '', own_metadata, default_metadata) AS said_metadata,
    if(lengthUTF8(said_metadata) <= 65536 AND isValidJSON(said_metadata) AND JSONType(said_metadata) = 'Object',
        said_metadata, '') AS metadata,

    arraySort(arrayDistinct(arrayFilter(tag -> tag != '', arrayMap(
        tag -> replaceRegexpAll(replaceAll(tag, '\n', ' '),
            '^[\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]+|[\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]+$', ''),
        arrayConcat(
            splitByChar(',', SpanAttributes['neatlogs.tags']),
            splitByChar(',', ResourceAttributes['neatlogs.tags'])))))) AS tag_list,
    if(empty(tag_list), '', concat('\n', arrayStringConcat(tag_list, '\n'), '\n')) AS tags,

    -- Tokens, as `rows.py` counts them: those of model calls, the newer key first, and whole numbers only.
    lowerUTF8(if(SpanAttributes['neatlogs.span.kind'] != '',
        SpanAttributes['neatlogs.span.kind'], SpanAttributes['openinference.span.kind'])) AS kind,
    if(kind != '', kind IN ('llm', 'embedding', 'reranker'),
        SpanAttributes['gen_ai.operation.name']
            NOT IN ('invoke_agent', 'create_agent', 'execute_tool', 'invoke_workflow')) AS is_model_call,
    arrayMap(
        said -> least(toUInt64OrZero(arrayFirst(text -> match(text, '^[0-9]{1,19}$'), said)), 9223372036854775807),
        [
            [SpanAttributes['gen_ai.usage.input_tokens'], SpanAttributes['gen_ai.usage.prompt_tokens'],
                SpanAttributes['llm.token_count.prompt']],
            [SpanAttributes['gen_ai.usage.output_tokens'], SpanAttributes['gen_ai.usage.completion_tokens'],
                SpanAttributes['llm.token_count.completion']],
            [SpanAttributes['gen_ai.usage.total_tokens'], SpanAttributes['llm.token_count.total']]
        ]) AS used,
    least(if(used[3] > 0, used[3], used[1] + used[2]), 9223372036854775807) AS used_total,

    arrayConcat(
        if(rank = 2, arrayMap(key -> ('child', key), arrayFilter(is_identity, mapKeys(SpanAttributes))), []),
        arrayMap(key -> ('event', key), arrayFilter(is_identity, arrayFlatten(arrayMap(one -> mapKeys(one), Events.Attributes)))),
        arrayMap(key -> ('link', key), arrayFilter(is_identity, arrayFlatten(arrayMap(one -> mapKeys(one), Links.Attributes))))
    ) AS ignored
FROM $source
WHERE replaceAll(TraceId, '0', '') != '' AND replaceAll(SpanId, '0', '') != ''
    AND NOT (SpanName = 'neatlogs.trace.complete' AND ParentSpanId != '' AND SpanAttributes['neatlogs.entry_span'] != 'true')

-- neatlogs_roots
SELECT
    day, end_user, trace_id, span_id, head, rank, start, status, service, name, workflow, session, source, metadata, tags
FROM ($spans)
WHERE rank < 2

-- neatlogs_traces
SELECT
    s.day AS day,
    s.trace_id AS trace_id,
    min(s.known_start) AS start,
    max(s.end) AS end,
    min(s.head) AS head,
    uniqExactState(s.span) AS spans,
    uniqExactIfState(s.span, s.status = 2) AS errors,
    uniqExactIfState(s.span, s.rank = 1) AS roots,
    uniqExactIfState(s.span, s.rank = 0) AS entries,
    groupUniqArrayIfState((s.span, s.used[1], s.used[2], s.used_total), s.is_model_call AND s.used_total > 0) AS tokens,
    groupUniqArrayIf(toString(s.service), s.service != '') AS services,
    argMinState(toUInt8(if(s.rank < 2, s.status, 0)), s.head) AS status,
    argMinState(toString(s.service), s.head) AS service,
    argMinState(toString(s.name), s.head) AS name,
    argMinState(toString(s.workflow), s.head) AS workflow,
    argMinState(s.session, s.head) AS session,
    argMinState(s.end_user, s.head) AS end_user,
    argMinState(s.source, s.head) AS source,
    argMinState(s.metadata, s.head) AS metadata,
    argMinState(s.tags, s.head) AS tags
FROM ($spans) AS s
GROUP BY day, trace_id

-- neatlogs_users
SELECT
    r.end_user AS end_user,
    min(if(r.start = 0, 9223372036854775807, r.start)) AS first_seen,
    max(r.start) AS last_seen,
    argMaxIfState(r.metadata, r.start, r.metadata != '') AS metadata
FROM ($roots) AS r
WHERE r.end_user != ''
GROUP BY end_user

-- neatlogs_overrides
SELECT DISTINCT
    s.trace_id AS trace_id,
    s.span_id AS span_id,
    one.1 AS place,
    s.service AS service,
    s.span_name AS span_name,
    one.2 AS key,
    toUnixTimestamp64Nano(now64(9)) AS received
FROM ($spans) AS s
ARRAY JOIN s.ignored AS one
