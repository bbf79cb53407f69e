"""One trace of the Traceloop SDK, whose user is known inside the workflow: python traceloop_sdk.py ENDPOINT."""

import sys

from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import task, workflow

(endpoint,) = sys.argv[1:]
Traceloop.init(
    app_name="shop",
    api_endpoint=endpoint,
    api_key="tl-test",
    disable_batch=True,
    telemetry_enabled=False,
    instruments=set(),
    traceloop_sync_enabled=False,
)


@task(name="llm")
def llm() -> None:
    """Open a child."""


@workflow(name="chat")
def chat() -> None:
    """Open the root, and say whom it serves."""
    Traceloop.set_association_properties({"user_id": "u_812", "session_id": "s_1", "plan": "pro", "seats": 3})
    llm()


chat()
