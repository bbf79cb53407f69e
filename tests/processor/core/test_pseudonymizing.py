"""The stage that lets out of identity what may leave, alone and between the rule, `accept` and `emit`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.allowed_metadata import AllowedMetadata
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import BACKENDS, SDKS, IdentityKey, read_identity_keys
from neatlogs_processor.core.metadata_text import MAX_METADATA_CHARS
from neatlogs_processor.core.policy import EndUserPolicy, Enforced, Place
from neatlogs_processor.core.pseudonymizing import Pseudonymizing
from neatlogs_processor.core.pseudonyms import parse_keys
from neatlogs_processor.core.treatment import Treatment
from support.pseudonym_cases import DATA, KEYS, cases
from support.spans import child, request, root
from support.wire_forms import LEN, field

Values = dict[str, object]
PSEUDONYM = parse_keys(KEYS).pseudonym("u_812")
ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"
PLAN = '{"plan":"pro"}'
FULL = '{"email":"ali@example.com","plan":"pro"}'


def treat(
    body: bytes,
    *,
    accept: Sequence[IdentityKey] = (),
    emit: Sequence[IdentityKey] = (),
    allow: Sequence[str] = ("plan",),
    keys: bool = True,
    policy: EndUserPolicy | None = None,
) -> Enforced:
    """Treat a request with all stages that are asked for, twice, because twice has to equal once."""
    treatment = Treatment(
        policy or EndUserPolicy(),
        accept=Accepting(accept, strip=False) if accept else None,
        pseudonymize=Pseudonymizing(
            (lambda: parse_keys(KEYS)) if keys else None,
            AllowedMetadata(allow),
            (*accept, *emit),
        ),
        emit=Emitting(emit) if emit else None,
    )
    treated = treatment(body)
    again = treatment(treated.body)
    assert again.body is treated.body
    assert again.counts.overrides_total == 0
    return treated


def values(body: bytes) -> dict[str, Values]:
    """The attributes of each span, by its name."""
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    found: dict[str, Values] = {}
    for span in spans:
        keys = [attribute.key for attribute in span.attributes]
        assert len(set(keys)) == len(keys)
        found[span.name] = {one.key: one.value.string_value for one in span.attributes}
    return found


@cases("ids")
def test_an_id_leaves_as_its_pseudonym(case: dict[str, str]) -> None:
    """On a root the id is what `tests/data/pseudonyms.json` says, and its source and session stay."""
    span = root(neatlogs__end_user__id=case["id"], neatlogs__end_user__source="trace", neatlogs__session__id="s_1")
    treated = treat(request(span))
    assert values(treated.body)["root"] == {ID: case["pseudonym"], SOURCE: "trace", "neatlogs.session.id": "s_1"}
    assert treated.counts.roots_with_identity == 1
    assert treated.counts.invalid == 0


@cases("unchanged")
def test_a_pseudonym_and_nobody_stay_byte_for_byte(case: dict[str, str]) -> None:
    """What a shim has hidden already, and an id that names nobody, leave as the same object."""
    body = request(root(neatlogs__end_user__id=case["id"]))
    assert treat(body).body is body


@cases("metadata")
def test_metadata_leaves_by_its_allow_list(case: dict[str, str]) -> None:
    """What is named stays as it was written; where nothing of it is, there is no metadata."""
    body = request(root(neatlogs__end_user__metadata=case["text"]))
    treated = treat(body, allow=case["allow"])
    assert values(treated.body)["root"] == ({} if case["left"] is None else {METADATA: case["left"]})
    assert treated.counts.invalid == 0
    assert (treated.body is body) == (case["left"] == case["text"])


@cases("refused_metadata")
def test_metadata_that_is_no_json_object_goes_and_is_counted(case: dict[str, str]) -> None:
    """What cannot be read cannot be known to be allowed; the id is not affected."""
    treated = treat(request(root(neatlogs__end_user__metadata=case["text"], neatlogs__end_user__id="u_812")))
    assert values(treated.body)["root"] == {ID: PSEUDONYM}
    assert treated.counts.invalid == 1


@pytest.mark.parametrize(("longer", "stays"), [(0, True), (1, False)])
def test_metadata_that_is_too_long_to_be_read_goes_and_is_counted(longer: int, stays: bool) -> None:
    """Beyond a million characters it is treated as what cannot be read, so that memory stays bounded."""
    text = '{"plan":"' + "x" * (MAX_METADATA_CHARS - 11 + longer) + '"}'
    assert len(text) == MAX_METADATA_CHARS + longer
    treated = treat(request(root(neatlogs__end_user__metadata=text)))
    assert (METADATA in values(treated.body)["root"]) == stays
    assert treated.counts.invalid == (not stays)


def test_of_the_namespace_nothing_else_stays() -> None:
    """A key of which nobody knows what it holds goes, and is counted as invalid."""
    treated = treat(
        request(root(neatlogs__end_user__id="u_812", neatlogs__end_user__name="Ali", neatlogs__end_user="A"))
    )
    assert values(treated.body)["root"] == {ID: PSEUDONYM}
    assert treated.counts.invalid == 2


def test_the_resource_s_default_leaves_as_a_pseudonym() -> None:
    """What the rule moves from a resource to its roots is hidden there."""
    body = request(root(), child(), neatlogs__end_user__id="u_812", neatlogs__end_user__metadata=FULL)
    treated = treat(body)
    assert values(treated.body) == {"root": {ID: PSEUDONYM, METADATA: PLAN, SOURCE: "resource"}, "child": {}}
    assert b"u_812" not in treated.body
    assert b"ali@example.com" not in treated.body


def test_an_entry_span_that_owns_identity_is_treated_as_a_root() -> None:
    """Under `--roots entry` its id is hidden too."""
    entry = child("entry", neatlogs__end_user__id="u_812")
    entry.flags = 0x300
    treated = treat(request(entry), policy=EndUserPolicy("entry", frozenset({"shop"})))
    assert values(treated.body)["entry"] == {ID: PSEUDONYM}


def test_an_id_that_was_an_int_and_metadata_that_was_a_map_are_hidden() -> None:
    """The rule makes text of them first."""
    span = root()
    plan = [KeyValue(key=key, value=AnyValue(string_value="pro")) for key in ("email", "plan")]
    span.attributes.append(KeyValue(key=ID, value=AnyValue(int_value=812)))
    span.attributes.append(KeyValue(key=METADATA, value=AnyValue(kvlist_value=KeyValueList(values=plan))))
    treated = treat(request(span))
    assert values(treated.body)["root"] == {ID: parse_keys(KEYS).pseudonym("812"), METADATA: PLAN}


def test_without_keys_ids_stay_and_metadata_may_stay_whole() -> None:
    """The two parts work each for itself."""
    body = request(root(neatlogs__end_user__id="u_812", neatlogs__end_user__metadata=FULL))
    assert values(treat(body, keys=False).body)["root"] == {ID: "u_812", METADATA: PLAN}
    assert values(treat(body, allow=["*"]).body)["root"] == {ID: PSEUDONYM, METADATA: FULL}


def test_what_is_emitted_is_the_pseudonym() -> None:
    """Backends get the pseudonym and the allowed members under their own keys."""
    body = request(root(neatlogs__end_user__id="u_812", neatlogs__end_user__metadata=FULL))
    left = values(treat(body, emit=BACKENDS["langfuse"]).body)["root"]
    assert left["langfuse.user.id"] == left["user.id"] == PSEUDONYM
    assert {key: text for key, text in left.items() if "metadata." in key} == {"langfuse.trace.metadata.plan": "pro"}


def test_what_is_accepted_leaves_as_a_pseudonym_under_each_of_its_keys() -> None:
    """The keys of another SDK keep what they are for, and the session; from children they go, counted."""
    named = {"user.id": "u_812", "session.id": "s_1", "metadata": FULL}
    spans = root(), child()
    for span in spans:
        span.attributes.extend(KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in named.items())
    treated = treat(request(*spans), accept=SDKS["openinference"])
    hidden = {"user.id": PSEUDONYM, "session.id": "s_1", "metadata": PLAN}
    identity = {ID: PSEUDONYM, METADATA: PLAN, SOURCE: "user.id", "neatlogs.session.id": "s_1"}
    assert values(treated.body)["root"] == {**hidden, **identity}
    # `metadata` of a child says something about that child.
    assert values(treated.body)["child"] == {"session.id": "s_1", "metadata": FULL}
    assert treated.counts.overrides[Place.CHILD] == 1
    assert [one.key for one in treated.overrides] == ["user.id"]


def test_another_end_user_under_a_key_of_another_sdk_is_hidden_too() -> None:
    """It is not the trace's end user, and is a person all the same."""
    span = root(neatlogs__end_user__id="u_812", user__id="u_2")
    left = values(treat(request(span), accept=SDKS["semconv"]).body)["root"]
    assert left == {ID: PSEUDONYM, "user.id": parse_keys(KEYS).pseudonym("u_2")}


def test_a_value_that_can_be_no_id_goes_from_a_key_of_another_sdk() -> None:
    """A list, or blank text, under a key that should hold an id does not leave."""
    span = root(neatlogs__end_user__id="u_812", enduser__id=" ")
    span.attributes.add(key="user.id").value.array_value.values.add(string_value="u_2")
    assert values(treat(request(span), accept=SDKS["semconv"]).body)["root"] == {ID: PSEUDONYM}


@pytest.mark.parametrize("allow", [["plan", "company"], ["*"]])
def test_members_that_have_attributes_of_their_own_stay_by_name(allow: list[str]) -> None:
    """Of the members of another SDK's metadata those stay that are named, and what is inside of them."""
    prefix = "traceloop.association.properties."
    members = {"user_id": "u_812", "session_id": "s_1", "plan": "pro", "company.size": "3", "email": "ali@example.com"}
    span = root()
    for key, text in members.items():
        span.attributes.append(KeyValue(key=prefix + key, value=AnyValue(string_value=text)))
    left = values(treat(request(span), accept=SDKS["traceloop"], allow=allow).body)["root"]
    kept = {key[len(prefix) :] for key in left if key.startswith(prefix)}
    assert kept == {"user_id", "session_id", "plan", "company.size"} | ({"email"} if "*" in allow else set())
    assert left[f"{prefix}user_id"] == PSEUDONYM


def test_keys_without_ids_are_left_alone_where_only_metadata_is_cut() -> None:
    """An allow-list alone touches no id, wherever it stands."""
    span = root(user__id="u_812", metadata=FULL)
    left = values(treat(request(span), accept=SDKS["openinference"], keys=False).body)["root"]
    assert left["user.id"] == left[ID] == "u_812"
    assert left["metadata"] == left[METADATA] == PLAN


def test_text_that_is_no_object_goes_from_a_key_of_another_sdk_uncounted() -> None:
    """It was not identity by the rule, so it is no invalid identity."""
    span = root(neatlogs__end_user__id="u_812", metadata="ali@example.com")
    span.attributes.add(key="app.about").value.int_value = 812
    keys = (*SDKS["openinference"], *read_identity_keys(["app.about=metadata"]))
    treated = treat(request(span), accept=keys)
    assert values(treated.body)["root"] == {ID: PSEUDONYM}
    assert treated.counts.invalid == 0


def test_the_keys_of_a_request_are_those_of_its_beginning() -> None:
    """Keys are asked for once a request, so that a trace in one request has one pseudonym."""
    asked = []

    def keys() -> object:
        asked.append(None)
        return parse_keys(DATA["keys"])

    stage = Pseudonymizing(keys, AllowedMetadata([]))  # type: ignore[arg-type]  # counts beside what it returns
    stage(request(root("a", neatlogs__end_user__id="u_1"), root("b", neatlogs__end_user__id="u_2")), EndUserPolicy())
    assert len(asked) == 1


def test_an_attribute_that_readers_could_disagree_about_keeps_its_key() -> None:
    """One that is not identity after all is only written in plain bytes."""
    key_twice = bytes.fromhex("0a01610a0162")
    odd = key_twice + field(2, LEN, AnyValue(string_value=ID).SerializeToString())
    span = root(neatlogs__end_user__id="u_812").SerializeToString() + field(9, LEN, odd)
    body = field(1, LEN, field(2, LEN, field(2, LEN, span)))
    assert Span.FromString(span).attributes[1].key == "b"
    assert values(treat(body).body)["root"] == {ID: PSEUDONYM, "b": ID}


@pytest.mark.parametrize("others", ["app.login,app.login=session", "app.login=session,app.login"])
def test_a_key_that_carries_an_id_anywhere_is_hidden_everywhere(others: str) -> None:
    """What is accepted as an id and emitted as a session, or the other way round, leaves as a pseudonym."""
    accept, emit = (read_identity_keys([one]) for one in others.split(","))
    body = request(root(app__login="u_812", neatlogs__session__id="s_1"))
    assert values(treat(body, accept=accept, emit=emit).body)["root"]["app.login"] == PSEUDONYM


def test_of_prefixes_inside_each_other_the_longer_one_decides() -> None:
    """What is no member that may leave under its own prefix does not leave as part of one under a shorter prefix."""
    keys = read_identity_keys(["app.*", "app.user.*"])
    body = request(root(app__user__email="ali@example.com", app__user__plan="pro", app__user="x", app__plan="y"))
    left = values(treat(body, emit=keys, allow=["user", "plan"]).body)["root"]
    assert left == {"app.user.plan": "pro", "app.user": "x", "app.plan": "y"}


def test_a_root_full_of_members_that_go_takes_time_in_proportion() -> None:
    """A hundred thousand keys that may not leave, each another one, are removed in one pass."""
    span = root(**{f"usr.{number}": "x" for number in range(100_000)})
    assert values(treat(request(span), emit=BACKENDS["datadog"]).body) == {"root": {}}
