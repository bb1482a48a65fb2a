#!/usr/bin/env bash
# Everything that must hold: builds without a warning, runs the tests, builds a program against the installed package, then runs
# the tests again under the address and undefined-behaviour sanitizers. SHRIKE_JOBS limits how much runs at once.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${SHRIKE_JOBS:-$(nproc)}

step() { printf '\n== %s\n' "$*"; }

step "What is needed"
bash scripts/setup.sh

step "Format"
format=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -n $format && $("$format" --version) == *"version 14."* ]] && git rev-parse --git-dir >/dev/null 2>&1; then
  git ls-files -z -- '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 -r "$format" --dry-run --Werror
  echo "as .clang-format says"
else
  echo "not checked: needs clang-format 14 and a git checkout"
fi

step "Release build"
cmake --preset release -DSHRIKE_WERROR=ON
cmake --build --preset release -j "$jobs"

step "Tests"
ctest --preset release -j "$jobs"

step "Package"
bash scripts/test_package.sh build/release

step "Build with sanitizers"
cmake --preset asan -DSHRIKE_WERROR=ON
cmake --build --preset asan -j "$jobs"

step "Tests with sanitizers"
ctest --preset asan -j "$jobs"
