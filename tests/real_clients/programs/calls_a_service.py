"""Opens a trace for an end user and calls a service inside it: python calls_a_service.py ENDPOINT URL USER."""

import sys
from urllib.request import Request, urlopen

from opentelemetry import propagate

import neatlogs_otel as neatlogs

endpoint, url, user = sys.argv[1:]
neatlogs.init(endpoint=endpoint, workflow_name="python-caller")
with neatlogs.trace("checkout", end_user_id=user, end_user_metadata={"via": "python"}):
    headers: dict[str, str] = {}
    propagate.inject(headers)
    with urlopen(Request(url, headers=headers), timeout=30) as response:  # noqa: S310  # the test's own service
        assert response.read() == b"served"
