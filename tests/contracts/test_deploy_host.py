"""What runs the processor on one machine: the unit of systemd, the image, and the proxies in front."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neatlogs_processor.service import _LAST_SECONDS
from neatlogs_processor.settings import entries, load
from support.manifests import DEPLOY
from support.proxies import FILES, Behind, Proxy, configuration, free_ports, nginx, program_of

REPOSITORY = DEPLOY.parent
UNIT = DEPLOY / "systemd" / "neatlogs-processor.service"
PROGRAM = "/opt/neatlogs/bin/neatlogs-processor"
DOCKERFILE = REPOSITORY / "processor" / "Dockerfile"

BEHIND = [Behind(1, 2, 3), Behind(4, 5, 6), Behind(7, 8, 9)]

MOST_EXPOSED = 2.0
"""Of ten, by systemd's own measure; what nobody restricted has more than nine."""


def analyze(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Ask `systemd-analyze` about a unit, which need not run for that."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (it comes with systemd)")
    return subprocess.run(
        [program, "--no-pager", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def settings_of_unit() -> dict[str, list[str]]:
    """The lines of the unit, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the unit, once its program is one of this machine."""
    text = UNIT.read_text(encoding="utf-8")
    assert f"ExecStart={PROGRAM} " in text
    (tmp_path / UNIT.name).write_text(text.replace(PROGRAM, sys.executable), encoding="utf-8")
    done = analyze("verify", "--man=no", f"./{UNIT.name}", cwd=tmp_path)
    of_ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, of_ours) == (0, [])


def test_the_unit_leaves_little_open(tmp_path: Path) -> None:
    """systemd's own measure of what a service could reach is low."""
    shutil.copy(UNIT, tmp_path)
    limit = f"--threshold={MOST_EXPOSED * 10:g}"
    done = analyze("security", "--offline=true", limit, f"./{UNIT.name}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_unit_waits_for_the_end_and_does_not_repeat_a_mistake() -> None:
    """Stopping has more time than the processor takes, and a mistake in the configuration is not tried again."""
    unit = settings_of_unit()
    stop = float(unit["TimeoutStopSec"][0].removesuffix("s"))
    settings = load({}, {}).settings
    assert stop > settings.drain_delay + settings.shutdown_timeout + _LAST_SECONDS
    assert unit["RestartPreventExitStatus"] == ["2"]
    # The others of the group are threads, which end with it.
    assert unit["KillMode"] == ["mixed"]


def test_what_the_unit_says_of_the_configuration_is_true() -> None:
    """The settings that its comments name exist, and its directories are those of the service."""
    text = UNIT.read_text(encoding="utf-8")
    names = {entry.name for entry in entries()}
    assert set(re.findall(r"\b([a-z]+(?:_[a-z]+)*) = \"", text)) <= names
    assert settings_of_unit()["StateDirectory"] == ["neatlogs"]
    assert "/var/lib/neatlogs/queue" in text
    assert f"/run/credentials/{UNIT.name}/" in text


def test_the_dockerfile_has_no_findings() -> None:
    """hadolint has nothing to say about the Dockerfile."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_the_user_that_the_manifests_name() -> None:
    """User, folder of what is kept, and program of the image are those that manifests and probes rely on."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert "\nUSER 65532:65532\n" in text
    assert "-o 65532 -g 65532 -m 0700 /var/lib/neatlogs" in text
    assert '\nENTRYPOINT ["neatlogs-processor"]\n' in text


@pytest.mark.parametrize("name", FILES)
def test_a_proxy_takes_its_file_as_it_stands(name: str, tmp_path: Path) -> None:
    """nginx and HAProxy find no mistake in the files of deploy/load-balancing, and warn of nothing."""
    path = program_of(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    file = tmp_path / FILES[name].name
    file.write_text(configuration(name, BEHIND, Proxy(*free_ports(2)), tmp_path), encoding="utf-8")
    command = [*nginx(path, file, tmp_path), "-t", "-q"] if name == "nginx" else [path, "-c", "-q", "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_tests_change_addresses_alone(name: str, tmp_path: Path) -> None:
    """What the tests run is the file of deploy/load-balancing, line for line, but for addresses and folders."""
    ours = configuration(name, BEHIND, Proxy(10, 11), tmp_path).splitlines()
    theirs = FILES[name].read_text(encoding="utf-8").splitlines()
    assert len(ours) == len(theirs)
    different = [one for one, other in zip(theirs, ours, strict=True) if one != other]
    assert len([line for line in different if line != "http {"]) == 8
    assert all(re.search(r"^\s+(server|listen|bind) |^http {$", line) for line in different)
