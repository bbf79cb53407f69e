"""An upstream that goes away under load; the long form is `tests/torture/outage.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "torture" / "outage.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("mode", ["queue", "sync"])
def test_an_outage_of_the_upstream_loses_nothing(mode: str) -> None:
    """While the upstream is away a queue goes on acknowledging, and without one OK still means that it accepted."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--mode", mode, "--seconds", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost" in done.stdout
