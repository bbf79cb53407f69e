"""Hostile input of every kind at once; its long form is `tests/torture/hostile.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "torture" / "hostile.py"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_hostile_clients_do_not_end_service() -> None:
    """Under all attacks together a polite client is served; afterwards all is well and memory is small."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "1", "--scale", "0.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    resident = re.search(r"at the end ([\d.]+) MiB", done.stdout)
    assert resident is not None
    assert float(resident[1]) < 250
