"""The program as people start it: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.processor import program, run


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        ([], {}, "--upstream-endpoint"),
        (["--upsteam-endpoint", "x:1"], {}, "did you mean --upstream-endpoint?"),
        (["--zzzz"], {}, "--help"),
        (["serve"], {}, "unknown command 'serve'"),
        (["helth"], {}, "did you mean health?"),
        (["--console", "extra"], {}, "unexpected argument 'extra'"),
        (["--grpc-listen"], {}, "expected one argument"),
        (["--upstream-endpoint", "collector"], {}, "--upstream-endpoint: 'collector' cannot be used"),
        (["--upstream-headers", "hunter2"], {}, "--upstream-headers"),
        (["--upstream-endpoint", "x:1", "--upstream-timeout", "8"], {}, "write 8s or 500ms"),
        (["--console", "--grpc-listen", "0.0.0.0:0"], {}, "--allow-insecure grpc"),
        (["--config", "/nowhere.toml"], {}, "--config: cannot read /nowhere.toml"),
        ([], {"NEATLOGS_PROCESSOR_CONFIG": "/nowhere.toml"}, "NEATLOGS_PROCESSOR_CONFIG: cannot read"),
        ([], {"NEATLOGS_PROCESSOR_GRPC_LISTN": "x"}, "did you mean NEATLOGS_PROCESSOR_GRPC_LISTEN?"),
        (["--upstream-endpoint", "https://x:1", "--upstream-ca-file", "/nowhere"], {}, "--upstream-ca-file"),
        (["--console", "--grpc-listen", "unix:/nowhere/otlp.sock"], {}, "the folder of /nowhere/otlp.sock"),
        (["--console", "--grpc-listen", "unix:/dev/null"], {}, "not a socket"),
        (["--console", "--grpc-listen", "host.invalid:0", "--allow-insecure", "grpc"], {}, "host.invalid:0"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], environ: dict[str, str], says: str) -> None:
    """Whatever is wrong with the configuration is said in one line, without a traceback and without a secret."""
    finished = await run(*arguments, environ=environ)
    assert (finished.code, finished.stdout) == (2, "")
    assert says in finished.stderr
    assert finished.stderr.startswith("neatlogs-processor: ")
    assert finished.stderr.count("\n") == 0
    assert "hunter2" not in finished.stderr


async def test_bad_toml_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """A file that is not TOML is named with the place of the mistake."""
    path = tmp_path / "config.toml"
    path.write_text("console = \n", encoding="utf-8")
    finished = await run("--config", str(path))
    assert finished.code == 2
    assert f"{path} is not TOML" in finished.stderr
    assert finished.stderr.count("\n") == 0


async def test_a_busy_port_is_refused() -> None:
    """Two processes never share a port in silence: the second one says so and ends with exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = await run("--console", "--grpc-listen", address)
    assert finished.code == 2
    assert f"cannot listen on {address}" in finished.stderr
    assert finished.stderr.count("\n") == 0


async def test_a_second_processor_on_the_same_port_is_refused() -> None:
    """A port that another processor holds is as busy as any other."""
    async with program("--console", "--grpc-listen", "127.0.0.1:0") as first:
        finished = await run("--console", "--grpc-listen", await first.ready())
    assert finished.code == 2
    assert "cannot listen" in finished.stderr


async def test_a_socket_that_is_in_use_is_refused_and_a_stale_one_is_replaced(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A socket file that another process answers on is left alone; one that nobody answers on is taken over."""
    path = tmp_path_factory.mktemp("s") / "otlp.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with program("--console", "--grpc-listen", f"unix:{path}") as first:
        await first.ready()
        finished = await run("--console", "--grpc-listen", f"unix:{path}")
        health = await run("health", "--grpc-listen", f"unix:{path}")
    assert finished.code == 2
    assert "another process listens" in finished.stderr
    assert health.code == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "127.0.0.2"])
async def test_a_processor_does_not_forward_to_itself(host: str) -> None:
    """However its own listener is written, it is refused as an upstream."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    finished = await run("--grpc-listen", f"127.0.0.1:{port}", "--upstream-endpoint", f"http://{host}:{port}")
    assert finished.code == 2
    assert "own --grpc-listen" in finished.stderr
    assert finished.stderr.count("\n") == 0


async def test_a_processor_does_not_forward_to_its_own_socket(tmp_path: Path) -> None:
    """The same file under another name is the same listener."""
    finished = await run(
        "--grpc-listen", "unix:otlp.sock", "--upstream-endpoint", f"unix:{tmp_path}/./otlp.sock", cwd=tmp_path
    )
    assert finished.code == 2
    assert "own --grpc-listen" in finished.stderr


async def test_help_shows_every_flag_under_its_topic() -> None:
    """--help is grouped, and ends with how variables and the file are written."""
    finished = await run("--help")
    assert (finished.code, finished.stderr) == (0, "")
    for part in ("Receiving:", "Forwarding:", "The rule:", "Watching:", "--upstream-endpoint", "NEATLOGS_PROCESSOR_"):
        assert part in finished.stdout


async def test_version_is_the_package_s() -> None:
    """--version prints the program's name and version."""
    finished = await run("--version")
    assert finished.code == 0
    assert finished.stdout.startswith("neatlogs-processor 0.")


async def test_print_config_shows_values_with_sources_and_masks_secrets(tmp_path: Path) -> None:
    """Every value comes with the layer that set it; headers show names only."""
    config = tmp_path / "config.toml"
    config.write_text('log_level = "debug"\n', encoding="utf-8")
    headers = tmp_path / "headers"
    headers.write_text("x-other=hunter2\n", encoding="utf-8")
    finished = await run(
        *("--print-config", "--config", str(config), "--upstream-headers-file", str(headers)),
        environ={
            "NEATLOGS_PROCESSOR_UPSTREAM_HEADERS": "x-api-key=hunter2",
            "NEATLOGS_PROCESSOR_UPSTREAM_TIMEOUT": "500ms",
        },
    )
    lines = {line.partition(" = ")[0]: line.split("  # ") for line in finished.stdout.splitlines()}
    assert finished.code == 0
    assert "hunter2" not in finished.stdout
    assert [part.strip() for part in lines["log_level"]] == ["log_level = debug", f"file {config}"]
    assert lines["upstream_timeout"][0].strip() == "upstream_timeout = 500ms"
    assert lines["upstream_timeout"][1] == "variable NEATLOGS_PROCESSOR_UPSTREAM_TIMEOUT"
    assert "x-api-key=***,x-other=***" in lines["upstream_headers"][0]
    assert lines["max_message_size"][1] == "default"


async def test_print_config_says_what_presets_stand_for() -> None:
    """Beside the source of a preset stand the keys, written as they could be typed."""
    finished = await run(
        "--print-config", "--emit-for", "phoenix", "--accept", "app.user.*", "--accept-from", "semconv"
    )
    lines = {line.partition(" = ")[0]: line.partition("  # ")[2] for line in finished.stdout.splitlines()}
    assert lines["emit_for"] == "flag --emit-for: user.id,session.id,metadata"
    assert lines["accept_from"] == "flag --accept-from: user.id,enduser.id,enduser.pseudo.id,session.id"
    assert "accept = app.user.*" in finished.stdout


async def test_health_says_whether_a_processor_serves() -> None:
    """The command for container health checks ends with 0 where one serves, else with 1."""
    async with program("--console", "--grpc-listen", "127.0.0.1:0") as started:
        address = await started.ready()
        serving = await run("health", environ={"NEATLOGS_PROCESSOR_GRPC_LISTEN": address})
        port = address.rpartition(":")[2]
        any_interface = await run("health", "--grpc-listen", f"0.0.0.0:{port}")
    gone = await run("health", "--grpc-listen", address)
    assert (serving.code, serving.stdout) == (0, f"{address}: SERVING")
    assert any_interface.code == 0
    assert (gone.code, gone.stdout) == (1, f"no answer from {address}: UNAVAILABLE")


async def test_what_is_logged_at_the_start_can_be_opened(tmp_path: Path) -> None:
    """A processor that listens on all interfaces names its page by an address at which it is."""
    everywhere = ("--grpc-listen", "0.0.0.0:0", "--admin-listen", "0.0.0.0:0", "--allow-insecure", "grpc,admin")
    async with program(*everywhere, "--store", str(tmp_path / "traces.db")) as started:
        page = await started.line("the traces page")
        to_try = await started.line("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert re.search(r"the traces page: http://127\.0\.0\.1:\d+/traces", page)
    assert re.search(r"OTEL_EXPORTER_OTLP_ENDPOINT=http://127\.0\.0\.1:\d+ ", to_try)


async def test_protobuf_in_pure_python_is_refused() -> None:
    """Its reader is many times slower than what the limits were chosen for; the message says how to get the other."""
    finished = await run("--console", environ={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"})
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in line


def test_a_reader_of_the_settings_may_leave() -> None:
    """`--print-config | head` ends well and says nothing, though nobody reads to the end."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "neatlogs_processor", "--print-config", "--console"]
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
