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

step "CUDA kernels by nvcc"
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
  cmake --preset cuda -DSHRIKE_WERROR=ON "-DSHRIKE_CUDA_ARCHITECTURES=80;90"
  cmake --build --preset cuda --target shrike -j "$jobs"
else
  echo "not compiled: there is no nvcc here"
fi

# Device::cuda on any machine: kernels/*.cu compiled as C++, one fiber per CUDA thread.
step "CUDA kernels on the CPU"
cmake --preset host -DSHRIKE_WERROR=ON
cmake --build --preset host --target cuda_tests -j "$jobs"
ctest --preset host -L cuda -j "$jobs"

step "Tests under the address and undefined-behaviour sanitizers"
cmake --preset host-asan -DSHRIKE_WERROR=ON
cmake --build --preset host-asan -j "$jobs"
ctest --preset host-asan -j "$jobs"

# The tests of the kernels alone: threads of the CPU backend are GCC's OpenMP, which this sanitizer does not know. Not the
# applications: launches follow one another on the host, so theirs add no race that the kernels' own tests could not have.
step "CUDA kernels under the thread sanitizer"
cmake --preset host-tsan -DSHRIKE_WERROR=ON
cmake --build --preset host-tsan --target cuda_tests -j "$jobs"
ctest --preset host-tsan -L cuda -j "$jobs" -E '^cuda_apps_test_'
