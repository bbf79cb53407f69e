"""The processor with `--queue-dir`, as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from support.processor import program, run
from support.spans import child, names_and_end_users, request, root
from support.upstream import Reply, Upstream, export, refused

FLAGS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")
TORTURE = Path(__file__).parents[2] / "torture"


async def test_a_request_is_acknowledged_while_the_upstream_is_down_and_delivered_after_a_restart(
    tmp_path: Path,
) -> None:
    """OK means on disk: the upstream may be away, the processor may stop, and overrides never reach the disk."""
    flags = (*FLAGS, "--queue-dir", str(tmp_path / "queue"))
    body = request(root("chat", neatlogs__end_user__id="u_1"), child("tool", neatlogs__end_user__id="u_" + "x" * 1_000))
    async with program(*flags, "--upstream-endpoint", "127.0.0.1:9") as started:
        address = await started.ready()
        assert await export(address, body) == b""
        assert await export(address, b"\x0a\x00", signal="metrics") == b""
        on_disk = b"".join(path.read_bytes() for path in (tmp_path / "queue").iterdir())
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert finished.code == 0
    assert "the queue holds: requests 2," in finished.stderr
    assert b"u_1" in on_disk
    assert b"x" * 1_000 not in on_disk
    async with Upstream() as upstream, program(*flags, "--upstream-endpoint", upstream.endpoint) as again:
        await upstream.wait_for(2)
        again.kill(signal.SIGTERM)
        assert (await again.end()).code == 0
    arrived = {one.signal: one.body for one in upstream.received}
    assert names_and_end_users(arrived["traces"]) == {"chat": "u_1", "tool": None}
    assert arrived["metrics"] == b"\x0a\x00"


async def test_a_full_queue_answers_unavailable_with_a_delay(tmp_path: Path) -> None:
    """Past the cap, clients are told to come back, in both forms of RetryInfo."""
    flags = ("--max-message-size", "32KiB", "--queue-max-bytes", "64KiB", "--queue-dir", str(tmp_path / "queue"))
    async with (
        Upstream(Reply(code=grpc.StatusCode.UNAVAILABLE)) as upstream,
        program(*FLAGS, *flags, "--upstream-endpoint", upstream.endpoint) as started,
    ):
        address = await started.ready()
        for _ in range(3):
            assert await export(address, request(root("x" * 20_000))) == b""
        error = await refused(address, request(root("x" * 20_000)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "--queue-max-bytes" in (error.details() or "")
    assert {"google.rpc.retryinfo-bin", "grpc-status-details-bin"} <= {key for key, _ in error.trailing_metadata()}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--console"], "name an upstream"),
        (["--upstream-endpoint", "x:1", "--forward-headers", "x-api-key"], "--upstream-headers-file"),
        (["--upstream-endpoint", "x:1", "--queue-max-bytes", "64MiB"], "at least twice --max-message-size"),
        (["--upstream-endpoint", "x:1", "--queue-max-bytes", "2PiB"], "--queue-max-bytes"),
        (["--upstream-endpoint", "x:1", "--queue-max-age", "0s"], "--queue-max-age"),
        (["--upstream-endpoint", "x:1", "--queue-workers", "0"], "--queue-workers"),
        (["--upstream-endpoint", "x:1", "--queue-max-dead-bytes", "x"], "--queue-max-dead-bytes"),
    ],
)
async def test_settings_that_cannot_work_are_refused(tmp_path: Path, flags: list[str], says: str) -> None:
    """A mistake about the queue is one line and exit code 2, and leaves no directory behind."""
    finished = await run(*FLAGS, *flags, "--queue-dir", str(tmp_path / "queue"))
    assert finished.code == 2
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 0
    assert not (tmp_path / "queue").exists()


@pytest.mark.parametrize("mode", ["queue", "sync"])
def test_nothing_acknowledged_is_lost_when_the_processor_is_killed(mode: str) -> None:
    """Killed at random moments under load, ten times, with the queue and without: every acknowledged span arrives."""
    kills = {"queue": 10, "sync": 4}[mode]
    finished = subprocess.run(
        [sys.executable, TORTURE / "kill9.py", "--mode", mode, "--kills", str(kills)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    figures = re.search(r"(\d+) acknowledged, (\d+) received, (\d+) lost", finished.stdout)
    assert figures is not None
    assert int(figures[1]) > 0
    assert int(figures[3]) == 0
