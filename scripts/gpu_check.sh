#!/usr/bin/env bash
# All that can only be known on a machine with a GPU, in one command, without network: builds for this GPU, runs every test on it, runs
# the kernel tests under compute-sanitizer, runs the benchmarks, beside PyTorch where python3 has it, trains on the built-in shapes and
# on a data set if one is given, and writes benchmarks/results/GPU.md: what passed, what each step printed, times and choices. A step
# that fails is recorded, and the others go on. Exits 1 when one has failed.
#   scripts/gpu_check.sh [--data VOC_FOLDER] [--quick] [--host] [--build FOLDER] [--output FILE.md]
# --data    a VOC-format folder to train on as well, with the settings of the preset bccd
# --quick   small sizes and few runs, to see that everything works
# --host    the same with SHRIKE_CUDA=HOST, on a machine without a GPU, to see that all of this works: --quick is understood, what only a
#           GPU can do is left out, the times say nothing, and the results are written into the build folder
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
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
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
output=${output:-$([ -n "$host" ] && echo "$build/gpu_check.md" || echo "benchmarks/results/$slug.md")}
mkdir -p "$(dirname "$output")" "$build"
logs=$(mktemp -d)
run=$logs/run  # what is trained
mkdir "$run"
trap 'rm -rf "$logs"' EXIT
failed=0

# The output is the head, a table of all steps, and what each of them said; it is whole after every step.
touch "$logs/head" "$logs/steps" "$logs/body"
intro() { printf '%s\n' "$*" >>"$logs/head"; }
say() { printf '%s\n' "$*" >>"$logs/body"; }
# result TITLE RESULT: a row of the table of steps.
result() {
  echo "| $1 | $2 |" >>"$logs/steps"
  { cat "$logs/head" && printf '| step | |\n|---|---|\n' && cat "$logs/steps" && echo && cat "$logs/body"; } >"$output"
}
# step TITLE LINES COMMAND...: runs it, and records time, status and the last lines of what it printed.
step() {
  local title=$1 lines=$2 start status=0 verdict
  shift 2
  echo "== $title"
  start=$(date +%s)
  "$@" >"$logs/out" 2>&1 </dev/null || status=$?
  verdict="passed, $(($(date +%s) - start)) s"
  [ $status -eq 0 ] || { verdict="**failed** with status $status after $(($(date +%s) - start)) s"; failed=1; }
  say "## $title" && say "" && say "    \$ $*"
  tail -n "$lines" "$logs/out" | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*[A-Za-z]//g; s/^/    /' >>"$logs/body"
  say ""
  result "$title" "$verdict"
  [ $status -eq 0 ] || tail -n 5 "$logs/out"
  return $status
}
# table TITLE COMMAND...: the same for a command that prints Markdown.
table() {
  local title=$1 start status=0 verdict
  shift
  echo "== $title"
  start=$(date +%s)
  "$@" >"$logs/out" 2>"$logs/error" </dev/null || status=$?
  verdict="passed, $(($(date +%s) - start)) s"
  [ $status -eq 0 ] || { verdict="**failed** with status $status: $(tail -n 1 "$logs/error")"; failed=1; }
  say "## $title" && say ""
  cat "$logs/out" >>"$logs/body"
  say ""
  result "$title" "$verdict"
  [ $status -eq 0 ] || tail -n 5 "$logs/error"
}
skip() { echo "== $1: left out: $2"; result "$1" "left out: $2"; }

intro "# $gpu"
intro ""
intro "By \`scripts/gpu_check.sh\` on $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)."
intro ""
intro "| | |" && intro "|---|---|"
intro "| GPU | $gpu${capability:+, compute capability $capability} |"
[ -n "$driver" ] && intro "| driver | $driver |"
intro "| processor | $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) threads |"
intro "| nvcc | $( (have nvcc && nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') || echo none) |"
intro "| compiler | $(c++ --version 2>/dev/null | head -1) |"
intro "| CMake | $(cmake --version 2>/dev/null | head -1) |"
torch=$(python3 -c 'import torch, torchvision; print("PyTorch", torch.__version__, "torchvision", torchvision.__version__, "CUDA", torch.version.cuda)' 2>/dev/null || echo none)
intro "| PyTorch | $torch |"
intro ""

# What is missing is said once, at the beginning, and not by whatever breaks first.
missing=""
for program in c++ cmake ninja; do have $program || missing+=" $program"; done
[ -n "$host" ] || have nvcc || missing+=" nvcc"
for header in jpeglib.h stb/stb_image.h pugixml.hpp nlohmann/json.hpp CLI/CLI.hpp; do
  printf '#include <cstdio>\n#include <%s>\n' "$header" | c++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null || missing+=" $header"
done
if [ -n "$missing" ]; then
  skip "Dependencies" "not found here:$missing (scripts/setup.sh installs what Debian has)"
  echo "gpu_check: not found:$missing" >&2
fi

mode=ON
[ -n "$host" ] && mode=HOST
configure=(cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DSHRIKE_CUDA=$mode" -DSHRIKE_BUILD_BENCHMARKS=ON)
[ -n "$capability" ] && [ -z "$host" ] && configure+=("-DSHRIKE_CUDA_ARCHITECTURES=$capability")
step "Configuration" 15 "${configure[@]}" || { echo "see $output"; exit 1; }
# One program that does not compile must not keep the others from running.
step "Build" 15 cmake --build "$build" -- -k 0
bin=$build/apps bench=$build/benchmarks
# Choices of this run alone; on the host the tests measure nothing, which would take them many times as long.
export SHRIKE_TUNE_CACHE=$run/tune.json
[ -n "$host" ] && SHRIKE_TUNE_CACHE=

step "Tests on the device" 12 ctest --test-dir "$build" -R "^cuda" -j "$([ -n "$host" ] && nproc || echo 1)" --output-on-failure
[ -n "$host" ] || step "All other tests" 8 ctest --test-dir "$build" -E "^cuda" -j "$(nproc)" --output-on-failure

if [ -n "$host" ]; then
  skip "compute-sanitizer" "needs a GPU"
elif have compute-sanitizer; then
  for tool in memcheck racecheck synccheck; do
    for test in "$build"/tests/cuda/*_test; do
      [ -x "$test" ] || continue
      step "compute-sanitizer $tool: $(basename "$test")" 4 timeout 1800 compute-sanitizer --tool $tool --error-exitcode 9 "$test"
    done
  done
else
  skip "compute-sanitizer" "it is not installed"
fi

export SHRIKE_TUNE_CACHE=$run/tune.json
size=()
[ -n "$quick" ] && size=(--height 64 --image-width 96 --channels 8 --regions 20 --runs 1)
table "Kernels" "$bench/cuda_bench" "${size[@]}"

# detectors: the whole detector, batch 1, by each provider and arithmetic, and by the processor.
detectors() {
  local size=(--height 600 --image-width 800 --runs 20) providers=(auto native vendor) mode how
  [ -n "$quick" ] && size=(--height 64 --image-width 96 --width 8 --head-width 64 --runs 1 --anchor-sizes 16,32)
  [ -n "$host" ] && providers=(auto native)
  printf '`detector_bench MODE %s`\n\n' "${size[*]}"
  printf '| mode | options | median ms | least | most |\n|---|---|---|---|---|\n'
  for mode in infer step; do
    for how in "${providers[@]/#/--device cuda --provider }" "--device cuda --no-tf32" "--device cuda --no-cuda-graphs" "--device cpu"; do
      # shellcheck disable=SC2086
      "$bench/detector_bench" $mode $how "${size[@]}" >"$logs/detector" || return
      python3 -c '
import json, sys
times = json.loads(open(sys.argv[1]).read().splitlines()[-1])
print("|", sys.argv[2], "|", sys.argv[3], "|", " | ".join(f"{1e3 * times[key]:.2f}" for key in ("median_s", "min_s", "max_s")), "|")
' "$logs/detector" $mode "$how" || return
    done
  done
}
table "The whole detector" detectors

layers=(--size 600x800)
[ -n "$quick" ] && layers=(--size 64x96 --width 8 --head-width 64 --runs 1)
step "fp32, TF32, fp16 and int8, layer by layer" 200 "$bin/bench_int8" --device cuda "${layers[@]}"

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
print("Fixed sizes and flags, extents of a class of images, what was taken, and the time of each candidate in microseconds.\n")
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
