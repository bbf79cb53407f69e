#!/bin/sh
# Builds the Collector that the benchmark compares with into .peers/collector/otelcol. Without Go it says so and
# succeeds: the benchmark's row then reads "not measured".
set -eu

version=v0.161.0
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../../.." && pwd)/.peers/collector

if [ -x "$home/otelcol" ] && [ ! "$here/manifest.yaml" -nt "$home/otelcol" ]; then
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
cp "$here/manifest.yaml" "$home/manifest.yaml"
(cd "$home" && ./builder --config manifest.yaml)
