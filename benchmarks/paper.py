#!/usr/bin/env python3
"""VGG16 Faster R-CNN at 600x800 on an H100 SXM, on paper: operations, bytes, floors, and what the kernels can be expected to take.

  benchmarks/paper.py [--plans build/host/benchmarks/cuda_plan] [--ptxas benchmarks/results/ptxas.md]

Prints Markdown. Products come from cuda_plan, which asks the library for the kernel it would choose and the time its model predicts;
the other kernels are listed here with what they read and write. Occupancies are those that scripts/ptxas_table.sh found.
"""
import argparse
import json
import pathlib
import re
import subprocess

BANDWIDTH, L2 = 3.35e12, 5.5e12  # bytes/s
PEAK = {"fp32": 67e12, "TF32": 494e12, "fp16": 989e12, "int8": 1979e12, "dp4a": 134e12}  # operations/s, dense
STREAM = 0.9  # of the bandwidth, by a kernel that does nothing but move
LAUNCH = 3e-6  # s
PLAIN = 33.5e12  # operations/s that are no multiply-adds, in float32: half of the peak

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--plans", default="build/host/benchmarks/cuda_plan", help="the program, or a file of what it printed")
parser.add_argument("--ptxas", default="benchmarks/results/ptxas.md", help="what ptxas_table.sh wrote, for the occupancies")
arguments = parser.parse_args()


def plans():
    path = pathlib.Path(arguments.plans)
    if not path.exists():
        raise SystemExit(f"paper.py: {path} is not there: cmake --preset host -DSHRIKE_BUILD_BENCHMARKS=ON, target cuda_plan")
    text = path.read_text() if path.suffix else subprocess.run([path], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def moved(row):
    """Bytes that must move once: input and output at the arithmetic's size, and the weight. Codes are a byte each, halves two."""
    return (row["input"] + row["weight"] + row["output"]) * {"int8": 1, "dp4a": 1, "fp16": 2}.get(row["arithmetic"], 4)


def floor(row):
    return max(row["operations"] / PEAK[row["arithmetic"]], moved(row) / BANDWIDTH)


def expected(row):
    """The plan knows the arithmetic and shared memory; memory can take longer."""
    return max(row["seconds"], moved(row) / (STREAM * BANDWIDTH) + LAUNCH)


def table(rows, arithmetics, wanted):
    print("| layer | Gop | MB | " + " | ".join(f"{a}: floor us | kernel | us | of the floor" for a in arithmetics) + " |")
    print("|---|---|---|" + "---|---|---|---|" * len(arithmetics))
    sums = {a: [0, 0] for a in arithmetics}
    layers = dict.fromkeys(row["layer"] for row in rows if row["pass"] == wanted)
    for layer in layers:
        here = {r["arithmetic"]: r for r in rows if r["layer"] == layer and r["pass"] == wanted}
        first = here[arithmetics[0]]
        cells = [layer, f"{first['operations'] / 1e9:.1f}", f"{moved(first) / 1e6:.0f}"]
        for a in arithmetics:
            least, time = floor(here[a]), expected(here[a])
            sums[a][0] += least * first["count"]
            sums[a][1] += time * first["count"]
            cells += [f"{1e6 * least:.0f}", here[a]["kernel"], f"{1e6 * time:.0f}", f"{least / time:.2f}"]
        print("| " + " | ".join(cells) + " |")
    cells = ["**all**", "", ""]
    for a in arithmetics:
        cells += [f"**{1e6 * sums[a][0]:.0f}**", "", f"**{1e6 * sums[a][1]:.0f}**", f"**{sums[a][0] / sums[a][1]:.2f}**"]
    print("| " + " | ".join(cells) + " |\n")


def resources():
    """(kernel, threads, registers, shared, occupancy) of sm_90, as the report has them."""
    path = pathlib.Path(arguments.ptxas)
    if not path.exists():
        raise SystemExit(f"paper.py: {path} is not there: scripts/ptxas_table.sh writes it")
    found = re.findall(r"^\| \w+ \| `(.+)` \| 90 \| (\S+) \| (\d+) \| \d+ \| (\d+) \| (\d+ %) \|", path.read_text(), re.MULTILINE)
    return [row for row in found if "naive" not in row[0]]


def memory_bound(rows, compiled):
    """Everything else: what it reads and writes at least in memory and in L2, and how often it is launched."""
    occupancy = {name: share for name, _, _, _, share in compiled}
    pools = [(600, 800, 64), (300, 400, 128), (150, 200, 256), (75, 100, 512)]
    whole = sum(h * w * c for h, w, c in pools)
    pooled = sum((h // 2) * (w // 2) * c for h, w, c in pools)
    layers = {r["layer"]: r for r in rows if r["pass"] == "forward" and r["arithmetic"] == "fp32"}
    maps = sum(r["output"] * r["count"] for name, r in layers.items() if name.startswith("conv") or name == "rpn 3x3")
    weights = sum(r["weight"] * r["count"] for r in layers.values())
    frozen = sum(r["weight"] for name, r in layers.items() if name.startswith(("conv1", "conv2")))
    anchors, cells = 37 * 50 * 9, 37 * 50
    feature, bins = cells * 512, 49 * 512  # elements of the map, and of a region
    window = 12  # pixels of a bin of RoIPool
    meet = 128 * 49 * 4 * 2.25  # (pixel, bin) pairs of RoIAlign: 2 x 2 samples touch 3 x 3 pixels
    n, pre = 6000, 12000
    # name, kernel in the report, launches, operations, bytes in memory, bytes in L2, seconds that nothing shortens
    kernels = [
        ("max pooling, four maps", "max_pool2d_forward_kernel<4, int>", 4, 3 * pooled, 4 * whole + 5 * pooled, 0, 0),
        ("max pooling, backward", "max_pool2d_backward_kernel<4, int>", 4, whole, 4 * whole + 5 * pooled, 0, 0),
        ("max pooling of codes", "quantized_max_pool2d_kernel<unsigned char, 16>", 4, 3 * pooled, whole + pooled, 0, 0),
        ("max pooling of halves", "quantized_max_pool2d_kernel<HalfBits, 8>", 4, 3 * pooled, 2 * (whole + pooled), 0, 0),
        ("ReLU's mask and the bias's gradient, all maps", "mask_and_sum_kernel", 2 * 14, 2 * maps, 12 * maps, 0, 0),
        ("dropout of fc6 and fc7, 128 regions", "dropout_forward_kernel", 2, 20 * 2 * 128 * 4096, 8 * 2 * 128 * 4096, 0, 0),
        ("fake-quantize, all maps (QAT)", "fake_quantize_forward_kernel", 14, 10 * maps, 8 * maps, 0, 0),
        ("quantize the image", "quantize_kernel<signed char>", 1, 10 * 600 * 800 * 3, 5 * 600 * 800 * 3, 0, 0),
        ("the image to halves", "narrow_kernel", 1, 600 * 800 * 3, 6 * 600 * 800 * 3, 0, 0),
        ("RoIPool, 300 regions", "roi_pool_forward_kernel<4>", 1, 300 * bins * window, 4 * feature + 300 * bins * 8,
         300 * bins * 4 * window, 0),
        ("RoIPool, backward, 128 regions", "roi_pool_backward_kernel<4>", 1, 128 * bins * window, 4 * feature + 128 * bins * 8,
         128 * bins * 8 * window, 0),
        ("RoIAlign, 300 regions", "roi_align_forward_kernel<4>", 1, 300 * bins * 32, 4 * feature + 300 * bins * 4,
         300 * bins * 64, 0),
        ("RoIAlign, backward, 128 regions", "roi_align_backward_kernel<4>", 3, meet * 512 * 2, 4 * feature + 128 * bins * 4,
         meet * 512 * 4, 0),
        ("RoIPool of codes, 300 regions", "quantized_roi_pool_kernel<unsigned char>", 1, 300 * bins * window,
         feature + 300 * bins, 300 * bins * window, 0),
        ("RoIAlign of codes, 300 regions", "quantized_roi_align_kernel<unsigned char>", 1, 300 * bins * 32, feature + 300 * bins,
         300 * bins * 16, 0),
        ("RoIPool of halves, 300 regions", "quantized_roi_pool_kernel<HalfBits>", 1, 300 * bins * window,
         2 * (feature + 300 * bins), 2 * 300 * bins * window, 0),
        ("RoIAlign of halves, 300 regions", "quantized_roi_align_kernel<HalfBits>", 1, 300 * bins * 32,
         2 * (feature + 300 * bins), 2 * 300 * bins * 16, 0),
        ("anchors decoded, clipped, judged", "proposal_candidates_kernel", 1, 40 * anchors, 56 * anchors, 0, 0),
        ("top-k of 16,650 scores (CUB's radix sort)", "top_k_keys_kernel", 6, 0, 12 * anchors + 4 * 16 * anchors, 0, 0),
        (f"NMS of {n}: mask", "nms_mask_kernel", 1, n * n / 2 * 14, 20 * n + n * n / 16, 0, 0),
        (f"NMS of {n}: the order of the tiles", "nms_keep_kernel", 1, 0, n * n / 16, 0, 2e-6 * ((n + 63) // 64)),
        (f"NMS of {pre}: mask", "nms_mask_kernel", 1, pre * pre / 2 * 14, 20 * pre + pre * pre / 16, 0, 0),
        (f"NMS of {pre}: the order of the tiles", "nms_keep_kernel", 1, 0, pre * pre / 16, 0, 2e-6 * ((pre + 63) // 64)),
        ("matching 16,650 anchors and 10 boxes", "rpn_match_kernel", 2, 16 * 10 * anchors, 24 * anchors, 0, 0),
        ("softmax and cross entropy, 128 x 21", "cross_entropy_kernel", 3, 128 * 21 * 10, 128 * 21 * 12, 0, 0),
        ("SGD: the gradients' norm", "sum_of_squares_kernel<64>", 2, 2 * (weights - frozen), 4 * (weights - frozen), 0, 0),
        ("SGD: step with momentum", "sgd_step_kernel<64>", 1, 6 * (weights - frozen), 20 * (weights - frozen), 0, 0),
    ]
    print("| kernel | launches | Mop | MB | L2 MB | floor us | expected us | of the floor | occupancy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, kernel, launches, operations, dram, l2, fixed in kernels:
        least = max(dram / BANDWIDTH, operations / PLAIN)
        time = max(dram / (STREAM * BANDWIDTH), l2 / L2, operations / PLAIN, fixed) + launches * LAUNCH
        print(f"| {name} | {launches} | {operations / 1e6:.1f} | {dram / 1e6:.1f} | {l2 / 1e6:.0f} | {1e6 * least:.1f} | "
              f"{1e6 * time:.1f} | {least / time:.2f} | {occupancy.get(kernel, '?')} |")


def occupancies(compiled):
    print("\n| kernel (sm_90) | threads | registers | shared | occupancy |\n|---|---|---|---|---|")
    for name, threads, registers, shared, share in compiled:
        # What an H100 runs: copies by cp.async, mma.sync m16n8k16 and m16n8k32.
        if name.startswith(("gemm_", "half_", "int8_")) and "Tensor16" not in name and not name.endswith(", false>"):
            print(f"| `{name}` | {threads} | {registers} | {shared} | {share} |")


products, compiled_kernels = plans(), resources()
for title in ("forward", "gradient of data", "gradient of weights"):
    print(f"Products, {title}:\n")
    table(products, ["fp32", "TF32"], title)
print("Products of halves, forward:\n")
table(products, ["fp16"], "forward")
print("Products of int8 codes, forward:\n")
table(products, ["int8", "dp4a"], "forward")
print("Everything else:\n")
memory_bound(products, compiled_kernels)
occupancies(compiled_kernels)
