"""Where the program starts: the console script and `python -m neatlogs_processor` are the same.

The script is installed with the shim, the processor's dependencies only with the extra `[processor]`; so nothing but
the standard library is imported before the check that they are there.
"""

from __future__ import annotations

import sys

_FROM_THE_EXTRA = {
    "aiohttp",
    "google",
    "grpc",
    "grpc_health",
    "h11",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "starlette",
    "tomli",
    "uvicorn",
    "yarl",
}
"""The packages, as they are imported, of the extra `[processor]`."""


def main() -> int:
    """Run the program and return its exit code; 1 with one line where the extra is not installed."""
    try:
        from neatlogs_processor.cli import main as run

        return run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _FROM_THE_EXTRA:
            raise
        print(
            f"neatlogs-processor: {error.name} is not installed; the processor needs"
            " pip install 'neatlogs-otel[processor]'",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
