#!/bin/sh
# Builds Jaeger into .peers/jaeger/jaeger, for the recipe that ends there. Its module has a replace directive, so that
# `go install` refuses it: the module is downloaded, copied and built where it stands. Some minutes, some gigabytes.
set -eu

version=v1.76.0
home=$(cd "$(dirname "$0")/../.." && pwd)/.peers/jaeger

if [ -x "$home/jaeger" ]; then
    echo "Jaeger is there already: $home/jaeger"
    exit 0
fi
if ! command -v go >/dev/null; then
    echo "There is no Go toolchain here (https://go.dev/dl/), so Jaeger is not built."
    exit 0
fi
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$home"
(cd "$work" && go mod init build >/dev/null 2>&1 && go mod download "github.com/jaegertracing/jaeger@$version")
cp -r "$(go env GOMODCACHE)/github.com/jaegertracing/jaeger@$version" "$work/jaeger"
chmod -R u+w "$work/jaeger"
(cd "$work/jaeger" && go build -o "$home/jaeger" ./cmd/jaeger)
echo "Built: $home/jaeger"
