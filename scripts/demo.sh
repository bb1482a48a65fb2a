#!/usr/bin/env bash
# Sets up, builds, trains on the built-in shapes, prints a table of average precision, draws detections, then quantizes the detector to
# int8 and compares. About 10 minutes on two cores; the last lines say how long it took, and how busy others kept the machine.
# Everything it makes is below build/, data/ and runs/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/stopwatch.sh
mark all

scripts/setup.sh
cmake --preset release -DSHRIKE_BUILD_TESTS=OFF
cmake --build --preset release

bin=build/release/apps
run=runs/demo
if [ -e $run/last.safetensors ]; then
  echo "$run is there already: going on with it (delete the folder to start anew)"
  $bin/train_frcnn --resume --run $run
else
  $bin/train_frcnn --preset shapes --run $run
fi
trained=$(elapsed all)

echo
echo "The best checkpoint on the test set:"
$bin/eval_frcnn $run/best.safetensors --json $run/eval.json --curves $run/curves.csv
head -12 data/shapes/ImageSets/Main/test.txt | sed 's|.*|data/shapes/JPEGImages/&.jpg|' | tr -d '\r' |
  xargs $bin/detect_frcnn $run/best.safetensors -o $run/pictures
echo "Look at $run/pictures/*.png"

echo
echo "The same detector in int8:"
$bin/qat_frcnn --checkpoint $run/best.safetensors --mode static --no-evaluate -o $run/int8.safetensors
$bin/bench_int8 --checkpoint $run/best.safetensors --quantized $run/int8.safetensors --size 192x256 --runs 20 --evaluate

echo
echo "The trained detector was there after $trained; all of this took $(elapsed all)."
