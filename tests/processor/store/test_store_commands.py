"""`neatlogs-processor store info` and `store prune`, as an operator types them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.store.files import open_reader, open_writer
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support import upstream
from support.processor import program, run
from support.stored import DAY, MINUTE, NOW, Stored, write

FLAGS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")
TRACES = [
    Stored(1, "alice", session="s", spans=3),
    Stored(2, "alice", session="t", ago=3 * MINUTE),
    Stored(3, "bob", session="s", ago=2 * MINUTE),
    Stored(4, None),
    Stored(5, None, root_received=False, spans=2),
]
IGNORED = Override(bytes.fromhex(TRACES[4].trace_id), b"\0" * 7 + b"\1", "shop", "chat", Place.CHILD, "k")


def received(path: Path, times: dict[int, int]) -> None:
    """Write a trace for each number, as if it had arrived at this time."""
    moments: dict[int, list[bytes]] = {}
    for number, moment in times.items():
        body = Stored(number, f"user {number}", spans=2, name="x" * 2000).request()
        moments.setdefault(moment, []).append(body)
    with contextlib.closing(open_writer(path)) as connection:
        writing = Writing(connection)
        for moment, bodies in moments.items():
            writing.write([(read_request(body, EndUserPolicy()), ()) for body in bodies], moment)


def kept(path: Path) -> list[str]:
    """Return the end users whose traces are there."""
    with contextlib.closing(open_reader(path)) as connection:
        return [name for (name,) in connection.execute("SELECT end_user FROM traces ORDER BY id")]


async def test_info_says_what_is_there(tmp_path: Path) -> None:
    """Traces by what is known of their end user, spans, end users, sessions, overrides, times, size, and limits."""
    path = tmp_path / "traces.db"
    write(path, TRACES, [IGNORED])
    finished = await run("store", "info", "--store", str(path), "--store-max-age", "7d", "--store-max-size", "none")
    said = dict(line.split(maxsplit=1) for line in finished.stdout.replace("end users", "end_users").splitlines())
    assert (finished.code, finished.stderr) == (0, "")
    assert said["store"] == f"{path} (schema 1)"
    assert said["traces"] == "5: 3 with an end user, 1 without, 1 whose root was not received"
    assert said["spans"] == "8"
    assert said["end_users"] == "2"
    assert said["sessions"] == "2"
    assert said["overrides"].startswith("1 places")
    assert said["kept"] == "7d (--store-max-age), any size (--store-max-size)"
    assert said["start"] == "2026-11-18T11:03:40.000000000Z to 2026-11-18T11:05:40.000000000Z"
    assert said["received"] == "2026-11-18T11:06:40.000000000Z to 2026-11-18T11:06:40.000000000Z"


async def test_info_for_programs(tmp_path: Path) -> None:
    """--json is one object with every figure as a number: bytes, and nanoseconds since the epoch."""
    path = tmp_path / "traces.db"
    write(path, TRACES)
    finished = await run("store", "info", "--json", "--store", str(path))
    said = json.loads(finished.stdout)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert said.pop("bytes") == size
    assert said.pop("free_bytes") % 4096 == said.pop("log_bytes") == 0
    assert said == {
        "path": str(path),
        "schema": 1,
        "traces": 5,
        "with_end_user": 3,
        "without_end_user": 1,
        "root_not_received": 1,
        "spans": 8,
        "end_users": 2,
        "sessions": 2,
        "overrides": 0,
        "first_start": NOW - 3 * MINUTE,
        "last_start": NOW - MINUTE,
        "first_received": NOW,
        "last_received": NOW,
        "max_age": 30 * DAY,
        "max_bytes": 10 * 2**30,
    }


async def test_info_of_an_empty_store(tmp_path: Path) -> None:
    """A store without traces has zeros and no times."""
    open_writer(tmp_path / "traces.db").close()
    finished = await run("store", "info", "--store", str(tmp_path / "traces.db"))
    assert finished.code == 0
    assert finished.stdout.splitlines()[-1].split() == ["received", "-"]


async def test_prune_deletes_what_is_too_old(tmp_path: Path) -> None:
    """Traces that arrived before --max-age go, and no others; what they took goes back to the disk."""
    path = tmp_path / "traces.db"
    old = dict.fromkeys(range(1, 400), DAY)
    received(path, {**old, 400: 2**62, 401: 2**62})
    before = path.stat().st_size
    finished = await run("store", "prune", "--max-age", "1d", "--store", str(path))
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[0] == "399 traces with 798 spans deleted: 399 by age, 0 by size"
    assert kept(path) == ["user 400", "user 401"]
    assert path.stat().st_size < before / 2
    again = await run("store", "prune", "--max-age", "1d", "--store", str(path))
    assert again.stdout.startswith("0 traces with 0 spans deleted")


async def test_prune_deletes_the_oldest_of_what_is_too_much(tmp_path: Path) -> None:
    """Down to --max-size the traces that arrived first go."""
    path = tmp_path / "traces.db"
    received(path, dict.fromkeys(range(1, 1200), 2**62))
    finished = await run("store", "prune", "--max-size", "4MiB", "--store", str(path))
    assert finished.code == 0
    assert ": 0 by age, " in finished.stdout
    left = kept(path)
    assert left
    assert left == [f"user {number}" for number in range(1200 - len(left), 1200)]
    assert 2 * 2**20 < path.stat().st_size <= 4 * 2**20


async def test_prune_and_info_work_beside_a_running_processor(tmp_path: Path) -> None:
    """Nothing has to be stopped for them, and what the processor takes in afterwards is kept."""
    path = tmp_path / "traces.db"
    received(path, dict.fromkeys(range(1, 50), DAY))
    async with program(*FLAGS, "--store", str(path), "--store-max-age", "none") as started:
        target = await started.ready()
        await upstream.export(target, Stored(100, "before").request())
        finished = await run("store", "prune", "--max-age", "1d", "--store", str(path))
        info = await run("store", "info", "--json", "--store", str(path))
        await upstream.export(target, Stored(101, "after").request())
    assert finished.stdout.startswith("49 traces with 98 spans deleted")
    assert json.loads(info.stdout)["traces"] == 1
    assert kept(path) == ["before", "after"]


@pytest.mark.parametrize("command", ["info", "prune"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--store", "/nowhere/traces.db"), "there is no store at /nowhere/traces.db"),
        (("--store", "none"), "--store is none, and this command needs one"),
        (("--store", "{path}", "--store-max-age", "soon"), "--store-max-age"),
        (("--store", "{path}", "extra"), "unexpected argument 'extra'"),
        (("--store", __file__), f"{__file__} cannot be"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, command: str, arguments: tuple[str, ...], says: str
) -> None:
    """Whatever is wrong is said in one line, and no file is made or changed."""
    path = tmp_path / "traces.db"
    write(path, TRACES)
    finished = await run("store", command, *(one.format(path=path) for one in arguments))
    assert (finished.code, finished.stdout) == (2, "")
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("store",), "store alone is no command"),
        (("store", "ls"), "store ls is no command; write store info, prune, export, forget, migrate, rebuild or copy"),
        (("stor", "info"), "did you mean store?"),
        (("store", "prune", "--max-age", "soon"), "--store-max-age"),
    ],
)
async def test_what_is_no_command_is_said_with_what_there_is(arguments: tuple[str, ...], says: str) -> None:
    """A mistyped command is one line that names the right ones."""
    finished = await run(*arguments)
    assert finished.code == 2
    assert says in finished.stderr
