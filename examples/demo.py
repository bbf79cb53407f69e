"""Fills the traces page: a believable day, then every other example once against a running processor; then it ends.

    make run     # in one terminal
    make demo    # in another

The traces go where the shim sends them by default: NEATLOGS_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT, else
http://localhost:4317.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

EXAMPLES = (
    "believable_day.py",
    "single_user_cli.py",
    "decorated_workflow.py",
    "chat_session.py",
    "fastapi_multi_tenant.py",
    "existing_opentelemetry.py",
    "wrap_openai.py",
    "distributed_two_services.py",
)


def endpoint() -> str:
    """Where the examples send their traces."""
    variables = ("NEATLOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    name = next((name for name in variables if os.environ.get(name)), None)
    url = os.environ[name] if name else "http://localhost:4317"
    # The shim reads host:port as plain text; for OpenTelemetry's own exporters it would mean TLS.
    return f"http://{url}" if name == variables[0] and "://" not in url and not url.startswith("unix:") else url


def answers(url: str) -> bool:
    """Whether anything listens there. A `unix:` address and the like are left to the examples."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    if parts.hostname is None:
        return True
    try:
        with socket.create_connection((parts.hostname, parts.port or 4317), timeout=5):
            return True
    except OSError:
        return False


def main() -> int:
    url = endpoint()
    if not answers(url):
        print(
            f"No processor answers at {url}. Start one in another terminal, then try again: make run", file=sys.stderr
        )
        return 1
    # One address for all: existing_opentelemetry.py has an exporter of its own, which knows the standard name only.
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    failed = []
    for name in EXAMPLES:
        print(f"\n== {name}", flush=True)
        program = [sys.executable, str(Path(__file__).parent / name)]
        if subprocess.run(program, env=environment, timeout=120, check=False).returncode:  # noqa: S603  # our own files
            failed.append(name)
    if failed:
        print(f"\nThese examples failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(
        f"\nAll done. The processor at {url} has one end user for each trace, or none, and its traces page shows them:"
    )
    print("http://127.0.0.1:4319/traces (unless you started it elsewhere, or with --store none)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
