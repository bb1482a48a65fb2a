#!/usr/bin/env bash
# What each CUDA kernel takes of a multiprocessor: compiles kernels/*.cu for sm_80 and sm_90 and writes registers, spills, shared memory
# and the occupancy these allow to benchmarks/results/ptxas.md. Needs nvcc, but no GPU. Exits 1 when a kernel spills, except those whose
# name says that they are naive.
#   scripts/ptxas_table.sh [OUTPUT.md]
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-benchmarks/results/ptxas.md}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "ptxas_table: nvcc is not there" >&2; exit 1; }
ptxas=$(dirname "$(readlink -f "$nvcc")")/ptxas
filter=$(command -v c++filt || command -v cu++filt || echo "$(dirname "$(readlink -f "$nvcc")")/cu++filt")
shopt -s nullglob
files=(kernels/*.cu)
[ ${#files[@]} -gt 0 ] || { echo "ptxas_table: there are no kernels/*.cu" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for file in "${files[@]}"; do
  name=$(basename "$file" .cu)
  options=(-std=c++20 -O3 -I include -I . -DSHRIKE_HAS_CUDA=1)
  case $name in nms | detection_*) options+=(--fmad=false) ;; esac  # as cmake/cuda.cmake has it
  for arch in 80 90; do
    "$nvcc" "${options[@]}" -arch=sm_$arch -ptx "$file" -o "$work/$name.$arch.ptx"
    "$ptxas" -arch=sm_$arch -v "$work/$name.$arch.ptx" -o /dev/null 2>"$work/$name.$arch.log" ||
      { cat "$work/$name.$arch.log" >&2; exit 1; }
  done
done
mkdir -p "$(dirname "$output")"
python3 scripts/ptxas_table.py "$work" "$filter" "$("$nvcc" --version | sed -n 's/.*\(release [0-9.]*\).*/\1/p')" >"$output"
echo "$output is written"
