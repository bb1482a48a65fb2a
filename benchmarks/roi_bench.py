#!/usr/bin/env python3
"""Times torchvision's RoI pooling, suppression and sorting on the boxes of roi_bench.cpp. Usage: roi_bench.py [threads [repeats]]"""
import sys
import time

import torch
from torchvision import ops

threads, repeats = (int(a) for a in (sys.argv[1:] + ["1", "20"][len(sys.argv) - 1:]))
torch.set_num_threads(threads)


class Lcg:
    def __init__(self):
        self.state = 1

    def __call__(self):
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return (self.state >> 8) / 2**24


def boxes(n):
    random, result = Lcg(), []
    for _ in range(n):
        w, h = 16 + 384 * random(), 16 + 384 * random()
        x, y = (800 - w) * random(), (600 - h) * random()
        result.append([x, y, x + w, y + h])
    return torch.tensor(result)


def report(what, f, prepare=lambda: None, count=repeats):
    best = 1e30
    for _ in range(count):
        state = prepare()
        start = time.perf_counter()
        f(state)
        best = min(best, time.perf_counter() - start)
    print(f"{what:44} {best * 1e3:9.3f} ms", flush=True)


def pooling(count, height, width, channels, scale, repeats):
    x = torch.rand(1, channels, height, width, requires_grad=True)
    b = boxes(count)
    rois = torch.cat([torch.zeros(count, 1), b], 1)
    dy = torch.full((count, channels, 7, 7), 0.5)
    for name, f in (("roi_align", lambda: ops.roi_align(x, rois, (7, 7), scale, 2)),
                    ("roi_pool", lambda: ops.roi_pool(x, rois, (7, 7), scale))):
        text = f"{name} {count} x 7x7x{channels} of {height}x{width}"
        with torch.no_grad():
            report(text + " forward", lambda _: f(), count=repeats)
        report(text + " backward", lambda y: torch.autograd.grad(y, x, dy), f, count=repeats)


def suppression(count, threshold):
    b, random = boxes(count), Lcg()
    pairs = [(random(), random()) for _ in range(count)]
    scores = torch.tensor([p[0] for p in pairs])
    labels = torch.tensor([int(p[1] * 20) for p in pairs])
    report(f"nms {count} boxes, threshold {threshold}", lambda _: ops.nms(b, scores, threshold))
    print("  kept", ops.nms(b, scores, threshold).numel())
    report("  of 20 labels", lambda _: ops.batched_nms(b, scores, labels, threshold))
    print("  kept", ops.batched_nms(b, scores, labels, threshold).numel())


pooling(128, 37, 50, 512, 1 / 16, repeats)
pooling(512, 75, 100, 256, 1 / 8, repeats)
pooling(2000, 37, 50, 512, 1 / 16, max(1, repeats // 4))
suppression(6000, 0.7)
suppression(12000, 0.7)
suppression(12000, 0.3)
for n in (22500, 250000):
    scores = torch.rand(n)
    report(f"topk 12000 of {n}", lambda _: scores.topk(12000))
