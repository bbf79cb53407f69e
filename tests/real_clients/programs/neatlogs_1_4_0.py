"""A single-user program as written for the published neatlogs 1.4.0: `init()` sets the end user for the process.

Run as `python neatlogs_1_4_0.py http://127.0.0.1:PORT`; it sends its traces there and ends.
"""

import sys

import neatlogs
from opentelemetry import trace as otel_trace

neatlogs.init(
    api_key="key-of-the-test",
    endpoint=sys.argv[1],
    workflow_name="support-bot",
    user_id="operator-7",
    end_user_id="u_default",
    end_user_metadata={"plan": "free", "seats": 3},
    session_id="session-1",
    tags=["nightly", "eu"],
)


@neatlogs.span(kind="TOOL", name="search")
def search(query: str) -> str:
    # What the rule is there for: code below the root that writes the keys by hand.
    otel_trace.get_current_span().set_attribute("neatlogs.end_user.id", "u_forged")
    return f"results for {query}"


@neatlogs.span(kind="AGENT", name="agent")
def agent(question: str) -> str:
    otel_trace.get_current_span().set_attribute("input.value", f'neatlogs.end_user.id is "{question}"')
    return search(question)


@neatlogs.span(kind="WORKFLOW", name="defaulted")
def defaulted() -> None:
    agent("who am I?")


@neatlogs.span(kind="WORKFLOW", name="decorated", end_user_id="u_decorated", end_user_metadata={"plan": "pro"})
def decorated() -> None:
    agent("and now?")


defaulted()
decorated()
with neatlogs.trace("managed", end_user_id="u_managed"):
    agent("and here?")

neatlogs.flush()
neatlogs.shutdown()
