"""`wrap()` on OpenAI's client: each call becomes a trace with an end user, streams included.

    make run                                                    # in one terminal
    .venv/bin/python -m pip install --quiet --group examples    # in another: OpenAI's client and an instrumentation
    .venv/bin/python examples/wrap_openai.py

Needs no key: the client speaks to a stand-in on this machine. You see two traces, for `u_ada` and `u_grace`; under
each root is the span of the instrumentation that `wrap()` found and activated, with model, tokens and messages.
"""

from __future__ import annotations

import sys

from _fake_openai import fake_openai
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

import neatlogs_otel as neatlogs


def main() -> int:
    neatlogs.init(workflow_name="wrap-openai")
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tabs or spaces?"}]
    # With a key of your own: client = neatlogs.wrap(OpenAI())
    with fake_openai() as url, neatlogs.wrap(OpenAI(base_url=url, api_key="none")) as client:
        with neatlogs.identify(end_user_id="u_ada", end_user_metadata={"plan": "pro"}):
            whole = client.chat.completions.create(model="gpt-example", messages=question)
        print("u_ada:  ", whole.choices[0].message.content)

        # The root stays open until the stream is used up, closed or dropped.
        with neatlogs.identify(end_user_id="u_grace"):
            stream = client.chat.completions.create(model="gpt-example", messages=question, stream=True)
        print("u_grace:", "".join(chunk.choices[0].delta.content or "" for chunk in stream))
    if not neatlogs.shutdown():
        print("The traces did not arrive: is a processor running? Start one with: make run", file=sys.stderr)
        return 1
    print("Sent 2 traces; each root names its end user, and the model call below it says what happened.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
