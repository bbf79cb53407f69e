"""Pseudonyms in a running processor: what goes on, what is kept, and how it is found again."""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from neatlogs_processor.cli import main
from neatlogs_processor.core.pseudonyms import parse_keys
from neatlogs_processor.errors import ConfigError
from neatlogs_processor.pseudonym_keys import current_keys, read_keys
from neatlogs_processor.settings import load
from neatlogs_processor.wiring import pseudonym_keys, treatment
from support.processor import LIMIT, running
from support.pseudonym_cases import DATA, KEYS
from support.spans import END_USER, child, names_and_end_users, request, root
from support.upstream import Reply, Upstream, export

PSEUDONYM = parse_keys(KEYS).pseudonym("u_812")
METADATA = '{"email":"ali@example.com","plan":"pro"}'
OLD_KEYS = KEYS.splitlines()[1]
"""The key that was in use alone, before the other one came in front of it."""


def named(number: int, end_user: str = "u_812", metadata: str = METADATA) -> bytes:
    """A request of one trace with that end user on the root and on a child."""
    spans = root(), child(neatlogs__end_user__id=end_user)
    for span in spans:
        span.trace_id = number.to_bytes(16, "big")
        span.start_time_unix_nano = span.end_time_unix_nano = 1_790_000_000_000_000_000 + number
    for key, text in ((END_USER, end_user), ("neatlogs.end_user.metadata", metadata)):
        spans[0].attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
    return request(*spans)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return written(tmp_path / "keys", KEYS)


def written(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")
    return path


async def test_only_pseudonyms_leave_and_are_kept(
    key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Upstream, store, console and queue see the pseudonym and the allowed metadata; no file holds the id."""
    store, queue = tmp_path / "traces.db", tmp_path / "queue"
    hiding = {"pseudonymize_key_file": str(key_file), "metadata_allow": "plan"}
    async with Upstream(Reply()) as upstream:
        flags = {"upstream_endpoint": upstream.endpoint, "store": str(store), "queue_dir": str(queue), **hiding}
        async with running(console=True, **flags) as processor:
            await export(processor.target, named(1))
            await upstream.wait_for(1)
        (body,) = upstream.bodies
    assert names_and_end_users(body) == {"root": PSEUDONYM, "child": None}
    printed = capsys.readouterr()
    assert PSEUDONYM in printed.out
    files = b"".join(path.read_bytes() for path in (*tmp_path.glob("traces.db*"), *queue.rglob("*")) if path.is_file())
    for seen in (body, (printed.out + printed.err).encode(), files):
        assert b"u_812" not in seen
        assert b"ali@example.com" not in seen


async def test_every_form_of_a_request_is_treated(key_file: Path) -> None:
    """OTLP as JSON, and a plain trace, hide ids too."""
    span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "root"}
    attribute = {"key": END_USER, "value": {"stringValue": "u_812"}}
    otlp = {"resourceSpans": [{"scopeSpans": [{"spans": [{**span, "attributes": [attribute]}]}]}]}
    plain = {"name": "root", "endUserId": "u_812"}
    async with Upstream(Reply()) as upstream:
        flags = {"upstream_endpoint": upstream.endpoint, "pseudonymize_key_file": str(key_file)}
        async with running(**flags) as processor, httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
            for path, body in (("v1/traces", otlp), ("v1/trace", plain)):
                answer = await client.post(f"http://{processor.http}/{path}", json=body)
                assert answer.status_code == 200, answer.text
    assert [names_and_end_users(body) for body in upstream.bodies] == [{"root": PSEUDONYM}] * 2


async def ask(admin: str, path: str, **parameters: Any) -> httpx.Response:
    """Ask the page of a running processor."""
    async with httpx.AsyncClient(base_url=f"http://{admin}", trust_env=False, timeout=LIMIT) as client:
        return await client.get(path, params={"last": "all", **parameters})


async def found(admin: str, *filters: str) -> list[tuple[str, str | None]]:
    """The traces that filters select: the last digit of each id, and its end user."""
    answer = await ask(admin, "/api/traces", filter=list(filters), sort="start")
    assert answer.status_code == 200, answer.text
    return [(row["trace_id"][-1], row["end_user"]) for row in answer.json()["rows"]]


async def test_the_page_looks_up_ids(key_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who has raw ids, pseudonyms of an older key and of the first one is found by the id, which no log shows."""
    caplog.set_level(logging.DEBUG)
    store = str(tmp_path / "traces.db")
    stages: Sequence[tuple[int, str | None]] = ((1, None), (2, OLD_KEYS), (3, KEYS))
    of_old_key = next(case for case in DATA["ids"] if case["id"] == "u_812")["of_the_other_key"]
    for number, keys in stages:
        hiding = {} if keys is None else {"pseudonymize_key_file": str(written(key_file, keys))}
        async with running(store=store, **hiding) as processor:
            await export(processor.target, named(number))
            await export(processor.target, named(number + 3, "u_2"))
            if number < 3:
                continue
            theirs = [("1", "u_812"), ("2", of_old_key), ("3", PSEUDONYM)]
            for words in ("is u_812", "is any of u_812, nobody", "= u_812"):
                assert await found(processor.admin, f"end_user {words}") == theirs
            assert await found(processor.admin, f"end_user is {PSEUDONYM}") == theirs[2:]
            for words in ("is not u_812", "is none of u_812, nobody"):
                assert [number for number, _ in await found(processor.admin, f"end_user {words}")] == ["4", "5", "6"]
            assert len(await found(processor.admin, "end_user is set", "workflow is root")) == 6
            assert await found(processor.admin, "-end_user") == []
            person = await ask(processor.admin, "/user", id="u_812")
            assert person.status_code == 200
            listed = await ask(processor.admin, "/traces", filter="end_user is u_812")
            assert PSEUDONYM in listed.text
            proposed = await ask(processor.admin, "/complete", text="end_user is h2:", state="last=all")
            assert PSEUDONYM in {one["text"] for one in proposed.json()["items"]}
    # The tests' own client logs addresses.
    assert "u_812" not in "".join(one.getMessage() for one in caplog.records if not one.name.startswith("http"))


@pytest.mark.parametrize("operator", ["contains", "does not contain", "starts with", "ends with"])
async def test_parts_of_ids_cannot_be_asked_for(key_file: Path, tmp_path: Path, operator: str) -> None:
    """Page and API answer 400 and say why, and where in the text; other fields go with every operator."""
    typed = f"workflow is chat and end_user {operator} u_8"
    hiding = {"store": str(tmp_path / "traces.db"), "pseudonymize_key_file": str(key_file)}
    async with running(**hiding) as processor:
        answer = await ask(processor.admin, "/api/traces", filter=["spans > 0", typed])
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert f'end_user does not go with "{operator}" here' in error["message"]
        assert "nothing of an id is left in its pseudonym" in error["message"]
        assert (error["index"], error["position"]) == (1, typed.index("end_user"))
        assert error["expected"] == ["is", "is any of", "is not", "is none of", "is set", "is not set"]
        for path in ("/traces", "/sessions", "/users", "/coverage"):
            page = await ask(processor.admin, path, filter=typed)
            assert page.status_code == 400
            assert "nothing of an id is left in its pseudonym" in page.text
        for path in ("/live", "/user"):
            assert (await ask(processor.admin, path, filter=typed)).status_code == 400
        assert await found(processor.admin, f"workflow {operator} u_8") == []
        for field, proposed in (("end_user", False), ("workflow", True)):
            offered = await ask(processor.admin, "/complete", text=f"{field} ")
            assert (f"{operator} " in {one["text"] for one in offered.json()["items"]}) == proposed


async def test_more_ids_than_can_be_looked_up_are_refused(key_file: Path, tmp_path: Path) -> None:
    """Each id is three to look for; a list that becomes too long says so."""
    hiding = {"store": str(tmp_path / "traces.db"), "pseudonymize_key_file": str(key_file)}
    async with running(**hiding) as processor:
        many = ", ".join(f"u_{number}" for number in range(67))
        answer = await ask(processor.admin, "/api/traces", filter=f"end_user is any of {many}")
        assert answer.status_code == 400
        assert "67 end users are too many" in answer.json()["error"]["message"]
        assert await found(processor.admin, f"end_user is any of {many.rpartition(',')[0]}") == []


async def test_without_keys_parts_of_ids_can_be_asked_for(tmp_path: Path) -> None:
    """The page is as it was where nothing is hidden, with an allow-list too."""
    async with running(store=str(tmp_path / "traces.db"), metadata_allow="plan") as processor:
        await export(processor.target, named(1))
        assert await found(processor.admin, "end_user starts with u_8", "metadata:plan is pro") == [("1", "u_812")]
        assert await found(processor.admin, "metadata:email is set") == []


async def test_keys_that_change_count_while_it_runs(key_file: Path) -> None:
    """A new first key writes within a second of its coming; a file that cannot be used leaves the keys in use."""
    clock = [0.0]
    keys = current_keys(written(key_file, OLD_KEYS), clock=lambda: clock[0])
    treat = treatment(load({"pseudonymize_key_file": str(key_file)}, {}).settings, keys)
    body = request(root(neatlogs__end_user__id="u_812"))
    assert names_and_end_users(treat(body).body) != {"root": PSEUDONYM}
    for text in (f"{KEYS}\n", "h3 short"):
        key_file.write_text(text, encoding="utf-8")
        clock[0] += 2
        assert names_and_end_users(treat(body).body) == {"root": PSEUDONYM}


@pytest.mark.parametrize("case", DATA["refused_key_files"], ids=lambda case: case["about"])
def test_a_key_file_that_cannot_be_used_ends_the_start(key_file: Path, case: dict[str, str]) -> None:
    """The message names the flag and the file, and repeats nothing of it."""
    settings = load({"pseudonymize_key_file": str(written(key_file, case["text"]))}, {}).settings
    with pytest.raises(ConfigError, match="--pseudonymize-key-file: ") as refused:
        pseudonym_keys(settings)
    assert str(key_file) in str(refused.value)
    assert not [word for word in case["text"].split() if len(word) > 20 and word in str(refused.value)]


def test_a_key_file_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    """So does one that is not there, or is no text."""
    with pytest.raises(ConfigError, match=r"cannot read .*missing"):
        read_keys(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_keys(tmp_path / "binary")


def test_a_key_file_that_everybody_can_read_is_said(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As for the other secret files."""
    with caplog.at_level(logging.WARNING):
        read_keys(key_file)
        assert caplog.messages == []
        key_file.chmod(key_file.stat().st_mode | stat.S_IROTH)
        read_keys(key_file)
    assert "every user of this machine can read" in caplog.text


async def test_an_export_looks_up_ids(key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`store export --filter` finds whom the page finds, and refuses what it refuses."""
    store = str(tmp_path / "traces.db")
    hiding = ("--pseudonymize-key-file", str(key_file))
    async with running(store=store, pseudonymize_key_file=str(key_file)) as processor:
        await export(processor.target, named(1))
        await export(processor.target, named(2, "u_2"))
    assert main(["store", "export", "--store", store, "--filter", "end_user is u_812", *hiding]) == 0
    exported = capsys.readouterr()
    assert "1 traces" in exported.err
    assert PSEUDONYM in exported.out
    assert main(["store", "export", "--store", store, "--filter", "end_user contains u_8", *hiding]) == 2
    assert '--filter: end_user does not go with "contains" here' in capsys.readouterr().err


def test_the_pseudonyms_of_an_id_are_printed(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, that of the key in use first; a pseudonym is printed as it is."""
    case = DATA["ids"][0]
    hiding = ("--pseudonymize-key-file", str(key_file))
    assert main(["pseudonym", "--end-user", case["id"], *hiding]) == 0
    assert capsys.readouterr().out.split() == [case["pseudonym"], case["of_the_other_key"]]
    assert main(["pseudonym", "--end-user", case["pseudonym"], *hiding]) == 0
    assert capsys.readouterr().out.split() == [case["pseudonym"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs --end-user"),
        (["--end-user", " "], "needs --end-user"),
        (["--end-user", "u_812"], "needs --pseudonymize-key-file"),
        (["--end-user", "u_812", "--pseudonymize-key-file", "missing"], "cannot read missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `pseudonym` cannot do without is said."""
    assert main(["pseudonym", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
