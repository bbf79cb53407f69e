"""Tries the processor as installed: starts the command, sends it a trace over OTLP/gRPC, stops it.

python processor.py ENVIRONMENT
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import neatlogs_otel as neatlogs

command = [
    Path(sys.argv[1]) / "bin" / "neatlogs-processor",
    "--console",
    "--store",
    "none",
    "--grpc-listen",
    "127.0.0.1:0",
    "--http-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "none",
]
environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
# Whatever goes wrong below, the processor does not outlive the trial.
watchdog = threading.Timer(60, process.kill)
watchdog.start()
try:
    log = []
    address = None
    for line in process.stderr:
        log.append(line)
        if ready := re.search(r"OTLP/gRPC on (127\.0\.0\.1:\d+)", line):
            address = ready[1]
            break
    assert address, "".join(log)
    provider = TracerProvider()
    provider.add_span_processor(neatlogs.EndUserSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://{address}")))
    tracer = provider.get_tracer("trial")
    with (
        neatlogs.identify(end_user_id="u_1"),
        tracer.start_as_current_span("chat"),
        tracer.start_as_current_span("tool", attributes={"neatlogs.end_user.id": "u_forged"}),
    ):
        pass
    provider.shutdown()
    process.terminate()
    out, err = process.communicate(timeout=30)
finally:
    watchdog.cancel()
    process.kill()
assert process.returncode == 0, "".join(log) + err
assert "u_1" in out, out
assert "u_forged" not in out, out
print(out.strip())
