"""A program for one person: `init()` names the end user once, and every trace of the process carries it.

    make run                                                          # in one terminal
    .venv/bin/python examples/single_user_cli.py --as u_812           # in another

You see two traces of workflow `notes-cli` for `u_812`. The operator, who runs the process, is something else: `user_id`
goes to the resource as `user.id` and never becomes the end user.
"""

from __future__ import annotations

import argparse
import os
import sys

import neatlogs_otel as neatlogs


@neatlogs.span(kind="WORKFLOW")
def summarise(note: str) -> str:
    with neatlogs.trace("shorten", kind="TOOL"):
        return note.split(".", maxsplit=1)[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Summarises notes.")
    parser.add_argument("--as", dest="end_user", default="u_812", help="the person whose notes these are")
    arguments = parser.parse_args()

    neatlogs.init(
        workflow_name="notes-cli",
        user_id=os.environ.get("USER"),
        end_user_id=arguments.end_user,
        end_user_metadata={"plan": "personal"},
        auto_session=True,
    )
    for note in ("Water the plants. All of them.", "Call Mum. She knows why."):
        print(summarise(note))
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print(f"Sent 2 traces; both are {arguments.end_user}'s and belong to one session.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
