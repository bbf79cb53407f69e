"""Checks a wheel's list of files: the packages, whole, and nothing else.

python content.py WHEEL SOURCES
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

wheel, sources = Path(sys.argv[1]), Path(sys.argv[2])
with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))

packages = {
    "neatlogs_otel": sources / "neatlogs_otel",
    "neatlogs_otel_pytest": sources / "neatlogs_otel_pytest",
    "neatlogs_processor": sources / "processor/neatlogs_processor",
}
expected = {
    f"{name}/{file.relative_to(folder)}"
    for name, folder in packages.items()
    for file in folder.rglob("*")
    if file.is_file() and "__pycache__" not in file.parts
}
found = {name for name in names if ".dist-info/" not in name}
problems = [f"missing: {name}" for name in sorted(expected - found)]
problems += [f"does not belong: {name}" for name in sorted(found - expected)]
problems += [f"missing: {name}/py.typed" for name in packages if f"{name}/py.typed" not in found]
problems += [f"missing in the metadata: {line}" for line in ("License-Expression: Apache-2.0",) if line not in metadata]
if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
    problems.append("missing: the licence")
if problems:
    sys.exit("\n".join(problems))
print(f"{wheel.name}: {len(found)} files in {' and '.join(sorted({name.split('/')[0] for name in found}))}")
