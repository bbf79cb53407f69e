#!/bin/sh
# Builds the Collector that the benchmark compares with into .peers/collector/otelcol; with the words
# `spreading.yaml spreading-collector`, the one that spreads traces over processors, into .peers/spreading-collector.
# Without Go it says so and succeeds: the benchmark's row then reads "not measured", and tests are skipped.
set -eu

version=v0.161.0
here=$(cd "$(dirname "$0")" && pwd)
manifest=$here/${1:-manifest.yaml}
home=$(cd "$here/../../.." && pwd)/.peers/${2:-collector}

if [ -x "$home/otelcol" ] && [ ! "$manifest" -nt "$home/otelcol" ]; then
    echo "The Collector is there already: $home/otelcol"
    exit 0
fi
if ! command -v go >/dev/null; then
    echo "There is no Go toolchain here (https://go.dev/dl/), so the Collector is not built and not measured."
    exit 0
fi
mkdir -p "$home"
echo "Building the Collector $version into $home; this takes some minutes and some gigabytes of Go's caches."
GOBIN=$home go install "go.opentelemetry.io/collector/cmd/builder@$version"
cp "$manifest" "$home/manifest.yaml"
(cd "$home" && ./builder --config manifest.yaml)
