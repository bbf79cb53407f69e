"""Sessions and tags: which one a trace gets, and when it gets none."""

from __future__ import annotations

import pytest

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel._process_default import auto_session_id


def test_ranks_of_sessions(recorded, default_user) -> None:
    """The session of trace() beats that of identify(), which beats that of init(), whoever names the end user."""
    default_user("by-init", session_id="of-init")
    with neatlogs.trace("one"):
        pass
    with neatlogs.identify(session_id="of-identify"):
        with neatlogs.trace("two", end_user_id="alice"):
            pass
        with neatlogs.trace("three", session_id="of-trace"):
            pass
    assert [recorded.session_of(name) for name in ("one", "two", "three")] == ["of-init", "of-identify", "of-trace"]


def test_a_session_for_the_root_of_others(recorded, default_user) -> None:
    """On an open root the session of trace() replaces the default."""
    default_user("by-init", session_id="of-init")
    with recorded.tracer.start_as_current_span("server"), neatlogs.trace("chat", session_id=17):
        pass
    assert recorded.session_of("server") == "17"
    assert recorded.session_of("chat") is None


def test_a_refused_session(recorded, default_user, said) -> None:
    """A session id that cannot be used leaves the trace without a session, not with another one."""
    default_user("by-init", session_id="of-init")
    with neatlogs.trace("chat", session_id=float("nan")):
        pass
    with recorded.tracer.start_as_current_span("server"), neatlogs.trace("inner", session_id=True):
        pass
    assert not recorded.session_of("chat")
    assert recorded.session_of("server") == ""
    assert recorded.id_of("chat") == "by-init"
    assert len(said.messages) == 2


def test_an_inner_session_has_no_effect(recorded, said) -> None:
    """A session named inside an open trace() has no effect and warns."""
    with neatlogs.trace("outer", session_id="s1"), neatlogs.trace("inner", session_id="s2"):
        pass
    assert recorded.session_of("outer") == "s1"
    assert said.once("session", "trace('inner')")


def test_auto_session(recorded, default_user, said) -> None:
    """auto_session is one id per process, for the traces whose identity comes from init()."""
    default_user("by-init", auto_session=True)
    for name in ("one", "two"):
        with neatlogs.trace(name):
            pass
    assert recorded.session_of("one") == recorded.session_of("two") == auto_session_id()
    assert said.nothing()


def test_auto_session_never_joins_users(recorded, default_user, said) -> None:
    """A trace with a user of its own never gets the automatic session, however late the user is named; said once."""
    default_user("by-init", auto_session=True)
    with neatlogs.trace("one", end_user_id="alice"):
        pass
    with recorded.tracer.start_as_current_span("two"):
        neatlogs.set_end_user("bob")
    assert recorded.session_of("one") is None
    assert recorded.session_of("two") == ""
    assert said.once("auto_session", "session_id=")


def test_auto_session_without_an_end_user(recorded, default_user) -> None:
    """Without an end user of init() there is nobody whose session it could be."""
    default_user(None, auto_session=True)
    with neatlogs.trace("one"):
        pass
    assert recorded.session_of("one") is None


def test_an_explicit_session_beats_the_automatic_one(recorded, default_user) -> None:
    """A session that the call names is used instead."""
    default_user("by-init", auto_session=True)
    with neatlogs.trace("one", session_id="s1"):
        pass
    assert recorded.session_of("one") == "s1"


@pytest.mark.parametrize("way", ["own root", "root of others", "nested"])
def test_tags_go_to_the_root(recorded, way) -> None:
    """Tags of a trace() stand on the trace's root where it can take them, else on the span itself."""
    if way == "own root":
        with neatlogs.trace("root", tags=["beta", "eu"]):
            pass
    elif way == "root of others":
        with recorded.tracer.start_as_current_span("root"), neatlogs.trace("chat", tags="beta,eu"):
            pass
    else:
        with neatlogs.trace("outer"), neatlogs.trace("root", tags=("beta", "eu")):
            pass
    assert (recorded.named("root").attributes or {})[keys.TAGS] == "beta,eu"


def test_tags_of_several_blocks_unite(recorded) -> None:
    """Several blocks under one root add their tags."""
    with recorded.tracer.start_as_current_span("root"):
        for tags in (["a", "b"], ["b", "c"]):
            with neatlogs.trace("chat", tags=tags):
                pass
    assert (recorded.named("root").attributes or {})[keys.TAGS] == "a,b,c"
