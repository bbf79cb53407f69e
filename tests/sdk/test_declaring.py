"""Where an end user goes that trace(), @span or set_end_user() names, and what is said when it goes nowhere."""

from __future__ import annotations

import contextvars
import gc

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan

import neatlogs_otel as neatlogs
from neatlogs_otel import _registry, _warnings
from neatlogs_otel._context import Attached
from support.recording import Recording, remote_parent


def test_trace_opens_the_root(recorded) -> None:
    """Where no span is active, trace() opens the root, which carries the end user; its children carry nothing."""
    with neatlogs.trace("chat", end_user_id="alice", end_user_metadata={"plan": "pro"}) as span:
        assert span is trace_api.get_current_span()
        with recorded.tracer.start_as_current_span("child"):
            pass
    assert recorded.identity("chat") == ("alice", {"plan": "pro"}, "trace")
    assert recorded.identity("child") == (None, None, None)
    assert recorded.named("child").parent == recorded.named("chat").context


async def test_trace_is_an_async_context_manager_too(recorded) -> None:
    """`async with` does the same."""
    async with neatlogs.trace("chat", end_user_id="alice") as span:
        assert span is trace_api.get_current_span()
    assert recorded.id_of("chat") == "alice"


def test_callables_are_called_when_the_block_is_entered(recorded) -> None:
    """Id and metadata may be callables; they are called once, on entering."""
    calls = []

    def current() -> str:
        calls.append("id")
        return "alice"

    block = neatlogs.trace("chat", end_user_id=current, end_user_metadata=lambda: {"plan": "pro"})
    assert calls == []
    with block:
        assert calls == ["id"]
    assert recorded.identity("chat") == ("alice", {"plan": "pro"}, "trace")


@pytest.mark.filterwarnings("error")
def test_an_asynchronous_callable_is_refused(recorded, said) -> None:
    """A callable that returns an awaitable is refused, because identity is needed at once."""

    async def later() -> str:
        return "alice"

    with neatlogs.trace("chat", end_user_id=later):
        pass
    assert recorded.id_of("chat") is None
    assert said.once("asynchronous", "set_end_user()")


def test_the_root_that_an_instrumentation_opened(recorded) -> None:
    """In a trace that an instrumentation has opened, trace() names the end user on that root, not on its own span."""
    with recorded.tracer.start_as_current_span("GET /chat"), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert recorded.identity("GET /chat") == ("alice", None, "trace")
    assert recorded.identity("chat") == (None, None, None)


def test_nested_declaration_has_no_effect(recorded, said) -> None:
    """Inside an open trace() another end user has no effect, on no span, and is one warning that says what to do."""
    for _ in range(3):
        with (
            neatlogs.trace("outer", end_user_id="alice"),
            recorded.tracer.start_as_current_span("between"),
            neatlogs.trace("inner", end_user_id="bob", end_user_metadata={"plan": "x"}),
        ):
            pass
    assert {recorded.exporter.get_finished_spans()[at].name for at in (0, 1, 2)} == {"inner", "between", "outer"}
    ids = {(span.name, (span.attributes or {}).get("neatlogs.end_user.id")) for span in recorded.spans}
    assert ids == {("inner", None), ("between", None), ("outer", "alice")}
    assert said.once("trace('inner')", "no effect", "trace('outer')", "set_end_user()")
    assert _warnings.count("override_ignored") == 3


def test_nested_declaration_in_a_nameless_trace(recorded, said) -> None:
    """Also where the outer trace() names nobody, an inner one has no effect and says so; set_end_user() works."""
    with neatlogs.trace("outer"), neatlogs.trace("inner", end_user_id="bob"):
        assert neatlogs.set_end_user("alice")
    assert recorded.id_of("outer") == "alice"
    assert said.once("trace('inner')", "no effect")


def test_nested_repetition_is_silent(recorded, said) -> None:
    """An inner declaration that repeats the root's identity is no mistake."""
    with neatlogs.trace("outer", end_user_id="alice", session_id="s1"):
        with neatlogs.trace("inner", end_user_id="alice", session_id="s1"):
            pass
        with neatlogs.trace("nameless"):
            pass
    assert said.nothing()


def test_set_end_user_late(recorded, default_user) -> None:
    """set_end_user() names the end user of the open root from any depth, and replaces a default."""
    default_user("by-init", {"plan": "free"})
    with (
        neatlogs.trace("outer"),
        recorded.tracer.start_as_current_span("a"),
        recorded.tracer.start_as_current_span("b"),
    ):
        assert neatlogs.set_end_user("alice", {"plan": "pro"})
        assert neatlogs.current_end_user() == neatlogs.EndUser("alice", '{"plan":"pro"}', "set_end_user")
    assert recorded.identity("outer") == ("alice", {"plan": "pro"}, "set_end_user")


@pytest.mark.parametrize("nobody", [None, "", "  "])
def test_set_end_user_to_nobody(recorded, said, nobody) -> None:
    """Naming nobody changes nothing and is no mistake."""
    with neatlogs.trace("chat", end_user_id=nobody):
        assert not neatlogs.set_end_user(nobody)
    assert recorded.identity("chat") == (None, None, None)
    assert said.nothing()


def test_set_end_user_without_a_trace(recorded, said) -> None:
    """Where no trace is open, set_end_user() has no effect and says so."""
    assert not neatlogs.set_end_user("alice")
    assert said.once("no trace is open")


def test_set_end_user_after_the_root_has_ended(recorded, said) -> None:
    """Once the root has ended nothing can be named; the warning says that it has ended."""
    root = recorded.tracer.start_span("root")
    with trace_api.use_span(root), recorded.tracer.start_as_current_span("child"):
        root.end()
        assert not neatlogs.set_end_user("alice")
    assert said.once("'child'", "has ended")


def test_trace_after_the_root_has_ended(recorded, said) -> None:
    """Work that outlives its request finds the root ended; the trace stays without it and the warning says so."""
    with recorded.tracer.start_as_current_span("root"):
        later = contextvars.copy_context()

    def background() -> None:
        with neatlogs.trace("background", end_user_id="alice"):
            pass

    later.run(background)
    assert recorded.id_of("root") is None
    assert recorded.id_of("background") is None
    assert said.once("trace('background')", "has ended")


def test_a_provider_without_our_span_processor(said) -> None:
    """A root whose provider has no span processor of ours cannot be found; the warning names the missing call."""
    foreign = Recording(ours=False)
    with foreign.tracer.start_as_current_span("server"):
        assert not neatlogs.set_end_user("alice")
    assert said.once("add_span_processor(neatlogs_otel.EndUserSpanProcessor())")


def test_a_root_that_trace_opens_needs_no_span_processor(record, default_user) -> None:
    """A root that trace() opens itself is complete without a span processor of ours: ranks, late naming, sessions."""
    recorded = record(ours=False)
    default_user("by-init", session_id="s1")
    with neatlogs.trace("one"):
        pass
    with neatlogs.identify(end_user_id="alice"), neatlogs.trace("two"):
        pass
    with neatlogs.trace("three"):
        assert neatlogs.set_end_user("bob")
    assert [recorded.identity(name)[::2] for name in ("one", "two", "three")] == [
        ("by-init", "init"),
        ("alice", "identify"),
        ("bob", "set_end_user"),
    ]
    assert recorded.session_of("one") == "s1"
    assert len(_registry.registry) == 0


def test_sampled_out(record, said) -> None:
    """A trace that is sampled out takes no end user, silently."""
    recorded = record(sampler=ALWAYS_OFF)
    with neatlogs.identify(end_user_id="carol"), neatlogs.trace("chat", end_user_id="alice"):
        assert not neatlogs.set_end_user("bob")
        with neatlogs.trace("inner", end_user_id="bob"):
            pass
    with (
        recorded.tracer.start_as_current_span("server"),
        neatlogs.trace("chat", end_user_id="alice"),
        neatlogs.identify(end_user_id="x"),
    ):
        pass
    assert recorded.spans == ()
    assert said.nothing()


def test_identify_serves_the_roots_of_others(recorded) -> None:
    """identify() names the end user and the session of every root opened inside, by whomever."""
    with neatlogs.identify(end_user_id=7, end_user_metadata={"plan": "pro"}, session_id="s1"):
        for name in ("one", "two"):
            with recorded.tracer.start_as_current_span(name):
                pass
    with recorded.tracer.start_as_current_span("after"):
        pass
    assert recorded.identity("one") == recorded.identity("two") == ("7", {"plan": "pro"}, "identify")
    assert recorded.session_of("one") == "s1"
    assert recorded.identity("after") == (None, None, None)


async def test_identify_is_an_async_context_manager_too(recorded) -> None:
    """`async with identify()` does the same."""
    async with neatlogs.identify(end_user_id="alice"):
        with recorded.tracer.start_as_current_span("one"):
            pass
    assert recorded.id_of("one") == "alice"


def test_identify_inside_an_open_trace(recorded, said) -> None:
    """identify() that no root took warns once when it ends inside a trace that was open already."""
    for _ in range(2):
        with (
            recorded.tracer.start_as_current_span("server"),
            neatlogs.identify(end_user_id="alice"),
            recorded.tracer.start_as_current_span("child"),
        ):
            pass
    assert {(s.attributes or {}).get("neatlogs.end_user.id") for s in recorded.spans} == {None}
    assert said.once("identify() had no effect", "'server'", "set_end_user()")


def test_identify_that_nobody_needed(recorded, said) -> None:
    """identify() around code that opened no trace at all is no mistake."""
    with neatlogs.identify(end_user_id="alice"):
        pass
    with recorded.tracer.start_as_current_span("server"), neatlogs.identify():
        pass
    assert said.nothing()


def test_identify_that_a_new_root_took_inside_a_trace(recorded, said) -> None:
    """Where a root was opened inside it after all, identify() has had its effect."""
    with recorded.tracer.start_as_current_span("server"), neatlogs.identify(end_user_id="alice"):
        recorded.tracer.start_span("job", context=trace_api.set_span_in_context(trace_api.INVALID_SPAN)).end()
    assert said.nothing()


def test_current_end_user(recorded, default_user) -> None:
    """current_end_user() is the trace's where one is open, else the one that a trace opened here would get."""
    assert neatlogs.current_end_user() is None
    default_user("by-init")
    assert neatlogs.current_end_user() == neatlogs.EndUser("by-init", None, "init")
    with neatlogs.identify(end_user_id="alice"):
        assert neatlogs.current_end_user() == neatlogs.EndUser("alice", None, "identify")
        with neatlogs.trace("chat", end_user_id="bob"), recorded.tracer.start_as_current_span("child"):
            assert neatlogs.current_end_user() == neatlogs.EndUser("bob", None, "trace")
    with Attached(remote_parent()):
        assert neatlogs.current_end_user() is None


def test_identity_attributes_on_a_child(recorded, said) -> None:
    """Identity attributes given to a trace() that opens a child are left out with a warning."""
    attributes = {"neatlogs.end_user.id": "mallory", "http.route": "/chat"}
    with recorded.tracer.start_as_current_span("server"), neatlogs.trace("chat", **attributes):
        pass
    assert recorded.id_of("chat") is None
    assert (recorded.named("chat").attributes or {})["http.route"] == "/chat"
    assert said.once("trace('chat')", "end_user_id=")


def test_identity_attributes_beside_the_parameter(recorded, said) -> None:
    """On a root, identity attributes stay as they are; beside end_user_id=... they are left out with a warning."""
    with neatlogs.trace("by attribute", **{"neatlogs.end_user.id": "alice"}):
        pass
    assert said.nothing()
    with neatlogs.trace("by both", end_user_id="bob", **{"neatlogs.end_user.id": "mallory"}):
        pass
    assert recorded.identity("by attribute") == ("alice", None, None)
    assert recorded.identity("by both") == ("bob", None, "trace")
    assert said.once("trace('by both')", "end_user_id=")


def test_a_metadata_callable_that_raises(recorded, said) -> None:
    """A callable for metadata that raises costs the metadata, not the id."""
    with neatlogs.trace("chat", end_user_id="alice", end_user_metadata=lambda: 1 / 0):
        pass
    assert recorded.identity("chat") == ("alice", None, "trace")
    assert said.once("end_user_metadata", "ZeroDivisionError", "not affected")


def test_leaving_what_was_never_entered(recorded) -> None:
    """Leaving a block that was not entered does nothing."""
    neatlogs.identify(end_user_id="alice").__exit__(None, None, None)
    neatlogs.trace("chat").__exit__(None, None, None)
    assert recorded.spans == ()


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("enduser_id", "end_user_id"),
        ("end_userid", "end_user_id"),
        ("endUserId", "end_user_id"),
        ("end_user", "end_user_id"),
        ("user_id", "end_user_id"),
        ("metadata", "end_user_metadata"),
        ("end_user_meta_data", "end_user_metadata"),
        ("session", "session_id"),
        ("sessionid", "session_id"),
        ("tag", "tags"),
    ],
)
def test_near_misses(recorded, said, keyword, meant) -> None:
    """A keyword that is nearly a parameter's name becomes an attribute, and warns once."""
    for _ in range(2):
        with neatlogs.trace("chat", **{keyword: "alice"}):
            pass
    assert said.once(repr(keyword), meant)
    assert all((span.attributes or {})[keyword] == "alice" for span in recorded.spans)


@pytest.mark.parametrize("keyword", ["model", "user_agent", "message_count", "http.route", "kinds_of_weather"])
def test_other_keywords_are_attributes(recorded, said, keyword) -> None:
    """Any other keyword is an attribute of the span."""
    with neatlogs.trace("chat", **{keyword: 1}):
        pass
    assert (recorded.named("chat").attributes or {})[keyword] == 1
    assert said.nothing()


def test_kinds(recorded) -> None:
    """The kind is written lower-case and in capitals under its two keys."""
    with neatlogs.trace("chat"), neatlogs.trace("search", kind="Tool"):
        pass
    chat, search = recorded.named("chat").attributes or {}, recorded.named("search").attributes or {}
    assert (chat["neatlogs.span.kind"], chat["openinference.span.kind"]) == ("workflow", "WORKFLOW")
    assert (search["neatlogs.span.kind"], search["openinference.span.kind"]) == ("tool", "TOOL")


@pytest.mark.parametrize("arguments", [{"kind": 3}, {"kind": ""}, {"mask": "x"}, {"tags": 5}])
def test_bad_arguments_do_not_raise(recorded, said, arguments) -> None:
    """A bad argument is a warning; the block runs in its span."""
    with neatlogs.trace("chat", end_user_id="alice", **arguments):
        pass
    assert recorded.id_of("chat") == "alice"
    assert said.once("trace('chat')")


def test_a_name_that_is_no_text(recorded, said) -> None:
    """A name that is no str is shown as its type."""
    with neatlogs.trace(5, end_user_id="alice"):
        pass
    assert recorded.id_of("<int>") == "alice"
    assert said.once("str")


def test_names_are_escaped_and_cut(recorded, said) -> None:
    """A span's name in a warning is escaped and cut to 100 characters."""
    with neatlogs.trace("evil\n\x1b[31m" + "x" * 500, end_user_id=True):
        pass
    assert "\n" not in said.messages[0]
    assert "\x1b" not in said.messages[0]
    assert "x" * 101 not in said.messages[0]


def test_exceptions_are_recorded_and_pass_unchanged(recorded) -> None:
    """An exception is recorded as OpenTelemetry does and reaches the caller as the same object."""
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught, neatlogs.trace("chat", end_user_id="alice"):
        raise error
    span = recorded.named("chat")
    assert caught.value is error
    assert span.status.status_code is trace_api.StatusCode.ERROR
    assert span.status.description == "ValueError: no"
    assert [event.name for event in span.events] == ["exception"]
    assert recorded.id_of("chat") == "alice"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0), GeneratorExit()], ids=repr)
def test_exits_are_no_errors(recorded, error) -> None:
    """Exceptions that are no Exception pass without making the span an error."""
    with pytest.raises(type(error)), neatlogs.trace("chat"):
        raise error
    assert recorded.named("chat").status.status_code is trace_api.StatusCode.UNSET


def test_one_block_may_be_entered_again(recorded) -> None:
    """A trace() object opens a new trace each time that it is entered."""
    block = neatlogs.trace("chat", end_user_id="alice")
    with block, block:
        pass
    with block:
        pass
    assert len({span.context.trace_id for span in recorded.spans}) == 2
    assert len(recorded.spans) == 3


def test_the_registry_forgets_ended_roots(recorded) -> None:
    """A root is known while it is open, and no longer."""
    with neatlogs.trace("chat"):
        assert len(_registry.registry) == 1
        with recorded.tracer.start_as_current_span("child"):
            assert len(_registry.registry) == 1
    assert len(_registry.registry) == 0


def test_the_registry_forgets_roots_that_never_end(recorded) -> None:
    """A root span that is dropped without ending is not kept."""
    for _ in range(10):
        recorded.tracer.start_span("forgotten")
    gc.collect()
    recorded.tracer.start_span("next").end()
    assert len(_registry.registry) == 0


def test_the_registry_is_bounded(recorded, said) -> None:
    """Beyond its bound the registry lets go of the oldest open roots, and says so once."""
    spans = [recorded.tracer.start_span("open") for _ in range(_registry.MAX_OPEN_ROOTS + 5)]
    assert len(_registry.registry) == _registry.MAX_OPEN_ROOTS
    with trace_api.use_span(spans[-1]):
        assert neatlogs.set_end_user("alice")
    assert said.once("never ended")
    for span in spans:
        span.end()
    assert len(_registry.registry) == 0


def test_a_context_from_elsewhere(recorded, said) -> None:
    """A span context that was handed on as such still finds its root in this process."""
    with recorded.tracer.start_as_current_span("root") as root:
        handed_on = trace_api.set_span_in_context(NonRecordingSpan(root.get_span_context()))
        with Attached(handed_on):
            assert neatlogs.set_end_user("alice")
    assert recorded.id_of("root") == "alice"
    assert said.nothing()
