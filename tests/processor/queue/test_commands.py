"""`neatlogs-processor queue ls`, `replay` and `purge`, as an operator types them."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest

from support.processor import program, run, until
from support.queue_parts import Destination, Parts, queue_in, rejected, traces, unavailable
from support.spans import request, root
from support.upstream import Reply, Upstream, export

FLAGS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")


async def filled(path: Path) -> Parts:
    """Leave two waiting requests and two dead letters in a queue."""

    def answer(body: bytes) -> bytes:
        if b"bad" in body:
            raise rejected("no\nthanks \x1b[31m")
        raise unavailable()

    async with queue_in(path, Destination(answer), workers=4) as parts:
        await parts.send(traces("bad"), traces("bad, too"), traces("good"), traces("good, too"))
        retries = parts.telemetry.counters.retries
        await until(lambda: parts.queue.state.dead_requests == 2 and retries.total() >= 2)
    return parts


async def test_ls_shows_what_waits_and_what_is_dead(tmp_path: Path) -> None:
    """Each request is a line with its size, age, tries and last error, escaped; the sums come last."""
    await filled(tmp_path / "queue")
    finished = await run("queue", "ls", "--queue-dir", str(tmp_path / "queue"))
    lines = finished.stdout.splitlines()
    assert (finished.code, finished.stderr) == (0, "")
    assert lines[0].split() == ["id", "signal", "bytes", "age", "attempts", "state", "last", "error"]
    assert [line.split()[5] for line in lines[1:5]] == ["waiting", "waiting", "dead", "dead"]
    assert [line.split()[0] for line in lines[1:5]] == ["3", "4", "1", "2"]
    assert lines[1].endswith("down")
    assert lines[3].endswith(r"rejected: no\nthanks \x1b[31m")
    assert lines[5].startswith("2 waiting (")
    assert ", 2 dead (" in lines[5]


async def test_replay_delivers_dead_letters_after_the_next_start(tmp_path: Path) -> None:
    """What was refused under a wrong configuration goes out under the right one, behind what already waits."""
    parts = await filled(tmp_path / "queue")
    one = await run("queue", "replay", "--id", "2", "--queue-dir", str(tmp_path / "queue"))
    rest = await run("queue", "replay", "--queue-dir", str(tmp_path / "queue"))
    assert one.stdout.startswith("1 dead letters wait")
    assert rest.stdout.startswith("1 dead letters wait")
    async with queue_in(tmp_path / "queue", workers=1) as again:
        await again.emptied()
        assert again.queue.state.dead_requests == 0
    assert again.destination.accepted == [parts.sent[2], parts.sent[3], parts.sent[1], parts.sent[0]]


async def test_replay_leaves_what_cannot_be_read_any_more(tmp_path: Path) -> None:
    """A request whose bytes changed on the disk is not sent by asking for it."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(lambda _: b""), started=False) as parts:
        await parts.send(traces("0"))
    content = bytearray((path / "queue.v1.sqlite").read_bytes())
    content[content.index(b"service.name")] ^= 1
    (path / "queue.v1.sqlite").write_bytes(content)
    async with queue_in(path) as again:
        await again.emptied()
    finished = await run("queue", "replay", "--queue-dir", str(path))
    assert (finished.code, finished.stdout) == (
        0,
        "0 dead letters wait for delivery again\n1 cannot be read any more: 1",
    )


async def test_purge_deletes_dead_letters_and_only_when_told_so_what_waits(tmp_path: Path) -> None:
    """Acknowledged requests are thrown away only with --waiting."""
    await filled(tmp_path / "queue")
    directory = ("--queue-dir", str(tmp_path / "queue"))
    assert (await run("queue", "purge", *directory, "--id", "1")).stdout == "1 dead letters deleted"
    assert (await run("queue", "purge", *directory)).stdout == "1 dead letters deleted"
    assert (await run("queue", "ls", *directory)).stdout.splitlines()[-1].endswith("0 dead (0 bytes)")
    assert (await run("queue", "purge", "--waiting", "--id", "3,4", *directory)).stdout == "2 waiting requests deleted"
    assert (await run("queue", "ls", *directory)).stdout.splitlines()[-1] == "0 waiting (0 bytes), 0 dead (0 bytes)"


async def test_beside_a_running_processor_only_ls_works(tmp_path: Path) -> None:
    """ls reads the file in use; replay, purge and a second processor are told the pid of who holds it."""
    path = str(tmp_path / "queue")
    async with (
        Upstream(Reply(code=grpc.StatusCode.UNAVAILABLE, message="not now")) as upstream,
        program(*FLAGS, "--upstream-endpoint", upstream.endpoint, "--queue-dir", path) as started,
    ):
        await export(await started.ready(), request(root()))
        await upstream.wait_for(1)
        listed = await run("queue", "ls", "--queue-dir", path)
        refused = [await run("queue", command, "--queue-dir", path) for command in ("replay", "purge")]
        second = await run(*FLAGS, "--upstream-endpoint", upstream.endpoint, "--queue-dir", path)
        pid = started.process.pid
    assert "1 waiting" in listed.stdout
    for finished in (*refused, second):
        assert finished.code == 2
        assert f"in use by another process (pid {pid})" in finished.stderr
        assert finished.stderr.count("\n") == 0


async def test_ls_reads_what_a_killed_processor_left(tmp_path: Path) -> None:
    """The log that was not moved into the file yet is read too, and nothing has to run for it."""
    path = tmp_path / "queue"
    async with queue_in(path, started=False) as parts:
        await parts.send(traces())
        shutil.copytree(path, tmp_path / "left")
    finished = await run("queue", "ls", "--queue-dir", str(tmp_path / "left"))
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[-1].startswith("1 waiting (")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["queue"], 2, "queue ls, queue replay or queue purge"),
        (["queue", "list"], 2, "queue list is no command"),
        (["queue", "ls"], 2, "queue ls needs --queue-dir"),
        (["queue", "ls", "--queue-dir", "/nowhere"], 2, "there is no queue in /nowhere"),
        (["queue", "purge", "--queue-dir", "/nowhere"], 2, "there is no queue in /nowhere"),
        (["queue", "purge", "--queue-dir", "{empty}", "--id", "x"], 2, "'x' cannot be used"),
        (["queue", "purge", "--queue-dir", "{empty}", "--id", ","], 2, "',' cannot be used"),
        (["queue", "purge", "--queue-dir", "{empty}", "--id", "7"], 1, "7 is not the id of a dead letter"),
        (["queue", "replay", "--queue-dir", "{empty}", "--waiting"], 2, "unknown flag --waiting"),
        (["queue", "ls", "--queue-dir", "{broken}"], 1, "cannot be read"),
        (["queues"], 2, "did you mean queue?"),
    ],
)
async def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    """Whatever is wrong with a queue command is said in one line that says what to do."""
    async with queue_in(tmp_path / "empty", started=False):
        pass
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "queue.v1.sqlite").write_bytes(b"nonsense" * 1000)
    places = {name: str(tmp_path / name) for name in ("empty", "broken")}
    finished = await run(*(word.format(**places) for word in arguments))
    assert finished.code == code
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 0
