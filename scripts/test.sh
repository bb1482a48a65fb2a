#!/usr/bin/env bash
# Everything that must hold: builds without a warning, runs the tests, builds a program against the installed package, then runs
# the tests again under the address and undefined-behaviour sanitizers. The CUDA kernels run on the CPU, in several orders of their
# threads, plain, under these sanitizers and under the thread sanitizer; where nvcc is found, it compiles them too (no GPU is needed;
# with one, see scripts/gpu_check.sh). Ends at the first step that fails, with a line that names it.
#   scripts/test.sh [--quick]
# --quick      only the first five steps: what is needed, format, release build, tests, package
# --help       prints this
# SHRIKE_JOBS  (environment) limits how much runs at once; one per core without it
set -euo pipefail
cd "$(dirname "$0")/.."
quick=""
for option in "$@"; do
  case $option in
    --quick) quick=1 ;;
    --help) sed -n '2,/^set /s/^# \{0,1\}//p' scripts/test.sh; exit 0 ;;
    *) echo "test.sh: unknown option '$option': expected --quick or --help" >&2; exit 2 ;;
  esac
done
jobs=${SHRIKE_JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || { echo "test.sh: SHRIKE_JOBS is '$jobs': expected a positive number" >&2; exit 2; }

. scripts/stopwatch.sh
work=$(mktemp -d)
name="" table="" summary=""

ended() {
  local status=$?
  rm -rf "$work"
  [[ $status -eq 0 ]] || echo "test.sh: the step '$name' failed, after $(elapsed step)" >&2
}
trap ended EXIT
mark all

# step NAME PURPOSE COMMAND...: runs the command (a function below) and records how long it took.
step() {
  name=$1
  printf '\n== %s: %s\n' "$name" "$2"
  shift 2
  mark step
  "$@"
  local took
  took=$(elapsed step)
  echo "-- $took"
  table+=$(printf '%-18s %s' "$name" "$took")$'\n'
}

# build PRESET TARGET [OPTION...]: configures and builds, with warnings as errors.
build() {
  local preset=$1 target=$2
  shift 2
  cmake --preset "$preset" -DSHRIKE_WERROR=ON "$@"
  cmake --build --preset "$preset" --target "$target" -j "$jobs"
}

# run_tests PRESET [OPTION...]: what ctest prints is kept, for its summary to be printed again at the end.
run_tests() {
  local preset=$1
  shift
  ctest --preset "$preset" -j "$jobs" "$@" | tee "$work/ctest"
  summary=$(sed -n '/tests passed/,$p' "$work/ctest")
}

check_format() {
  local format
  format=$(command -v clang-format-14 || command -v clang-format || true)
  if [[ -n $format && $("$format" --version) == *"version 14."* ]] && git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z -- '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 -r -n 16 -P "$jobs" "$format" --dry-run --Werror
    echo "as .clang-format says"
  else
    echo "not checked: needs clang-format 14 and a git checkout"
  fi
}

# What the host build has not compiled: the kernels by nvcc, and what calls the vendor's libraries.
build_by_nvcc() {
  if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
    cmake --preset cuda -DSHRIKE_WERROR=ON "-DSHRIKE_CUDA_ARCHITECTURES=80;90"
    local objects
    mapfile -t objects < <(ninja -C build/cuda -t targets all | sed -n 's/^\(.*shrike\.dir\/\(kernels\|src\/cuda\)\/.*\.o\): .*/\1/p')
    [[ ${#objects[@]} -gt 0 ]] || { echo "test.sh: no kernels among the targets of build/cuda" >&2; return 1; }
    ninja -C build/cuda -j "$jobs" "${objects[@]}"
  else
    echo "not compiled: there is no nvcc here"
  fi
}

# What costs little and says most comes first.
step "setup" "installs what building needs" bash scripts/setup.sh
step "format" "sources are as clang-format 14 writes them" check_format
step "release build" "library, applications and tests as users build them" build release all -DSHRIKE_CUDA=OFF
step "release tests" "all tests of the CPU backend, of files and of applications" run_tests release
step "package" "a user's program finds the installed library, and FetchContent configures" bash scripts/test_package.sh build/release
if [[ -z $quick ]]; then
  # Device::cuda on any machine: kernels/*.cu compiled as C++, one fiber per CUDA thread.
  step "host build" "CUDA kernels compiled for the CPU" build host cuda_tests
  step "host tests" "CUDA kernels on the CPU, in three orders of their threads" run_tests host -L cuda
  step "nvcc build" "CUDA kernels for two generations of GPUs" build_by_nvcc
  step "host-asan build" "everything, for the address and undefined-behaviour sanitizers" build host-asan all
  step "host-asan tests" "every test under these sanitizers" run_tests host-asan
  # Not the applications: launches follow one another on the host, so theirs add no race that the kernels' own tests could not have.
  step "host-tsan build" "for the thread sanitizer" build host-tsan race_tests
  step "host-tsan tests" "CUDA kernels and the pool of threads under the thread sanitizer" run_tests host-tsan -L "cuda|threads" \
    -E "^cuda_apps_test_"
fi

# The table, and then what ctest said last: whoever reads only the end of a log finds it there.
printf '\n== times\n%s%-18s %s\n\nThe last tests, once more:\n%s\n' "$table" "all" "$(elapsed all)" "$summary"
