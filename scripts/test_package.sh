#!/usr/bin/env bash
# Installs the build in folder $1 and compiles tests/package against it with find_package, and configures the same program
# against the sources with FetchContent: both must look the same to a user.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:?usage: scripts/test_package.sh BUILD_FOLDER}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/installed" >/dev/null
cmake -S tests/package -B "$work/find" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/installed" >/dev/null
cmake --build "$work/find" >"$work/log" || { cat "$work/log"; exit 1; }
"$work/find/consumer" "$work/weights.safetensors"
cmake -S tests/package -B "$work/fetch" -G Ninja -DSHRIKE_SOURCE="$PWD" >/dev/null
echo "find_package builds and runs; FetchContent configures"
