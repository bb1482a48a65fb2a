#!/usr/bin/env bash
# Everything that must hold: builds without a warning, runs the tests, builds a program against the installed package, then runs
# the tests again under the address and undefined-behaviour sanitizers. The CUDA kernels run on the CPU, in several orders of their
# threads, plain, under these sanitizers and under the thread sanitizer; where nvcc is found, it compiles them too (no GPU is needed;
# with one, see scripts/gpu_check.sh). SHRIKE_JOBS limits how much runs at once.
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
cmake --preset release -DSHRIKE_WERROR=ON -DSHRIKE_CUDA=OFF
cmake --build --preset release -j "$jobs"

step "Tests"
ctest --preset release -j "$jobs"

step "Package"
bash scripts/test_package.sh build/release

step "Build with sanitizers"
cmake --preset asan -DSHRIKE_WERROR=ON -DSHRIKE_CUDA=OFF
cmake --build --preset asan -j "$jobs"

step "Tests with sanitizers"
ctest --preset asan -j "$jobs"

# Device::cuda on any machine: kernels/*.cu compiled as C++, one fiber per CUDA thread.
for preset in host host-asan host-tsan; do
  step "CUDA kernels on the CPU: $preset"
  cmake --preset $preset -DSHRIKE_WERROR=ON -DSHRIKE_BUILD_APPS=OFF
  cmake --build --preset $preset --target cuda_tests -j "$jobs"
  ctest --preset $preset -L cuda -j "$jobs"
done

step "CUDA kernels by nvcc"
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
  cmake --preset cuda "-DSHRIKE_CUDA_ARCHITECTURES=80;90"
  cmake --build --preset cuda --target shrike -j "$jobs"
else
  echo "not compiled: there is no nvcc here"
fi
