"""A workflow in decorators: each call of the outermost function is one trace with its own end user.

    make run                                            # in one terminal
    .venv/bin/python examples/decorated_workflow.py     # in another

You see three traces named `answer`, for `u_ada`, `u_grace` and `u_linus`, three spans each. One of the tools claims
another end user: the claim is ignored, with a warning here and a count in the processor.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import neatlogs_otel as neatlogs


@dataclass(frozen=True)
class User:
    id: str
    plan: str


@dataclass(frozen=True)
class Ticket:
    user: User
    text: str


@neatlogs.span(kind="TOOL", capture_input=True, capture_output=True)
def search(text: str) -> list[str]:
    return [f"How to {text.lower()}", "How to reach a human"]


# One end user per trace, and the root owns it: this claim has no effect.
@neatlogs.span(kind="AGENT", end_user_id="u_somebody_else")
def draft(text: str) -> str:
    return "; ".join(search(text))


# The callables get the arguments of each call, so a decorator at import time serves many users.
@neatlogs.span(
    "answer",
    kind="WORKFLOW",
    end_user_id=lambda ticket: ticket.user.id,
    end_user_metadata=lambda ticket: {"plan": ticket.user.plan},
)
def answer(ticket: Ticket) -> str:
    return f"Dear {ticket.user.id}: {draft(ticket.text)}"


def main() -> int:
    neatlogs.init(workflow_name="decorated-workflow")
    for ticket in (
        Ticket(User("u_ada", "pro"), "Reset my password"),
        Ticket(User("u_grace", "free"), "Export my data"),
        Ticket(User("u_linus", "pro"), "Close my account"),
    ):
        print(answer(ticket))
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print("Sent 3 traces; the processor shows one end user for each, and no u_somebody_else.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
