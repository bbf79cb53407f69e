"""A program that lets a published neatlogs package capture its log lines beside its traces.

Run as `python neatlogs_logs.py http://127.0.0.1:PORT`; it sends both there and ends.
"""

import logging
import sys

import neatlogs

neatlogs.init(api_key="key-of-the-test", endpoint=sys.argv[1], workflow_name="support-bot", capture_logs=True)


@neatlogs.span(kind="WORKFLOW", name="logging", end_user_id="u_logging")
def work() -> None:
    logging.getLogger("shop").warning("looked for the order")
    neatlogs.log("found the order")


work()
neatlogs.flush()
neatlogs.shutdown()
