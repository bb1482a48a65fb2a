#!/usr/bin/env python3
"""Writes roi_golden.txt, nms_golden.txt and loss_golden.txt: what torch and torchvision answer on random inputs.

Run in this folder with a Python that has torch and torchvision. Every record is a line `name sizes...` and a line of values.
Feature maps are written NHWC.
"""
import torch
import torch.nn.functional as F
from torchvision import ops

torch.manual_seed(7)
out = None


def write(name, values):
    values = torch.as_tensor(values)
    out.write(" ".join([name] + [str(n) for n in values.shape]) + "\n")
    flat = values.flatten().tolist()
    out.write(" ".join(f"{v:.8g}" if isinstance(v, float) else str(int(v)) for v in flat) + "\n")


def short(values, steps=64):
    return (values * steps).round() / steps  # few digits in the file


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def random_rois(images, height, width, count):
    """Boxes inside, across and outside the border, without area, inside out, on whole and half pixels."""
    corner = (torch.rand(count, 2) * 1.5 - 0.25) * torch.tensor([width, height])
    size = torch.rand(count, 2) ** 2 * torch.tensor([width, height])
    rois = torch.cat([torch.randint(images, (count, 1)).float(), short(corner, 8), short(corner + size, 8)], 1)
    special = torch.tensor([
        [0, 0, 0, width, height],
        [0, 3, 2, 3, 2],
        [0, -1, -1, -1, height + 2],
        [0, width, height, width, height],
        [0, width - 1, height - 1, width + 9, height + 9],
        [0, 7, 5, 2, 1],
        [0, -30, -20, -10, -5],
        [0, -40, -50, 3 * width, 2 * height],
        [0, 1.5, 2.5, 4.5, 2.5],
    ], dtype=torch.float32)
    special[:, 0] = torch.arange(len(special)) % images
    return torch.cat([rois, special])


def roi():
    cases = [  # images, height, width, channels, output height, output width, spatial scale
        (1, 1, 1, 1, 2, 2, 1.0),
        (2, 9, 13, 3, 3, 2, 1.0),
        (1, 8, 7, 2, 7, 7, 1 / 16),
        (3, 6, 11, 1, 4, 5, 0.25),
    ]
    write("cases", len(cases))
    for case, (n, h, w, c, oh, ow, scale) in enumerate(cases):
        x = short(torch.randn(n, c, h, w)).requires_grad_()
        rois = random_rois(n, h / scale, w / scale, 5)
        dy = short(torch.randn(len(rois), c, oh, ow))
        write(f"{case}.x", nhwc(x))
        write(f"{case}.rois", rois)
        write(f"{case}.dy", nhwc(dy))
        write(f"{case}.scale", scale)

        def answer(name, y):
            write(f"{case}.{name}.y", nhwc(y))
            write(f"{case}.{name}.dx", nhwc(torch.autograd.grad(y, x, dy)[0]))

        answer("pool", ops.roi_pool(x, rois, (oh, ow), scale))
        for ratio in (0, 2, 3):
            for aligned in (False, True):
                answer(f"align.{ratio}.{int(aligned)}", ops.roi_align(x, rois, (oh, ow), scale, ratio, aligned))


def nms():
    cases = [(1, 0.5, 50), (40, 0.0, 50), (300, 0.3, 80), (300, 0.7, 40), (900, 0.5, 300)]
    write("cases", len(cases))
    for case, (n, threshold, extent) in enumerate(cases):
        corner = torch.rand(n, 2) * extent
        size = torch.rand(n, 2) * extent / 2
        boxes = torch.cat([corner, corner + size], 1)
        if case % 2 == 0:
            boxes = boxes.round()  # IoUs that meet the threshold, boxes without area, equal boxes
        else:
            boxes = short(boxes, 8)
        scores = (torch.randperm(n) + 1) / 1024  # all different: torchvision's order of ties is its own
        labels = torch.randint(5, (n,))
        write(f"{case}.boxes", boxes)
        write(f"{case}.scores", scores)
        write(f"{case}.labels", labels)
        write(f"{case}.threshold", threshold)
        write(f"{case}.keep", ops.nms(boxes, scores, threshold))
        write(f"{case}.batched", ops.boxes._batched_nms_vanilla(boxes, scores, labels, threshold))


def losses():
    logits = (short(torch.randn(17, 6)) * 4).requires_grad_()
    labels = torch.randint(6, (17,))
    labels[[0, 5, 16]] = -1
    loss = F.cross_entropy(logits, labels, ignore_index=-1)
    write("cross_entropy.logits", logits)
    write("cross_entropy.labels", labels)
    write("cross_entropy.loss", loss)
    write("cross_entropy.dx", torch.autograd.grad(loss, logits)[0])
    write("softmax.y", F.softmax(logits, 1))

    x = (short(torch.randn(5, 7)) * 8).detach()
    x[0, 0], x[0, 1], x[0, 2] = 120.0, -120.0, 0.0
    x.requires_grad_()
    target, weight = short(torch.rand(5, 7)), short(torch.rand(5, 7))
    target[0, :2] = torch.tensor([0.0, 1.0])
    weight[2] = 0
    write("x", x)
    write("target", target)
    write("weight", weight)

    def answer(name, loss):
        write(f"{name}.loss", loss)
        write(f"{name}.dx", torch.autograd.grad(loss, x)[0])

    answer("bce.mean", F.binary_cross_entropy_with_logits(x, target))
    answer("bce.sum", F.binary_cross_entropy_with_logits(x, target, weight, reduction="sum"))
    for beta in (0.0, 1 / 9, 1.0, 2.5):
        answer(f"smooth_l1.{beta:.3f}.mean", F.smooth_l1_loss(x, target, beta=beta))
        answer(f"smooth_l1.{beta:.3f}.sum", (F.smooth_l1_loss(x, target, beta=beta, reduction="none") * weight).sum())

    sizes = [(1, 1, 3, 2), (4, 5, 8, 10), (5, 3, 13, 7), (6, 7, 4, 3), (25, 38, 50, 75), (13, 19, 25, 38), (7, 3, 7, 8)]
    write("nearest.cases", len(sizes))
    for case, (h, w, oh, ow) in enumerate(sizes):
        x = torch.arange(float(h * w)).reshape(1, 1, h, w)
        y = F.interpolate(x, size=(oh, ow), mode="nearest")
        write(f"nearest.{case}.size", torch.tensor([h, w, oh, ow]))
        write(f"nearest.{case}.y", nhwc(y).int())


for name, produce in (("roi", roi), ("nms", nms), ("loss", losses)):
    out = open(f"{name}_golden.txt", "w")
    produce()
    out.close()
