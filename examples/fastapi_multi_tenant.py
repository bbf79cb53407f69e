"""A FastAPI server for many users: each request's trace has the end user of that request.

    make run                                                    # in one terminal
    .venv/bin/python -m pip install --quiet --group examples    # in another: FastAPI and its instrumentation
    .venv/bin/python examples/fastapi_multi_tenant.py

The server answers twelve requests at the same time, from six users, and stops. You see twelve traces `POST /chat`, two
for each of `u_0` to `u_5`: FastAPI's instrumentation opens the root, `trace()` in the handler puts the end user on it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Annotated

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Header
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel

import neatlogs_otel as neatlogs


class User(BaseModel):
    id: str
    plan: str


class Question(BaseModel):
    text: str


def current_user(authorization: Annotated[str, Header()]) -> User:
    # A real application checks a token here.
    return User(id=authorization.removeprefix("Bearer "), plan="pro")


@neatlogs.span(kind="LLM", capture_input=True, capture_output=True)
async def model(text: str) -> str:
    await asyncio.sleep(0.05)  # many requests wait here at the same time
    return text[::-1]


app = FastAPI()


@app.post("/chat")
async def chat(question: Question, user: Annotated[User, Depends(current_user)]) -> dict[str, str]:
    with neatlogs.trace("chat", end_user_id=user.id, end_user_metadata={"plan": user.plan}):
        return {"answer": await model(question.text)}


FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])


async def ask_all(url: str) -> int:
    """Ask twelve questions at the same time and return how many were answered."""

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        headers = {"authorization": f"Bearer u_{number % 6}"}
        answer = await client.post("/chat", json={"text": f"question {number}"}, headers=headers)
        return answer.status_code

    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        return (await asyncio.gather(*(ask(client, number) for number in range(12)))).count(200)


async def serve_and_ask() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        answered = await ask_all(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        await serving
    return answered


def main() -> int:
    neatlogs.init(workflow_name="fastapi-multi-tenant")
    print(f"{asyncio.run(serve_and_ask())} of 12 requests answered")
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print("Sent 12 traces, two for each of u_0 to u_5.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
