"""Whatever requests do at once, in whatever order: no trace ever carries the user of another request."""

from __future__ import annotations

import contextvars
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel import _registry, _warnings
from neatlogs_otel import conventions as keys
from neatlogs_otel._identity import EndUser
from neatlogs_otel._process_default import ProcessDefault, set_process_default
from neatlogs_otel._provider import use_tracer_provider
from support.recording import Recording, remote_parent

REQUESTS = 4
openings = st.sampled_from(["server", "entry", "entry", "trace", "trace with user", "identify"])
steps = st.tuples(
    st.integers(0, REQUESTS - 1),
    st.sampled_from(
        ["child", "child", "set", "set", "end", "trace", "trace with user", "identify", "refused", "entry", "server"]
    ),
)
programs = st.builds(
    lambda first, then: [*enumerate(first), *then],
    st.lists(openings, min_size=REQUESTS, max_size=REQUESTS),
    st.lists(steps, min_size=10, max_size=40),
)


class Request:
    """One request with a context of its own and a stack of what it has open."""

    def __init__(self, number: int, recorded: Recording) -> None:
        self.number = number
        self.recorded = recorded
        self.context = contextvars.Context()
        self.opened: list[Any] = []
        self.users = 0

    def user(self) -> str:
        self.users += 1
        return f"{self.number}-{self.users}"

    def do(self, what: str) -> None:
        name, tracer = f"{self.number}", self.recorded.tracer
        block: Any = None
        if what == "server" or what == "child":
            block = tracer.start_as_current_span(name)
        elif what == "entry":
            # All requests come in under one traceparent: the hardest case.
            block = tracer.start_as_current_span(name, context=remote_parent())
        elif what == "trace":
            block = neatlogs.trace(name)
        elif what == "trace with user":
            block = neatlogs.trace(name, end_user_id=self.user(), end_user_metadata={"of": self.number})
        elif what == "identify":
            block = neatlogs.identify(end_user_id=self.user(), end_user_metadata={"of": self.number})
        elif what == "set":
            neatlogs.set_end_user(self.user(), {"of": self.number})
        elif what == "refused":
            neatlogs.set_end_user(True)
        elif self.opened:
            self.opened.pop().__exit__(None, None, None)
        if block is not None:
            block.__enter__()
            self.opened.append(block)
        current = neatlogs.current_end_user()
        assert current is None or current.id == "by-init" or (current.id or "").startswith(f"{self.number}-")


@settings(max_examples=150, deadline=None)
@given(programs, st.booleans(), st.sampled_from(["trace", "entry"]))
def test_no_interleaving_mixes_users(program, with_default, roots) -> None:
    """Each root carries a user of its own request, the process default, or nobody; its metadata is of the same hand."""
    _warnings.reset()
    _warnings.logger.disabled = True
    recorded = Recording(roots=roots)
    before = use_tracer_provider(recorded.provider)
    set_process_default(ProcessDefault(EndUser("by-init", '{"of":"init"}', "init")) if with_default else None)
    requests = [Request(number, recorded) for number in range(REQUESTS)]
    try:
        for number, what in program:
            requests[number].context.run(requests[number].do, what)
        for request in requests:
            while request.opened:
                request.context.run(request.do, "end")
            assert request.context.run(trace_api.get_current_span) is trace_api.INVALID_SPAN
    finally:
        use_tracer_provider(before)
        set_process_default(None)
        _warnings.logger.disabled = False
    for span in recorded.spans:
        attributes = span.attributes or {}
        user, metadata = attributes.get(keys.END_USER_ID), attributes.get(keys.END_USER_METADATA)
        if span.parent is not None and (roots == "trace" or not span.parent.is_remote):
            assert user is metadata is None
        elif not user:
            assert metadata in (None, "{}")
        elif user == "by-init":
            assert metadata == '{"of":"init"}'
        else:
            assert str(user).split("-")[0] == span.name
            assert metadata == f'{{"of":{span.name}}}'
    assert len(_registry.registry) == 0
