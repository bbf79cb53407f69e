"""A multi-tenant program as written for the published neatlogs 1.4.27: identity is set for each trace.

Run as `python neatlogs_1_4_27.py http://127.0.0.1:PORT`; it sends its traces there and ends.
"""

import sys

import neatlogs

neatlogs.init(
    api_key="key-of-the-test",
    endpoint=sys.argv[1],
    workflow_name="support-bot",
    user_id="operator-7",
    tags=["nightly", "eu"],
)


@neatlogs.span(kind="TOOL", name="search")
def search(query: str) -> str:
    return f"results for {query}"


@neatlogs.span(kind="AGENT", name="agent")
def agent(question: str) -> str:
    # What the rule is there for: code below the root that writes the keys by hand.
    with neatlogs.trace(
        "step", **{"neatlogs.end_user.id": "u_forged", "neatlogs.end_user.metadata": '{"plan":"free"}'}
    ):
        return search(f'neatlogs.end_user.id is "{question}"')


@neatlogs.span(kind="WORKFLOW", name="anonymous")
def anonymous() -> None:
    agent("who am I?")


@neatlogs.span(kind="WORKFLOW", name="decorated", end_user_id="u_decorated", end_user_metadata={"plan": "pro"})
def decorated() -> None:
    agent("and now?")


anonymous()
decorated()
with neatlogs.trace("managed", kind="WORKFLOW", end_user_id="u_managed", session_id="session-1"):
    agent("and here?")
with neatlogs.identify(end_user_id="u_identified", end_user_metadata={"plan": "team"}, session_id="session-2"):
    anonymous()

neatlogs.flush()
neatlogs.shutdown()
