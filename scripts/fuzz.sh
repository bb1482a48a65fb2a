#!/usr/bin/env bash
# Runs the fuzzers for some seconds each. Usage: scripts/fuzz.sh [SECONDS [TARGET...]]
# Seeds come from tests/fuzz/NAME_seeds.py where there is one for NAME_fuzz; what is found goes to build/fuzz/corpus/NAME_fuzz, and
# an input that fails to build/fuzz/failures. Exits 1 when a fuzzer fails.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true

cmake --preset fuzz >/dev/null
if [ $# -gt 0 ]; then
  targets=("$@")
else
  targets=()
  for file in tests/fuzz/*_fuzz.cpp; do targets+=("$(basename "$file" .cpp)"); done
fi
cmake --build --preset fuzz --target "${targets[@]}"
mkdir -p build/fuzz/failures

status=0
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target
  seeds=build/fuzz/seeds/$target
  mkdir -p "$corpus" "$seeds"
  script=tests/fuzz/${target%_fuzz}_seeds.py
  if [ -f "$script" ]; then python3 "$script" "$seeds"; fi
  echo "== $target, $seconds s"
  "build/fuzz/tests/fuzz/$target" -max_total_time="$seconds" -max_len=16384 -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/failures/ "$corpus" "$seeds" 2>"build/fuzz/$target.log" || status=1
  tail -n 6 "build/fuzz/$target.log"
done
exit $status
