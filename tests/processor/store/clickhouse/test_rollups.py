"""The rollups of ClickHouse equal their recomputation from all distinct spans, however these arrive."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from support.clickhouse_store import POLICY, Database, rollups_of
from support.store_oracle import Sent, rollups
from support.store_strategies import ENTRY_SERVICE, deliveries, sent_spans

POLICIES = [POLICY, EndUserPolicy("entry", frozenset({ENTRY_SERVICE}))]
TRACE = b"\x01" * 16
# The last moment that ClickHouse knows stands for "not said", as 0 does.
_MOST = 2**63 - 1


def plain(sent: list[Sent]) -> list[Sent]:
    """Leave out what the Collector's table cannot tell from text: sessions that are neither text nor a whole number."""
    for one in sent:
        kept = [
            attribute
            for attribute in one.span.attributes
            if attribute.key != "session.id" or attribute.value.WhichOneof("value") in ("string_value", "int_value")
        ]
        del one.span.attributes[:]
        one.span.attributes.extend(kept)
    return sent


def comparable(found: dict[bytes, dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """Return rollups with what both sides say."""
    compared = {}
    for trace_id, said in found.items():
        said = {name: value for name, value in said.items() if name not in ("duration", "head_start", "head_span_id")}
        said["start"] %= _MOST
        compared[trace_id] = said
    return compared


@settings(max_examples=8, deadline=None)
@given(data=st.data(), sent=sent_spans().map(plain), policy=st.sampled_from(POLICIES))
def test_rollups_equal_the_recomputation(
    shared: Database, data: st.DataObject, sent: list[Sent], policy: EndUserPolicy
) -> None:
    """Whatever the order, the requests, the inserts and the repetitions, each span counts once."""
    shared.empty()
    with shared.writer(policy) as writer:
        for bodies in data.draw(deliveries(sent)):
            writer.write([Request(Signal.TRACES, body) for body in bodies])
    assert comparable(rollups_of(shared.client)) == comparable(rollups(sent, policy.entry_services))
