#!/usr/bin/env python3
"""VGG16 Faster R-CNN at 600x800 on an H100, on paper: operations, bytes, floors and what the kernels can be expected to reach.

  benchmarks/paper.py [--ptxas benchmarks/results/ptxas.md] [--tiles 128x128,...] [--blocks 1]

Prints Markdown. A floor is the larger of operations over the peak and bytes over the bandwidth, each operand moved once. The expected
part of a floor comes from three factors: how full the tiles are at the edges, how full the last wave of blocks is on 132
multiprocessors (with k split where that fills it), and the part of the peak that the inner loop can reach.
"""
import argparse
import math
import pathlib
import re

MULTIPROCESSORS = 132
BANDWIDTH = 3.35e12  # bytes/s
PEAK = {"fp32": 67e12, "TF32": 494e12, "int8": 1979e12}  # operations/s, dense
BYTES = {"fp32": 4, "TF32": 4, "int8": 1}
# Parts of the peak that an inner loop reaches at best. fp32: 64 FFMA for each 4 loads of 16 bytes from shared memory and their share of
# index arithmetic, 64 of about 72 issue slots. mma.sync reaches about 0.6 of what wgmma does, which the peaks stand for.
INNER = {"fp32": 0.88, "TF32": 0.60, "int8": 0.60}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--ptxas", default="benchmarks/results/ptxas.md", help="what ptxas_table.sh wrote, for the occupancies")
parser.add_argument("--tiles", default="128x128,128x64,64x128,64x64", help="rows x columns of the result that a block can have")
parser.add_argument("--blocks", type=int, default=1, help="resident blocks of the tuned kernels on a multiprocessor")
arguments = parser.parse_args()
TILES = [tuple(int(side) for side in tile.split("x")) for tile in arguments.tiles.split(",")]

# name, height, width, channels in, channels out, filter side
CONVS = [("conv1_1", 600, 800, 3, 64, 3), ("conv1_2", 600, 800, 64, 64, 3), ("conv2_1", 300, 400, 64, 128, 3),
         ("conv2_2", 300, 400, 128, 128, 3), ("conv3_1", 150, 200, 128, 256, 3), ("conv3_2, 3_3", 150, 200, 256, 256, 3),
         ("conv4_1", 75, 100, 256, 512, 3), ("conv4_2, 4_3", 75, 100, 512, 512, 3), ("conv5_1 to 5_3", 37, 50, 512, 512, 3),
         ("rpn 3x3", 37, 50, 512, 512, 3), ("rpn 1x1 (45)", 37, 50, 512, 45, 1)]
LINEARS = [("fc6", 300, 25088, 4096), ("fc7", 300, 4096, 4096), ("fc scores and boxes", 300, 4096, 105)]


def expected(m, n, k, kind):
    """The part of the peak that a product [m, k] [k, n] can be expected to reach with the best tile and the best split of k."""
    best = 0
    for rows, columns in TILES:
        tiles = math.ceil(m / rows) * math.ceil(n / columns)
        filled = m * n / (tiles * rows * columns)
        # Smaller tiles load more for each product: a 64x64 tile twice as much as one of 128x128.
        inner = INNER[kind] * min(1, math.sqrt(rows * columns / (128 * 128)) ** 0.5)
        slots = MULTIPROCESSORS * arguments.blocks
        # Parts of at least 256: a shorter loop is mostly filling its pipeline.
        for split in range(1, max(1, min(64, k // 256)) + 1):
            waves = math.ceil(tiles * split / slots)
            best = max(best, filled * tiles * split / (waves * slots) * inner)
    return best


def row(name, m, n, k, operands, results):
    """One product: `operands` and `results` are numbers of elements that must move once."""
    operations = 2 * m * n * k
    cells = [name, f"{operations / 1e9:.1f}", f"{(operands + results) * 4 / 1e6:.0f}"]
    total = []
    for kind in PEAK:
        moved = operands * BYTES[kind] + results * BYTES[kind]
        memory, compute = moved / BANDWIDTH, operations / PEAK[kind]
        floor = max(memory, compute)
        time = max(memory / 0.9, compute / expected(m, n, k, kind))
        cells += [f"{floor * 1e6:.0f}", f"{floor / time:.2f}"]
        total.append((floor, time))
    print("| " + " | ".join(cells) + " |")
    return total


def sums(title, rows):
    cells = [title, "", ""]
    for i in range(len(PEAK)):
        floor, time = sum(r[i][0] for r in rows), sum(r[i][1] for r in rows)
        cells += [f"{floor * 1e6:.0f}", f"{floor / time:.2f}"]
    print("| " + " | ".join(cells) + " |")


def products():
    print("| layer and pass | GFLOP | MB fp32 | floor fp32 us | of it | floor TF32 us | of it | floor int8 us | of it |")
    print("|---|---|---|---|---|---|---|---|---|")
    for title in ("forward", "gradient of data", "gradient of weights"):
        rows = []
        for name, h, w, c, k, r in CONVS:
            if title == "gradient of data" and name == "conv1_1":
                continue  # nobody wants the gradient of the image
            x, weight, y = h * w * c, k * r * r * c, h * w * k
            sizes = {"forward": (h * w, k, r * r * c, x + weight, y), "gradient of data": (h * w, c, r * r * k, y + weight, x),
                     "gradient of weights": (k, r * r * c, h * w, x + y, weight)}[title]
            times = row(f"{name}, {title}", *sizes)
            rows += [times] * (3 if "to" in name else 2 if "," in name else 1)
        for name, n, inputs, outputs in LINEARS:
            x, weight, y = n * inputs, inputs * outputs, n * outputs
            sizes = {"forward": (n, outputs, inputs, x + weight, y), "gradient of data": (n, inputs, outputs, y + weight, x),
                     "gradient of weights": (outputs, inputs, n, x + y, weight)}[title]
            rows.append(row(f"{name}, {title}", *sizes))
        sums(f"**all, {title}**", rows)


def streams():
    """Kernels that are bound by memory: what they read and write, in float32."""
    maps = sum(h * w * k * count for _, h, w, _, k, _, count in ((*c, 3 if "to" in c[0] else 2 if "," in c[0] else 1) for c in CONVS[:9]))
    pooled = sum(h * w * k for h, w, k in ((600, 800, 64), (300, 400, 128), (150, 200, 256), (75, 100, 512)))
    parameters = sum(k * r * r * c * (3 if "to" in name else 2 if "," in name else 1) for name, _, _, c, k, r in CONVS)
    parameters += sum(i * o for _, _, i, o in LINEARS)
    anchors = 37 * 50 * 9
    rows = [
        ("max pooling, forward", 3 * pooled / 4, 4 * (pooled + pooled / 4), "the argmax, one int32 per output, comes on top in training"),
        ("ReLU's mask, backward", maps, 4 * 3 * maps, "reads y and dy, writes dy"),
        ("RoIAlign, forward, 300 regions", 300 * 49 * 4 * 512 * 8, 4 * (37 * 50 * 512 + 300 * 49 * 512), "the map stays in L2 (3.8 MB)"),
        ("RoIAlign, backward, 128 regions", 128 * 49 * 4 * 512 * 8, 4 * (37 * 50 * 512 + 128 * 49 * 512), "a gather: dx is written once"),
        ("NMS of 6000 boxes", 6000 * 6000 / 2 * 14, 6000 * 16 + 6000 * 6000 / 8, "bit mask of 4.5 MB, then one block in order"),
        ("anchors decoded and clipped", anchors * 30, anchors * 4 * 13, "16,650 anchors"),
        ("SGD with momentum", 4 * parameters, 4 * 5 * parameters, "reads w, g and v, writes w and v; 137 million parameters"),
    ]
    print("\n| kernel | Mop | MB | floor us | why |\n|---|---|---|---|---|")
    for name, operations, moved, why in rows:
        print(f"| {name} | {operations / 1e6:.1f} | {moved / 1e6:.1f} | {max(moved / BANDWIDTH, operations / PEAK['fp32']) * 1e6:.1f} | {why} |")


def occupancies():
    path = pathlib.Path(arguments.ptxas)
    if not path.exists():
        print(f"\n(no occupancies: {path} is not there; scripts/ptxas_table.sh writes it)")
        return
    print("\n| kernel (sm_90) | threads | registers | shared | occupancy |\n|---|---|---|---|---|")
    for line in path.read_text().splitlines():
        match = re.match(r"\| \w+ \| (`.+`) \| 90 \| (\S+) \| (\d+) \| \d+ \| (\d+) \| (\d+ %) \|", line)
        if match and "naive" not in match.group(1):
            print("| " + " | ".join(match.groups()) + " |")


products()
streams()
occupancies()
