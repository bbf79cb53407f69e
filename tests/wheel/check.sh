#!/usr/bin/env bash
# Builds the wheel and tries it where the sources are absent: what a user installs, not what the repository holds.
#
#     tests/wheel/check.sh PYTHON
#
# PYTHON is a command or a path, and has pip 22.3 or newer; everything is built and installed in a temporary folder.
set -euo pipefail

python=$(command -v "${1:?usage: tests/wheel/check.sh PYTHON}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
sources=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Nothing of the caller's may stand in for what the wheel lacks, and no telemetry setting may steer the trial.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
for variable in $(compgen -v | grep -E '^(OTEL|NEATLOGS)_' || true); do unset "$variable"; done

say() { printf '\n== %s\n' "$*"; }

new_environment() {
    "$python" -m venv --without-pip "$work/$1"
    "$python" -m pip --python "$work/$1/bin/python" install --quiet "$2"
}

say "Build the wheel"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work/dist" "$sources"
wheel=$(echo "$work"/dist/neatlogs_otel-*.whl)

# Away from the sources: `import neatlogs_otel` must find the installed package or nothing.
cp "$sources"/tests/wheel/*.py "$work/"
cd "$work"

say "What is in it"
"$python" content.py "$wheel" "$sources"

say "The shim alone: pip install neatlogs-otel"
new_environment shim "$wheel"
"$work/shim/bin/python" -I -W error shim.py "$work/shim"
# The command is installed with the shim; without the extra it says what is missing.
if "$work/shim/bin/neatlogs-processor" --version >"$work/out" 2>&1; then
    echo "neatlogs-processor runs without the [processor] extra: its dependencies have moved into the base" >&2
    exit 1
fi
cat "$work/out"
if grep -q Traceback "$work/out" || ! grep -qF "pip install 'neatlogs-otel[processor]'" "$work/out"; then
    echo "neatlogs-processor does not say what to install" >&2
    exit 1
fi

say "With the processor: pip install 'neatlogs-otel[processor]'"
new_environment processor "${wheel}[processor]"
"$work/processor/bin/neatlogs-processor" --version
"$work/processor/bin/python" -I -W error processor.py "$work/processor"

say "The wheel is good"
