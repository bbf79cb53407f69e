"""`neatlogs-processor store forget`: afterwards nothing of the person is in any of the store's files."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pty
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from neatlogs_processor.cli import main
from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.core.pseudonyms import parse_keys
from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.store.blocks import decompress
from neatlogs_processor.store.files import open_reader, open_writer
from neatlogs_processor.store.forgetting import Forgetting, Found
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.processor import program, run, until
from support.pseudonym_cases import KEYS
from support.spans import child, request, root
from support.stored import NOW, Stored, write
from support.upstream import export

PERSON = "zoe-4711@example.com"
SECRET = "zoe-says-a-word-nobody-else-says"
FLAGS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")


def people(count: int = 40) -> list[Stored]:
    """Return traces of several end users, every fourth of them the person's, who has a session and metadata."""
    return [
        Stored(
            number,
            PERSON if number % 4 == 0 else f"user {number % 7}",
            metadata={"said": SECRET} if number % 4 == 0 else {"plan": "pro"},
            session=f"{SECRET} in session" if number % 4 == 0 else "of others",
            workflow="chat",
            name=SECRET if number % 4 == 0 else "chat",
            services=("shop", f"host of {PERSON}" if number % 4 == 0 else "tickets"),
            spans=3,
        )
        for number in range(count)
    ]


def everything(path: Path) -> bytes:
    """Return the bytes of all files of the store, and what its compressed blocks hold."""
    found = b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))
    with contextlib.closing(open_reader(path)) as connection:
        for (body,) in connection.execute("SELECT body FROM blocks").fetchall():
            found += b"".join(span.SerializeToString() for span in decompress(body))
    return found


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with contextlib.closing(open_reader(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608  # names of our own; values are bound


def assert_sound(path: Path) -> None:
    """Demand a file that SQLite finds nothing wrong with, and rows that all belong to others that are there."""
    with contextlib.closing(open_reader(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for column, table in (("trace", "traces"), ("block", "blocks"), ("resource", "resources"), ("scope", "scopes")):
            orphans = f"SELECT count(*) FROM spans WHERE {column} NOT IN (SELECT id FROM {table})"  # noqa: S608  # names of our own; values are bound
            assert connection.execute(orphans).fetchone() == (0,)
        unused = "SELECT count(*) FROM blocks WHERE id NOT IN (SELECT block FROM spans)"
        assert connection.execute(unused).fetchone() == (0,)


def rows_of_traces(path: Path) -> list[dict[str, object]]:
    """Return the rows of the table of traces, in the order of their ids."""
    with contextlib.closing(open_reader(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM traces ORDER BY id")]


async def test_no_byte_of_the_person_is_left(tmp_path: Path) -> None:
    """Neither the id nor what the person said is in the file, its log, or a block, and all others' traces are there."""
    path, others = tmp_path / "with.db", tmp_path / "without.db"
    ignored = Override(
        bytes.fromhex(people()[-4].trace_id), b"\0" * 7 + b"\2", "shop", f"of {PERSON}", Place.CHILD, "k"
    )
    write(path, [*people(), people()[36]], [ignored])
    write(others, [trace for trace in people() if trace.end_user != PERSON])
    assert PERSON.encode() in everything(path)
    assert SECRET.encode() in everything(path)
    finished = await run("store", "forget", "--end-user", PERSON, "--yes", "--store", str(path))
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"10 traces with 30 spans of {PERSON} deleted")
    left = everything(path)
    assert PERSON.encode() not in left
    assert SECRET.encode() not in left
    assert_sound(path)
    kept = {row[1] for row in tables(path)["traces"]}
    assert kept == {row[1] for row in tables(others)["traces"]}
    assert {row[3] for row in tables(path)["resources"]} == {row[3] for row in tables(others)["resources"]}
    assert tables(path)["overrides"] == []


async def test_what_was_deleted_before_goes_too(tmp_path: Path) -> None:
    """Pages that retention freed long ago are cleared as well, even if no trace of the person is left."""
    path = tmp_path / "traces.db"
    write(path, [Stored(number, PERSON, metadata={"said": SECRET + "x" * 999}) for number in range(300)])
    with contextlib.closing(sqlite3.connect(path)) as careless:
        careless.execute("PRAGMA secure_delete = OFF")
        for table in ("spans", "blocks", "traces", "resources"):
            careless.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own; values are bound
        careless.commit()
    assert SECRET.encode() in everything(path)
    finished = await run("store", "forget", "--end-user", PERSON, "--yes", "--store", str(path))
    assert finished.stdout.startswith("0 traces with 0 spans of")
    assert SECRET.encode() not in everything(path)


def put(path: Path, *bodies: bytes) -> None:
    """Write requests into the store."""
    with contextlib.closing(open_writer(path)) as connection:
        Writing(connection).write([(read_request(body, EndUserPolicy()), ()) for body in bodies], NOW)


def test_a_trace_in_which_a_second_root_names_the_person_goes_whole(tmp_path: Path) -> None:
    """Nobody can say which spans of such a trace are whose, so all go, and they are counted apart."""
    path = tmp_path / "traces.db"
    first = root("first", trace_id=b"\1" * 16, neatlogs__end_user__id="bob")
    second = root("second", trace_id=b"\1" * 16, neatlogs__end_user__id=PERSON)
    second.span_id = b"\7" * 8
    first.start_time_unix_nano, second.start_time_unix_nano = 5, 10
    alone = root("alone", trace_id=b"\2" * 16, neatlogs__end_user__id="bob")
    twin = root("twin", trace_id=b"\2" * 16, neatlogs__end_user__id="carol")
    twin.span_id = b"\7" * 8
    put(path, request(first, child(trace_id=b"\1" * 16)), request(second), request(alone, twin))
    with Forgetting(path, PERSON) as forgetting:
        assert forgetting.found() == Found(0, 0, 1)
        assert forgetting.erase().mixed == 1
    assert PERSON.encode() not in everything(path)
    assert [row[1] for row in tables(path)["traces"]] == [b"\2" * 16]
    assert_sound(path)


@pytest.mark.parametrize("names", [(0, 1, 2), (2,), ()], ids=["under all of them", "under one", "under none"])
def test_a_person_is_forgotten_under_every_pseudonym(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[int, ...]
) -> None:
    """With a file of keys, traces of the id itself and of its pseudonym under each key go, and nobody else's."""
    path, key_file = tmp_path / "traces.db", tmp_path / "keys"
    key_file.touch(0o600)
    key_file.write_text(KEYS, encoding="utf-8")
    known_as = parse_keys(KEYS).lookup(PERSON)
    others = [Stored(number, f"user {number}", spans=2) for number in range(5)]
    write(path, [*others, *(Stored(10 + name, known_as[name], spans=2) for name in names)])
    flags = ("--store", str(path), "--pseudonymize-key-file", str(key_file))
    assert main(["store", "forget", "--end-user", PERSON, "--yes", *flags]) == 0
    assert f"{len(names)} traces with {2 * len(names)} spans" in capsys.readouterr().out
    left = everything(path)
    assert not [name for name in known_as if name.encode() in left]
    assert [row["end_user"] for row in rows_of_traces(path)] == [trace.end_user for trace in others]
    assert_sound(path)


@pytest.mark.parametrize("other", ["ZOE-4711@example.com", "zoe-4711@example.co", "xzoe-4711@example.com", "zoe%"])
def test_only_the_id_exactly_as_it_is(tmp_path: Path, other: str) -> None:
    """Ids that look alike are other people."""
    path = tmp_path / "traces.db"
    write(path, [Stored(1, PERSON), Stored(2, other)])
    with Forgetting(path, other) as forgetting:
        assert forgetting.erase() == Found(1, 1, 0)
    assert [row[1].hex() for row in tables(path)["traces"]] == [Stored(1).trace_id]


def test_without_room_to_write_anew_the_traces_are_gone_all_the_same(tmp_path: Path) -> None:
    """What can be done is done, what is missing is said, and doing it again with room completes it."""
    path = tmp_path / "traces.db"
    write(path, people())
    with (
        Forgetting(path, PERSON, room=lambda _: 1000) as once,
        pytest.raises(ProcessorError, match="1,000 are") as caught,
    ):
        once.erase()
    assert "the traces are deleted" in str(caught.value)
    assert PERSON not in {row[20] for row in tables(path)["traces"]}
    assert_sound(path)
    with Forgetting(path, PERSON) as forgetting:
        assert forgetting.erase() == Found(0, 0, 0)
    assert PERSON.encode() not in everything(path)


def test_a_store_that_is_read_without_end_is_said_to_hold_its_log(tmp_path: Path) -> None:
    """Somebody who keeps an old moment open keeps the log; the message says so, and that the traces are deleted."""
    path = tmp_path / "traces.db"
    write(path, people())
    with contextlib.closing(open_reader(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM traces").fetchone()
        with Forgetting(path, PERSON, patience=0.05) as once, pytest.raises(ProcessorError, match="is being read"):
            once.erase()
        reader.execute("ROLLBACK")
    with Forgetting(path, PERSON) as forgetting:
        forgetting.erase()
    assert PERSON.encode() not in everything(path)


async def test_beside_a_running_processor(tmp_path: Path) -> None:
    """It need not be stopped: what it takes in before and after is kept, and the person is gone from all files."""
    path = tmp_path / "traces.db"
    before = root("before", trace_id=b"\1" * 16, neatlogs__end_user__id="bob")
    theirs = root(SECRET, trace_id=b"\2" * 16, neatlogs__end_user__id=PERSON)
    after = root("after", trace_id=b"\3" * 16, neatlogs__end_user__id="bob")
    async with program(*FLAGS, "--store", str(path)) as started:
        target = await started.ready()
        await export(target, request(before, host="one"))
        await export(target, request(theirs, host=PERSON))
        finished = await run("store", "forget", "--end-user", PERSON, "--yes", "--store", str(path))
        left = everything(path)
        await export(target, request(after, host="another"))
        started.process.terminate()
        assert (await started.end()).code == 0
    assert (finished.code, finished.stderr) == (0, "")
    assert PERSON.encode() not in left
    assert SECRET.encode() not in left
    assert PERSON.encode() not in everything(path)
    assert {row[1] for row in tables(path)["traces"]} == {b"\1" * 16, b"\3" * 16}
    assert_sound(path)


async def test_beside_a_processor_under_load(tmp_path: Path) -> None:
    """While it is done, traces of others go on being acknowledged, and every one of them is there afterwards."""
    path = tmp_path / "traces.db"
    write(path, people(400))
    acknowledged: list[bytes] = []
    async with program(*FLAGS, "--store", str(path)) as started:
        target = await started.ready()
        done = asyncio.Event()

        async def send(sender: int) -> None:
            for number in itertools.count(1):
                trace_id = bytes([sender]) + number.to_bytes(15, "big")
                await export(target, request(root(trace_id=trace_id, neatlogs__end_user__id="bob")), timeout=60)
                acknowledged.append(trace_id)
                if done.is_set():
                    return

        senders = [asyncio.create_task(send(sender)) for sender in (1, 2, 3)]
        await until(lambda: len(acknowledged) > 10)
        finished = await run("store", "forget", "--end-user", PERSON, "--yes", "--store", str(path))
        done.set()
        await asyncio.gather(*senders)
        left = everything(path)
    assert (finished.code, finished.stderr) == (0, "")
    assert PERSON.encode() not in left
    assert set(acknowledged) <= {row[1] for row in tables(path)["traces"]}
    assert len(tables(path)["traces"]) == 300 + len(acknowledged)
    assert_sound(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--yes",), "needs --end-user ID"),
        (("--end-user", " ", "--yes"), "needs --end-user ID"),
        (("--end-user", "x"), "no terminal to ask at; write --yes"),
        (("--end-user", "x", "--yes", "--store", "none"), "--store is none"),
        (("--end-user", "x", "--yes", "--store", "/nowhere/traces.db"), "there is no store at /nowhere/traces.db"),
        (("--end-user",), "expected one argument"),
        (("--end-user", "x", "--yess"), "unknown flag --yess"),
    ],
)
async def test_a_mistake_deletes_nothing(tmp_path: Path, arguments: Iterable[str], says: str) -> None:
    """Whatever is not said clearly is one line and exit code 2."""
    path = tmp_path / "traces.db"
    write(path, [Stored(1, "x")])
    finished = await run("store", "forget", *arguments, environ={"NEATLOGS_PROCESSOR_STORE": str(path)})
    assert (finished.code, finished.stdout) == (2, "")
    assert says in finished.stderr
    assert len(tables(path)["traces"]) == 1


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (b"y\n", 0, "deleted; the store was written anew"),
        (b"YES\n", 0, "deleted; the store was written anew"),
        (b"n\n", 1, "nothing was deleted"),
        (b"\n", 1, "nothing was deleted"),
        (b"\x04", 1, "nothing was deleted"),
    ],
)
def test_at_a_terminal_it_asks(tmp_path: Path, answer: bytes, code: int, says: str) -> None:
    """It says how much will be deleted and of whom, and goes on only where somebody says yes."""
    path = tmp_path / "traces.db"
    write(path, people())
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "neatlogs_processor", "store", "forget", "--end-user", PERSON]
    try:
        with subprocess.Popen(
            [*command, "--store", str(path)], stdin=theirs, stdout=subprocess.PIPE, text=True
        ) as asked:
            os.write(terminal, answer)
            assert asked.stdout is not None
            out = asked.stdout.read()
            assert asked.wait(60) == code
    finally:
        os.close(terminal)
        os.close(theirs)
    assert f"10 traces with 30 spans of {PERSON} will be deleted from {path}, for good." in out
    assert says in out
    assert (PERSON.encode() in everything(path)) == bool(code)


async def test_what_waits_in_a_queue_is_mentioned(tmp_path: Path) -> None:
    """A queue of the same configuration may hold spans of the person still; that is said."""
    path = tmp_path / "traces.db"
    write(path, people())
    where = ("--store", str(path), "--queue-dir", str(tmp_path / "queue"), "--upstream-endpoint", "localhost:1")
    finished = await run("store", "forget", "--end-user", PERSON, "--yes", *where)
    assert finished.code == 0
    assert "what waits for delivery in" in finished.stdout


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A mistyped path is an error, and no store appears there."""
    with pytest.raises(ConfigError, match="there is no store"), Forgetting(tmp_path / "no.db", PERSON):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_trace_does_not_stop_it(tmp_path: Path) -> None:
    """A block that cannot be read any more names nobody; all else is erased."""
    path = tmp_path / "traces.db"
    one = root("one", trace_id=b"\1" * 16, neatlogs__end_user__id="bob")
    two = root("two", trace_id=b"\1" * 16, neatlogs__end_user__id="carol")
    two.span_id = b"\7" * 8
    put(path, request(one, two), request(root(trace_id=b"\2" * 16, neatlogs__end_user__id=PERSON)))
    with contextlib.closing(open_writer(path)) as connection:
        connection.execute("UPDATE blocks SET body = ? WHERE id = 1", (zlib.compress(b"no block"),))
    with Forgetting(path, PERSON) as forgetting:
        assert forgetting.erase() == Found(1, 1, 0)
    assert PERSON.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
