#!/usr/bin/env bash
# Kills a training run (SIGKILL) at random moments and resumes it until it ends, then compares its final checkpoint with that of a run
# that nobody disturbed: the files must be equal to the byte.
#   scripts/kill_resume.sh [KILLS=20] [BIN=build/release/apps] [train_frcnn options ...]
set -euo pipefail
kills=${1:-20}
bin=${2:-build/release/apps}
shift $(($# < 2 ? $# : 2))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
options=(--preset shapes --epochs 2 --threads 1 --save-every 7 --eval-every 1 "$@")

start=$(date +%s%N)
"$bin/train_frcnn" "${options[@]}" --run "$folder/whole" >"$folder/whole.log" 2>&1
seconds=$(awk -v t=$(($(date +%s%N) - start)) 'BEGIN { printf "%.1f", t / 1e9 }')
echo "undisturbed: $seconds s"

killed=0
while true; do
  resume=()
  [ -e "$folder/killed/last.safetensors" ] && resume=(--resume)
  if [ "$killed" -ge "$kills" ]; then
    "$bin/train_frcnn" "${options[@]}" --run "$folder/killed" "${resume[@]}" >>"$folder/killed.log" 2>&1
    break
  fi
  "$bin/train_frcnn" "${options[@]}" --run "$folder/killed" "${resume[@]}" >>"$folder/killed.log" 2>&1 &
  pid=$!
  # Long enough that the run makes some progress between kills, and short enough that they are all spent before it ends.
  sleep "$(awk -v r=$RANDOM -v s="$seconds" -v k="$kills" 'BEGIN { print 0.3 + r / 32768 * 1.8 * s / k }')"
  if ! kill -9 $pid 2>/dev/null; then
    wait $pid && break
    echo "the run failed:"; tail -3 "$folder/killed.log"; exit 1
  fi
  wait $pid 2>/dev/null || true
  killed=$((killed + 1))
done

whole=$(sha256sum <"$folder/whole/last.safetensors")
resumed=$(sha256sum <"$folder/killed/last.safetensors")
echo "killed $killed times; undisturbed $whole, killed and resumed $resumed"
[ "$whole" = "$resumed" ] || { echo "the final checkpoints differ"; exit 1; }
echo "the final checkpoints are equal to the byte"
