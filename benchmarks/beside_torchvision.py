#!/usr/bin/python3
"""Shrike and torchvision doing the same work in turn: A B A B ..., medians and the ratio of each pair.

  benchmarks/beside_torchvision.py --peer PEER.py --bench build/release/benchmarks/detector_bench [--rounds 3] [CASE ...]

PEER.py is a torchvision program called as `PEER.py infer|step --backbone B --width W --size HxW --runs N --threads T [--bn]` whose last
line is JSON with median_s. Prints a Markdown table. Needs python3-torch, python3-torchvision and libopenblas0-pthread.
"""
import argparse
import json
import os
import statistics
import subprocess

CASES = {
    "infer-vgg16": (["infer", "--backbone", "vgg16", "--size", "600x800"], ["infer", "--height", "600", "--image-width", "800"]),
    "step-vgg16": (["step", "--backbone", "vgg16", "--size", "600x800"], ["step", "--height", "600", "--image-width", "800"]),
    "step-vgg16-quarter-bn": (
        ["step", "--backbone", "vgg16", "--width", "16", "--bn", "--size", "300x400"],
        ["step", "--height", "300", "--image-width", "400", "--width", "16", "--batch-norm", "--anchor-sizes", "32,64,128,256"]),
    "step-resnet18": (["step", "--backbone", "resnet18", "--size", "480x640"],
                      ["step", "--height", "480", "--image-width", "640", "--backbone", "resnet18", "--anchor-sizes", "32,64,128,256"]),
}

parser = argparse.ArgumentParser()
parser.add_argument("--peer", required=True)
parser.add_argument("--bench", default="build/release/benchmarks/detector_bench")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("cases", nargs="*", default=list(CASES))
arguments = parser.parse_args()


def timed(command):
    """The last line's median and the process's peak memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return json.loads(output.strip().splitlines()[-1])["median_s"], usage.ru_maxrss / 1024


print("| case | Shrike s | torchvision s | ratio (min to max) | Shrike MB | torchvision MB |\n|---|---|---|---|---|---|")
for case in arguments.cases:
    peer, ours = CASES[case]
    common = ["--runs", str(arguments.runs), "--threads", str(arguments.threads)]
    pairs = []
    for _ in range(arguments.rounds):
        pairs.append((timed([arguments.bench, *ours, *common]), timed(["/usr/bin/python3", arguments.peer, *peer, *common])))
    ratios = [a[0] / b[0] for a, b in pairs]
    print(f"| {case} | {statistics.median(a[0] for a, _ in pairs):.3f} | {statistics.median(b[0] for _, b in pairs):.3f} | "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {max(a[1] for a, _ in pairs):.0f} | "
          f"{max(b[1] for _, b in pairs):.0f} |", flush=True)
