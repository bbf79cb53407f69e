"""Virtual environments of their own for published packages that cannot share one with the tests.

They are made on first use under `.peers/` in the repository's root and kept; a stamp holds what was asked for, so that
a changed pin makes a new one, and a file lock lets several test runs share them.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / ".peers"


class PeerUnavailableError(Exception):
    """The environment could not be made; the message ends with what pip said last."""


@dataclass(frozen=True)
class Peer:
    """A published package and the libraries that it is installed beside.

    Attributes:
        name: The environment's folder name.
        package: The requirement, installed without its declared dependencies.
        libraries: What `package` imports, pinned; installed with their dependencies.
    """

    name: str
    package: str
    libraries: Sequence[str]

    def python(self) -> Path:
        """The interpreter of the environment, which is made if it is not there yet.

        Raises:
            PeerUnavailableError: The packages cannot be installed for this Python.
        """
        version = "{}.{}".format(*sys.version_info[:2])
        home = PEERS / f"{self.name}-py{version}"
        stamp = home / "stamp.txt"
        wanted = "\n".join([sys.version, self.package, *self.libraries])
        interpreter = home / "bin" / "python"
        PEERS.mkdir(exist_ok=True)
        with (PEERS / f"{home.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
                return interpreter
            # Without a stamp an earlier attempt was cut short: begin again.
            shutil.rmtree(home, ignore_errors=True)
            venv.create(home, with_pip=False, symlinks=True)
            _install(interpreter, *self.libraries)
            _install(interpreter, "--no-deps", self.package)
            stamp.write_text(wanted, encoding="utf-8")
        return interpreter


def _install(interpreter: Path, *arguments: str) -> None:
    # The tests' own pip installs into the environment, which saves putting a pip into each.
    command = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise PeerUnavailableError(f"pip could not install {' '.join(arguments)}: {last[0]}")


_OPENTELEMETRY = (
    "opentelemetry-sdk==1.45.1",
    "opentelemetry-exporter-otlp-proto-http==1.45.1",
    "opentelemetry-instrumentation==0.66b1",
    "opentelemetry-instrumentation-threading==0.66b1",
    "opentelemetry-instrumentation-logging==0.66b1",
)

# The packages declare some forty instrumentations, which pip needs many minutes to resolve and which they import only
# when asked to. So they are installed without dependencies, beside what they do import.
NEATLOGS_1_4_0 = Peer(
    name="neatlogs-1.4.0",
    package="neatlogs==1.4.0",
    libraries=(
        *_OPENTELEMETRY,
        "opentelemetry-instrumentation-requests==0.66b1",
        "opentelemetry-instrumentation-urllib3==0.66b1",
        "opentelemetry-instrumentation-httpx==0.66b1",
        "openinference-instrumentation==0.1.72",
        "openinference-semantic-conventions==0.1.42",
        "requests==2.34.2",
        "httpx==0.28.1",
        "wrapt==1.17.3",
    ),
)
NEATLOGS_1_4_27 = Peer(
    name="neatlogs-1.4.27",
    package="neatlogs==1.4.27",
    libraries=(
        *_OPENTELEMETRY,
        "openinference-instrumentation==0.1.72",
        "openinference-semantic-conventions==0.1.42",
        "requests==2.34.2",
        "httpx==0.28.1",
        "wrapt==1.17.3",
    ),
)
# The newest version that imports needs wrapt 1, which the tests' own environment has outgrown.
GENAI_INSTRUMENTATION = Peer(
    name="opentelemetry-instrumentation-openai-v2-2.3b0",
    package="opentelemetry-instrumentation-openai-v2==2.3b0",
    libraries=(
        "opentelemetry-sdk==1.45.1",
        "opentelemetry-exporter-otlp==1.45.1",
        "opentelemetry-instrumentation==0.66b1",
        "openai==3.52.0",
        # What the instrumentation imports without saying so.
        "httpx==0.28.1",
        "wrapt==1.17.3",
    ),
)

# Other SDKs that say who was served. Traceloop's declares thirty instrumentations, none of which is asked for here.
TRACING_SDKS = Peer(
    name="tracing-sdks",
    package="traceloop-sdk==0.62.4",
    libraries=(
        *_OPENTELEMETRY,
        "opentelemetry-exporter-otlp-proto-grpc==1.45.1",
        "opentelemetry-semantic-conventions-ai==0.5.1",
        "openinference-instrumentation==0.1.72",
        "langfuse==5.0.4",
        "logfire==5.2.0",
        # What Traceloop's imports.
        "aiohttp==3.14.5",
        "colorama==0.4.6",
        "cuid==0.4",
        "jinja2==3.1.6",
        "tenacity==9.2.1",
    ),
)
