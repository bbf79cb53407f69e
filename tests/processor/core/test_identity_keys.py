"""How the keys of other SDKs and backends are written in settings, and which of them cannot be used."""

from __future__ import annotations

import pytest

from neatlogs_processor.core.identity_keys import BACKENDS, SDKS, Carries, IdentityKey, read_identity_keys, together


@pytest.mark.parametrize(
    ("written", "key", "carries"),
    [
        ("user.id", "user.id", Carries.USER),
        ("anything", "anything", Carries.USER),
        ("session.id", "session.id", Carries.SESSION),
        ("gen_ai.conversation.id", "gen_ai.conversation.id", Carries.SESSION),
        ("metadata", "metadata", Carries.METADATA),
        ("app.user=metadata", "app.user", Carries.METADATA),
        ("app.session=session", "app.session", Carries.SESSION),
        ("session.id=user", "session.id", Carries.USER),
        ("app.user.*", "app.user.", Carries.MEMBERS),
    ],
)
def test_what_a_key_carries(written: str, key: str, carries: Carries) -> None:
    """A key alone is the end user's id unless it is known for something else; the rest is said; it reads back."""
    (one,) = read_identity_keys([written])
    assert one == IdentityKey(key, carries)
    assert str(one) == written


@pytest.mark.parametrize(
    ("written", "canonical"), [("user.id=user", "user.id"), (" a.b = session ", "a.b=session"), ("a.*=metadata", "a.*")]
)
def test_what_need_not_be_said_is_not_written(written: str, canonical: str) -> None:
    """Spaces, and what a key carries anyway, are left out where it is shown."""
    assert str(read_identity_keys([written])[0]) == canonical


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (["neatlogs.end_user.id"], "processor's own key"),
        (["neatlogs.end_user"], "processor's own key"),
        (["neatlogs.end_user.anything"], "processor's own key"),
        (["neatlogs.session.id=session"], "processor's own key"),
        (["neatlogs.end_user.*"], "not another SDK's"),
        (["neatlogs.*"], "not another SDK's"),
        (["neatlogs.session.*"], "not another SDK's"),
        (["service.*"], "not another SDK's"),
        (["service.name"], "service.name"),
        ([""], "names no key"),
        (["=user"], "names no key"),
        (["user.id=id"], "one of user, session, metadata"),
        (["app.*=session"], "only metadata"),
        (["*"], "a dot and a star"),
        ([".*"], "a dot and a star"),
        (["app*"], "a dot and a star"),
        (["app.*.id"], "a star stands at the end"),
        (["a*.b.*"], "a dot and a star"),
        (["user.id", "enduser.id", "user.id"], "twice"),
        (["user.id", "user.id=session"], "twice"),
    ],
)
def test_keys_that_cannot_be_used(written: list[str], complaint: str) -> None:
    """A key of the processor's own, no key at all, an unknown form and a repetition are errors that say so."""
    with pytest.raises(ValueError, match=complaint.replace(".", r"\.")):
        read_identity_keys(written)


def test_presets_come_behind_keys_and_each_key_once() -> None:
    """Keys that are named come first and count as they are named; presets follow in their order."""
    keys = read_identity_keys(["session.id=user", "own"])
    found = together(keys, ["openinference", "semconv"], SDKS)
    assert ",".join(map(str, found)) == "session.id=user,own,user.id,metadata,enduser.id,enduser.pseudo.id"


def test_presets_are_written_as_they_could_be_typed() -> None:
    """What `--print-config` says of a preset can be given to `--accept` or `--emit` instead."""
    for keys in (*BACKENDS.values(), *SDKS.values()):
        assert read_identity_keys([str(one) for one in keys]) == keys
