#!/usr/bin/env bash
# All that can only be known on a machine with a GPU, in one command, without network: builds for this GPU, runs every test on it, runs
# the kernel tests under compute-sanitizer, runs the benchmarks, beside PyTorch where python3 has it, trains on the built-in shapes and
# on a data set if one is given, and writes benchmarks/results/GPU.md. A step that fails is recorded, and the others go on. Exits 1 when
# one has failed.
#   scripts/gpu_check.sh [--data VOC_FOLDER] [--quick] [--host] [--build FOLDER] [--output FILE.md]
# --data    a VOC-format folder to train on as well, with the settings of the preset bccd
# --quick   small sizes and few runs, to see that everything works
# --host    the same with SHRIKE_CUDA=HOST, on a machine without a GPU: --quick is understood, sanitizers and PyTorch are left out
set -uo pipefail
cd "$(dirname "$0")/.."
data="" quick="" host="" build="" output=""
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=${2:?--data needs a folder}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --output) output=${2:?--output needs a file}; shift ;;
    --quick) quick=1 ;;
    --host) host=1 quick=1 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done

export PATH="$PATH:/usr/local/cuda/bin"
have() { command -v "$1" >/dev/null 2>&1; }
gpu="none" capability="" driver=""
if have nvidia-smi; then
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
fi
[ -n "$host" ] && gpu="host"
if [ -z "$host" ] && [ -z "$capability" ]; then
  echo "gpu_check: nvidia-smi sees no GPU here; --host runs the same kernels on the CPU" >&2
  exit 1
fi
build=${build:-build/${host:+cuda_host}}
[ "$build" = build/ ] && build=build/cuda
slug=$(printf '%s' "$gpu" | tr '[:upper:] ' '[:lower:]_' | tr -cd 'a-z0-9_.-')
output=${output:-benchmarks/results/$slug.md}
mkdir -p "$(dirname "$output")" "$build"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0

say() { printf '%s\n' "$*" >>"$output"; }
# step TITLE LINES COMMAND...: runs it, and records time, status and the last lines of what it printed.
step() {
  local title=$1 lines=$2 start status=0
  shift 2
  echo "== $title"
  start=$(date +%s)
  "$@" >"$logs/out" 2>&1 </dev/null || status=$?
  say "## $title" && say ""
  if [ $status -eq 0 ]; then say "Passed in $(($(date +%s) - start)) s."; else say "**Failed** with status $status after $(($(date +%s) - start)) s."; failed=1; fi
  say "" && say "    \$ $*"
  tail -n "$lines" "$logs/out" | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*[A-Za-z]//g; s/^/    /' >>"$output"
  say ""
  [ $status -eq 0 ] || tail -n 5 "$logs/out"
  return $status
}
# table TITLE COMMAND...: the same for a command that prints Markdown.
table() {
  local title=$1 status=0
  shift
  echo "== $title"
  "$@" >"$logs/out" 2>"$logs/error" </dev/null || status=$?
  say "## $title" && say "" && say "    \$ $*" && say ""
  cat "$logs/out" >>"$output"
  say ""
  if [ $status -ne 0 ]; then
    say "**Failed** with status $status: $(tail -n 1 "$logs/error")"
    say ""
    failed=1
    tail -n 5 "$logs/error"
  fi
}
skip() { echo "== $1: left out: $2"; say "## $1" && say "" && say "Left out: $2." && say ""; }

: >"$output"
say "# $gpu"
say ""
say "By \`scripts/gpu_check.sh\` on $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)."
say ""
say "| | |" && say "|---|---|"
say "| GPU | $gpu${capability:+, compute capability $capability} |"
[ -n "$driver" ] && say "| driver | $driver |"
say "| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) threads |"
say "| nvcc | $( (have nvcc && nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') || echo none) |"
say "| compiler | $(c++ --version 2>/dev/null | head -1) |"
say "| CMake | $(cmake --version 2>/dev/null | head -1) |"
torch=$(python3 -c 'import torch, torchvision; print("PyTorch", torch.__version__, "torchvision", torchvision.__version__, "CUDA", torch.version.cuda)' 2>/dev/null || echo none)
say "| PyTorch | $torch |"
say ""

# What is missing is said once, at the beginning, and not by whatever breaks first.
missing=""
for program in c++ cmake ninja; do have $program || missing+=" $program"; done
[ -n "$host" ] || have nvcc || missing+=" nvcc"
for header in oneapi/dnnl/dnnl.hpp jpeglib.h stb/stb_image.h pugixml.hpp nlohmann/json.hpp CLI/CLI.hpp; do
  printf '#include <cstdio>\n#include <%s>\n' "$header" | c++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null || missing+=" $header"
done
if [ -n "$missing" ]; then
  skip "Dependencies" "not found here:$missing (scripts/setup.sh installs what Debian has)"
  echo "gpu_check: not found:$missing" >&2
fi

mode=ON
[ -n "$host" ] && mode=HOST
configure=(cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSHRIKE_CUDA=$mode -DSHRIKE_BUILD_BENCHMARKS=ON)
[ -n "$capability" ] && [ -z "$host" ] && configure+=("-DSHRIKE_CUDA_ARCHITECTURES=$capability")
step "Configuration" 15 "${configure[@]}" || { echo "see $output"; exit 1; }
# One program that does not compile must not keep the others from running.
step "Build" 15 cmake --build "$build" -- -k 0
bin=$build/apps bench=$build/benchmarks
run=$(mktemp -d "${TMPDIR:-/tmp}/shrike_gpu_check_XXXXXX")
trap 'rm -rf "$logs" "$run"' EXIT
export SHRIKE_TUNE_CACHE=$run/tune.json

step "Tests on the device" 12 ctest --test-dir "$build" -R "^cuda" -j "$([ -n "$host" ] && nproc || echo 1)" --output-on-failure
[ -n "$host" ] || step "All other tests" 8 ctest --test-dir "$build" -E "^cuda" -j "$(nproc)" --output-on-failure

if [ -n "$host" ]; then
  skip "compute-sanitizer" "needs a GPU"
elif have compute-sanitizer; then
  for tool in memcheck racecheck; do
    for test in "$build"/tests/cuda/*_test; do
      [ -x "$test" ] || continue
      step "compute-sanitizer $tool: $(basename "$test")" 4 timeout 1800 compute-sanitizer --tool $tool --error-exitcode 9 "$test"
    done
  done
else
  skip "compute-sanitizer" "it is not installed"
fi

size=(--height 600 --image-width 800)
[ -n "$quick" ] && size=(--height 64 --image-width 96 --channels 8 --runs 1)
table "Kernels" "$bench/cuda_bench" "${size[@]}"
[ -n "$quick" ] && size=(--height 64 --image-width 96 --width 8 --head-width 64 --runs 1 --anchor-sizes 16,32)
for mode in infer step; do
  step "The whole detector: $mode" 2 "$bench/detector_bench" $mode --device cuda "${size[@]}"
  [ -n "$host" ] && continue
  for provider in native vendor; do
    step "The whole detector: $mode, $provider" 2 "$bench/detector_bench" $mode --device cuda --provider $provider "${size[@]}"
  done
  step "The whole detector: $mode, without TF32" 2 "$bench/detector_bench" $mode --device cuda --no-tf32 "${size[@]}"
done
if [ -n "$host" ]; then
  skip "Beside PyTorch" "needs a GPU"
elif [ "$torch" = none ]; then
  skip "Beside PyTorch" "python3 has no torch and torchvision"
else
  table "Beside PyTorch" python3 benchmarks/cuda_beside_torch.py --build "$build" ${quick:+--rounds 1 --runs 2 --size 192x256 --width 8}
fi

if [ -n "$host" ]; then
  skip "Training" "takes hours on the host"
else
  epochs=()
  [ -n "$quick" ] && epochs=(--epochs 1)
  step "Training on shapes" 14 "$bin/train_frcnn" --preset shapes --device cuda --run "$run/shapes" "${epochs[@]}"
  [ -n "$quick" ] || step "Training on shapes by our own kernels alone" 14 "$bin/train_frcnn" --preset shapes --device cuda \
    --provider native --run "$run/shapes_native"
  if [ -n "$data" ]; then
    step "Training on $(basename "$data")" 14 "$bin/train_frcnn" --preset bccd --data "$data" --device cuda --run "$run/data" "${epochs[@]}"
  else
    skip "Training on BCCD" "no --data folder was given"
  fi
  # Killed and resumed must equal undisturbed, with one provider pinned and nothing timed.
  step "Killed and resumed" 4 bash scripts/kill_resume.sh 5 "$bin" --device cuda --provider native
fi

# Choices are a table of their own: what was taken, and how long each candidate took.
if [ -s "$run/tune.json" ]; then
  table "Choices of the autotuner" python3 -c '
import json, sys
print("| pass | sizes | extent | winner | microseconds |\n|---|---|---|---|---|")
for entries in json.load(open(sys.argv[1]))["environments"].values():
    for e in entries:
        times = ", ".join(f"{name} {t:.0f}" for name, t in sorted(e["microseconds"].items(), key=lambda pair: pair[1]))
        print("|", e["pass"], "|", *e["fixed"], "|", "x".join(map(str, e["extent"])), "|", e["winner"], "|", times, "|")
' "$run/tune.json"
else
  skip "Choices of the autotuner" "nothing was timed"
fi
echo "$output is written"
exit $failed
