"""The process default of the environment: the variables `NEATLOGS_END_USER_*` and `NEATLOGS_SESSION_ID`."""

from __future__ import annotations

import json

import pytest

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from support.recording import Recording

ID, METADATA, SESSION = "NEATLOGS_END_USER_ID", "NEATLOGS_END_USER_METADATA", "NEATLOGS_SESSION_ID"


def root_of(recording: Recording) -> dict[str, object]:
    """What a root carries that an instrumentation opens now."""
    recording.exporter.clear()
    with recording.tracer.start_as_current_span("request"):
        pass
    return {key: value for key, value in (recording.spans[0].attributes or {}).items() if key.startswith("neatlogs.")}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variable in (ID, METADATA, SESSION):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_the_variables_are_the_process_default(recorded, environment, said) -> None:
    """Without any call of ours, a root carries the end user and session of the environment, as those of `init()`."""
    environment.setenv(ID, "u_812")
    environment.setenv(METADATA, '{"plan": "pro", "seats": 3}')
    environment.setenv(SESSION, "s_1")
    assert root_of(recorded) == {
        keys.END_USER_ID: "u_812",
        keys.END_USER_METADATA: '{"plan":"pro","seats":3}',
        keys.END_USER_SOURCE: "init",
        keys.SESSION_ID: "s_1",
    }
    assert said.nothing()


def test_a_trace_s_own_end_user_beats_the_variables(recorded, environment) -> None:
    """`trace()` names another end user, and nothing of the environment's joins it."""
    environment.setenv(ID, "u_812")
    environment.setenv(METADATA, '{"plan": "pro"}')
    with neatlogs.trace("chat", end_user_id="u_1"):
        pass
    attributes = recorded.spans[0].attributes
    assert attributes[keys.END_USER_ID] == "u_1"
    assert json.loads(attributes.get(keys.END_USER_METADATA, "{}")) == {}


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_variable_counts_as_unset(recorded, environment, said, blank: str) -> None:
    """Blank variables name nobody, and nothing is said."""
    for variable in (ID, METADATA, SESSION):
        environment.setenv(variable, blank)
    assert root_of(recorded) == {}
    assert said.nothing()


def test_an_argument_of_init_beats_its_variable(app, environment) -> None:
    """`init()` with an id takes nothing from the environment but the session that it does not name."""
    environment.setenv(ID, "u_of_the_environment")
    environment.setenv(METADATA, '{"plan": "pro"}')
    environment.setenv(SESSION, "s_1")
    neatlogs.init(export=False, end_user_id="u_of_the_argument")
    assert root_of(app) == {
        keys.END_USER_ID: "u_of_the_argument",
        keys.END_USER_SOURCE: "init",
        keys.SESSION_ID: "s_1",
    }


def test_init_without_arguments_takes_the_variables(app, environment) -> None:
    """`init()` alone leaves the environment's end user in place, and auto_session gives it a session."""
    environment.setenv(ID, "u_812")
    neatlogs.init(export=False, auto_session=True)
    found = root_of(app)
    assert found[keys.END_USER_ID] == "u_812"
    assert found[keys.SESSION_ID]


def test_metadata_of_init_joins_the_variable_s_id(app, environment) -> None:
    """Metadata alone is lent to the id of the next source, as everywhere; the argument wins a key."""
    environment.setenv(ID, "u_812")
    environment.setenv(METADATA, '{"plan": "free", "region": "eu"}')
    neatlogs.init(export=False, end_user_metadata={"plan": "pro"})
    found = root_of(app)
    assert found[keys.END_USER_ID] == "u_812"
    assert json.loads(str(found[keys.END_USER_METADATA])) == {"plan": "pro", "region": "eu"}


def test_a_refused_argument_takes_no_variable(app, environment, said) -> None:
    """A refused id ends the resolution: the environment's end user does not stand in."""
    environment.setenv(ID, "u_812")
    neatlogs.init(export=False, end_user_id=True)
    assert keys.END_USER_ID not in root_of(app)
    assert said.once("end_user_id of init() is refused")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{plan: pro}", "it is no JSON (character 1)"),
        ('["pro"]', "NEATLOGS_END_USER_METADATA is refused, because"),
        ("[" * 100_000, "NEATLOGS_END_USER_METADATA is refused, because"),
        ('{"n": ' + "9" * 5_000 + "}", "NEATLOGS_END_USER_METADATA is refused, because"),
        (json.dumps({"text": "x" * 20_000}), "NEATLOGS_END_USER_METADATA is refused, because"),
    ],
    ids=["no JSON", "no object", "too deep", "a number too long", "too long"],
)
def test_metadata_that_cannot_be_used_is_refused(recorded, environment, said, text: str, part: str) -> None:
    """The end user's id stays, one warning names the variable, and no value is logged."""
    environment.setenv(ID, "u_812")
    environment.setenv(METADATA, text)
    assert root_of(recorded) == {keys.END_USER_ID: "u_812", keys.END_USER_SOURCE: "init"}
    assert said.once(part)
    assert "u_812" not in said.messages[0]
    assert "pro" not in said.messages[0].replace("process", "")


def test_an_id_that_is_too_long_is_refused(recorded, environment, said) -> None:
    """Over 1,024 bytes an id is refused, and its metadata with it."""
    environment.setenv(ID, "u" * 1_025)
    environment.setenv(METADATA, '{"plan": "pro"}')
    assert keys.END_USER_ID not in root_of(recorded)
    assert said.once("end_user_id of NEATLOGS_END_USER_ID is refused")


def test_a_capture_does_not_see_the_variables(environment) -> None:
    """The environment of a developer does not change what a team's tests see."""
    environment.setenv(ID, "u_812")
    from neatlogs_otel import testing

    with testing.capture() as captured, neatlogs.trace("chat"):
        pass
    assert captured.end_user_of("chat") is None
