-- What the rollups take from rows of `otel_traces`, whoever wrote them. These queries are the materialised views. The
-- first one reads `$source`: that is `otel_traces`, or for the rebuild the rows of a day; the others share its answers.
-- Its columns stand in the order of the table's.
--
-- This is the rule once more, in SQL, because what a Collector wrote has not been through our processor: identity
-- counts on root spans alone, and what stands on their resource is their default. On rows of ours it changes nothing.
-- A status is spelled in two ways, because older Collectors wrote STATUS_CODE_ERROR for Error.

-- neatlogs_spans
SELECT
    day, trace_id, span_id, span, rank, start, known_start, end,
    bitShiftLeft(toUInt128(rank), 126)
        + bitShiftLeft(toUInt128(least(known_start, 4611686018427387903)), 64)
        + toUInt128(span) AS head,
    status, service, span_name, name, workflow, session,
    if(own_id != '', own_id, default_id) AS end_user,
    if(own_source = '' AND (default_id != '' OR default_metadata != ''), 'resource', own_source) AS source,
    if(said_metadata != '' AND lengthUTF8(said_metadata) <= 65536 AND JSONType(said_metadata) = 'Object'
        AND isValidJSON(said_metadata), said_metadata, '') AS metadata,
    if(empty(tag_list), '', concat('\n', arrayStringConcat(tag_list, '\n'), '\n')) AS tags,
    is_model_call, used_input, used_output,
    least(if(said_total > 0, said_total, used_input + used_output), 9223372036854775807) AS used_total,
    ignored
FROM
(
    SELECT
        *,
        if(start = 0, 9223372036854775807, start) AS known_start,
        if(rank < 2, span_name, '') AS name,
        if(workflow_name != '', workflow_name, name) AS workflow,
        multiIf(new_session != '', new_session, old_session != '', old_session, default_session) AS session,
        -- An id of nothing but white space is none.
        if(rank < 2 AND match(said_id, '[^\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]'), said_id, '') AS own_id,
        if(rank < 2, said_own_metadata, '') AS own_metadata,
        if(rank < 2, said_source, '') AS own_source,
        -- A default is for roots without an id; its metadata is for those of them that have none either.
        if(rank < 2 AND own_id = '' AND match(resource_id, '[^\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]'),
            resource_id, '') AS default_id,
        if(rank < 2 AND own_id = '' AND own_metadata = '', resource_metadata, '') AS default_metadata,
        if(own_metadata != '', own_metadata, default_metadata) AS said_metadata,
        if(said_tags = ',', [], arraySort(arrayDistinct(arrayFilter(tag -> tag != '', arrayMap(
            tag -> replaceRegexpAll(replaceAll(tag, '\n', ' '),
                '^[\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]+|[\\s\\p{Z}\\x0b\\x1c-\\x1f\\x{85}]+$', ''),
            splitByChar(',', said_tags)))))) AS tag_list,
        -- Tokens, as `rows.py` counts them: those of model calls, the newer key first, and whole numbers only.
        if(kind != '', kind IN ('llm', 'embedding', 'reranker'),
            operation NOT IN ('invoke_agent', 'create_agent', 'execute_tool', 'invoke_workflow')) AS is_model_call,
        least(toUInt64OrZero(arrayFirst(text -> match(text, '^[0-9]{1,19}$'), said_input)), 9223372036854775807)
            AS used_input,
        least(toUInt64OrZero(arrayFirst(text -> match(text, '^[0-9]{1,19}$'), said_output)), 9223372036854775807)
            AS used_output,
        least(toUInt64OrZero(arrayFirst(text -> match(text, '^[0-9]{1,19}$'), said_totals)), 9223372036854775807)
            AS said_total,
        arrayConcat(
            arrayMap(key -> ('child', key), if(rank = 2, keys_of_span, [])),
            arrayMap(key -> ('event', key), keys_of_events),
            arrayMap(key -> ('link', key), keys_of_links)) AS ignored
    FROM
    (
        SELECT
            -- A Date is between 1970-01-01 and 2149-06-06; times outside are of its first or its last day.
            toDate(greatest(toDateTime64('1970-01-01 00:00:00', 9, 'UTC'),
                least(Timestamp, toDateTime64('2149-06-06 00:00:00', 9, 'UTC'))), 'UTC') AS day,
            TraceId AS trace_id,
            SpanId AS span_id,
            -- Ids that are not eight bytes are none of OpenTelemetry's, and still are told apart.
            if(length(SpanId) = 16, reinterpretAsUInt64(reverse(unhex(SpanId))), sipHash64(SpanId)) AS span,
            multiIf(ParentSpanId = '', 1, SpanAttributes['neatlogs.entry_span'] = 'true', 0, 2) AS rank,
            greatest(toUnixTimestamp64Nano(Timestamp), 0) AS start,
            -- The Collector subtracts unsigned numbers: an end before the start is a duration beyond 2^63.
            greatest(toUnixTimestamp64Nano(Timestamp) + reinterpretAsInt64(Duration), 0) AS end,
            multiIf(StatusCode IN ('Error', 'STATUS_CODE_ERROR'), 2,
                StatusCode IN ('Ok', 'STATUS_CODE_OK'), 1, 0) AS status,
            ServiceName AS service,
            SpanName AS span_name,
            ResourceAttributes['neatlogs.workflow_name'] AS workflow_name,
            SpanAttributes['neatlogs.session.id'] AS new_session,
            SpanAttributes['session.id'] AS old_session,
            ResourceAttributes['session.id'] AS default_session,
            SpanAttributes['neatlogs.end_user.id'] AS said_id,
            SpanAttributes['neatlogs.end_user.metadata'] AS said_own_metadata,
            SpanAttributes['neatlogs.end_user.source'] AS said_source,
            ResourceAttributes['neatlogs.end_user.id'] AS resource_id,
            ResourceAttributes['neatlogs.end_user.metadata'] AS resource_metadata,
            concat(SpanAttributes['neatlogs.tags'], ',', ResourceAttributes['neatlogs.tags']) AS said_tags,
            lowerUTF8(if(SpanAttributes['neatlogs.span.kind'] != '',
                SpanAttributes['neatlogs.span.kind'], SpanAttributes['openinference.span.kind'])) AS kind,
            SpanAttributes['gen_ai.operation.name'] AS operation,
            [SpanAttributes['gen_ai.usage.input_tokens'], SpanAttributes['gen_ai.usage.prompt_tokens'],
                SpanAttributes['llm.token_count.prompt']] AS said_input,
            [SpanAttributes['gen_ai.usage.output_tokens'], SpanAttributes['gen_ai.usage.completion_tokens'],
                SpanAttributes['llm.token_count.completion']] AS said_output,
            [SpanAttributes['gen_ai.usage.total_tokens'], SpanAttributes['llm.token_count.total']] AS said_totals,
            arrayFilter(key -> match(key, '^neatlogs[.]end_user([.]|$)'), mapKeys(SpanAttributes)) AS keys_of_span,
            arrayFilter(key -> match(key, '^neatlogs[.]end_user([.]|$)'),
                arrayFlatten(arrayMap(one -> mapKeys(one), Events.Attributes))) AS keys_of_events,
            arrayFilter(key -> match(key, '^neatlogs[.]end_user([.]|$)'),
                arrayFlatten(arrayMap(one -> mapKeys(one), Links.Attributes))) AS keys_of_links
        FROM $source
        WHERE replaceAll(TraceId, '0', '') != '' AND replaceAll(SpanId, '0', '') != ''
            AND NOT (SpanName = 'neatlogs.trace.complete' AND ParentSpanId != ''
                AND SpanAttributes['neatlogs.entry_span'] != 'true')
    )
)

-- neatlogs_roots
SELECT
    day, end_user, trace_id, span_id, head, rank, start, status, service, name, workflow, session,
    source, metadata, tags
FROM neatlogs_spans
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
    groupUniqArrayIfState((s.span, s.used_input, s.used_output, s.used_total),
        s.is_model_call AND s.used_total > 0) AS tokens,
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
FROM neatlogs_spans AS s
GROUP BY day, trace_id

-- neatlogs_users
SELECT
    r.end_user AS end_user,
    min(if(r.start = 0, 9223372036854775807, r.start)) AS first_seen,
    max(r.start) AS last_seen,
    argMaxIfState(r.metadata, r.start, r.metadata != '') AS metadata
FROM neatlogs_roots AS r
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
FROM neatlogs_spans AS s
ARRAY JOIN s.ignored AS one
