"""A chat of several turns: each turn is a trace of its own, and the session holds them together.

    make run                                      # in one terminal
    .venv/bin/python examples/chat_session.py     # in another

You see five traces named `turn`: three of `u_ada` in one session, two of `u_grace` in another, although the two chats
take turns in one process.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator

import neatlogs_otel as neatlogs


# The span opens at the first word and closes with the last one, as a streamed answer needs it.
@neatlogs.span(kind="LLM", capture_output=True)
async def model(question: str) -> AsyncIterator[str]:
    for word in f"You asked: {question}".split():
        await asyncio.sleep(0)  # the other chat goes on meanwhile
        yield word


async def chat(end_user_id: str, plan: str, questions: list[str]) -> None:
    session_id = str(uuid.uuid4())
    for question in questions:
        async with neatlogs.trace(
            "turn", end_user_id=end_user_id, end_user_metadata={"plan": plan}, session_id=session_id
        ):
            words = [word async for word in model(question)]
        print(f"{end_user_id}: {' '.join(words)}")


async def both_chats() -> None:
    await asyncio.gather(
        chat("u_ada", "pro", ["Who are you?", "What can you do?", "Do it, please"]),
        chat("u_grace", "free", ["Is anyone there?", "Goodbye"]),
    )


def main() -> int:
    neatlogs.init(workflow_name="chat-session")
    asyncio.run(both_chats())
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print("Sent 5 traces in 2 sessions, each with one end user.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
