#!/usr/bin/env python3
"""Writes detection_golden.txt: what torchvision's detection utilities answer on random boxes.

Run in this folder with a Python that has torch and torchvision. Every record is a line `name sizes...` and a line of values.
"""
import torch
from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import boxes as box_ops

torch.manual_seed(20)
out = open("detection_golden.txt", "w")


def write(name, values):
    values = torch.as_tensor(values)
    out.write(" ".join([name] + [str(n) for n in values.shape]) + "\n")
    flat = values.flatten().tolist()
    out.write(" ".join(f"{v:.8g}" if isinstance(v, float) else str(int(v)) for v in flat) + "\n")


def short(values, steps):
    return (values * steps).round() / steps  # few digits in the file


def random_boxes(n, height, width, least=2.0, whole=False):
    corner = torch.rand(n, 2) * torch.tensor([width - least, height - least])
    room = torch.tensor([width, height]) - corner
    size = least + (room - least) * torch.rand(n, 2) ** 2
    boxes = torch.cat([corner, corner + size], 1)
    return short(boxes, 1 if whole else 8)


def box_coder():
    for case, (n, weights) in enumerate([(1, (1.0, 1.0, 1.0, 1.0)), (13, (10.0, 10.0, 5.0, 5.0)), (7, (2.0, 3.0, 0.5, 1.5))]):
        coder = _utils.BoxCoder(weights)
        boxes, references = random_boxes(n, 333, 517), random_boxes(n, 333, 517)
        deltas = short(torch.randn(n, 4 * 3) * torch.tensor([1.0, 1.0, 4.0, 4.0] * 3), 64)
        write(f"coder{case}.weights", weights)
        write(f"coder{case}.boxes", boxes)
        write(f"coder{case}.references", references)
        write(f"coder{case}.deltas", deltas)
        write(f"coder{case}.encoded", coder.encode_single(boxes, references))
        decoded = coder.decode_single(deltas, references)
        write(f"coder{case}.decoded", decoded)
        write(f"coder{case}.clipped", box_ops.clip_boxes_to_image(decoded.reshape(-1, 4), (333, 517)))


def anchors():
    cases = [
        ((128, 256, 512), (0.5, 1.0, 2.0), 16, 16, 3, 5),
        ((32,), (0.5, 1.0, 2.0), 4, 4, 2, 3),
        ((7, 21, 45.5, 100), (0.33, 1.7), 8, 12, 1, 4),
        ((64, 91), (1.0,), 32, 31, 3, 1),
    ]
    for case, (sizes, ratios, stride_y, stride_x, height, width) in enumerate(cases):
        generator = anchor_utils.AnchorGenerator((sizes,), (ratios,))
        boxes = generator.grid_anchors([[height, width]], [[torch.tensor(stride_y), torch.tensor(stride_x)]])[0]
        write(f"anchors{case}.sizes", [float(s) for s in sizes])
        write(f"anchors{case}.ratios", list(ratios))
        write(f"anchors{case}.grid", [stride_y, stride_x, height, width])
        write(f"anchors{case}.boxes", boxes)


def matches():
    cases = [(60, 80, 1, True), (97, 131, 3, False), (64, 64, 7, True), (150, 100, 23, False)]
    for case, (height, width, count, whole) in enumerate(cases):
        generator = anchor_utils.AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),))
        grid = [[(height + 7) // 8, (width + 7) // 8]]
        anchor = generator.grid_anchors(grid, [[torch.tensor(8), torch.tensor(8)]])[0]
        boxes = random_boxes(count, height, width, 6.0, whole)
        head = rpn.RegionProposalNetwork(generator, None, 0.7, 0.3, 256, 0.5, {}, {}, 0.7)
        labels, matched = head.assign_targets_to_anchors([anchor], [{"boxes": boxes}])
        write(f"rpn{case}.boxes", boxes)
        write(f"rpn{case}.size", [height, width])
        write(f"rpn{case}.labels", labels[0].to(torch.int32))
        positive = torch.where(labels[0] == 1)[0]
        write(f"rpn{case}.positive", positive)
        encoded = head.box_coder.encode_single(matched[0], anchor)
        write(f"rpn{case}.encoded", encoded[positive])

    for case, (proposals, count) in enumerate([(40, 1), (77, 5), (1, 2), (50, 0)]):
        boxes = random_boxes(count, 97, 131, 6.0)
        near = boxes.repeat(12, 1)[: proposals // 2]
        near = near + short(torch.randn_like(near) * 5, 8)
        near = near[(near[:, 2] > near[:, 0]) & (near[:, 3] > near[:, 1])]
        far = random_boxes(proposals - len(near), 97, 131)
        candidates = torch.cat([near, far, boxes])
        box_labels = torch.randint(1, 5, (count,))
        heads = roi_heads.RoIHeads(None, None, None, 0.5, 0.5, 128, 0.25, None, 0.05, 0.5, 100)
        matched, labels = heads.assign_targets_to_proposals([candidates], [boxes], [box_labels])
        write(f"roi{case}.proposals", candidates[: len(candidates) - count])
        write(f"roi{case}.boxes", boxes)
        write(f"roi{case}.box_labels", box_labels)
        write(f"roi{case}.labels", labels[0])
        targets = boxes[matched[0]] if count else torch.zeros_like(candidates)
        foreground = torch.where(labels[0] > 0)[0]
        write(f"roi{case}.foreground", foreground)
        write(f"roi{case}.encoded", heads.box_coder.encode_single(targets[foreground], candidates[foreground]))


def proposals():
    # One level after another, as the pyramid's: top of each level, clip, remove small, suppress within the level, best of all.
    cases = [([211], 1000, 50, 100, 150), ([180, 50, 11, 1], 60, 70, 75, 111), ([7], 3, 100, 33, 21), ([300, 80], 150, 300, 64, 64)]
    for case, (counts, pre_nms, post_nms, height, width) in enumerate(cases):
        n = sum(counts)
        anchor = random_boxes(n, height, width, 4.0)
        deltas = short(torch.randn(n, 4) * torch.tensor([0.1, 0.1, 0.3, 0.3]), 256)
        objectness = torch.randn(n)
        coder = _utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
        decoded = coder.decode_single(deltas, anchor)
        head = rpn.RegionProposalNetwork(
            None, None, 0.7, 0.3, 256, 0.5, {"testing": pre_nms}, {"testing": post_nms}, 0.7
        ).eval()
        boxes, scores = head.filter_proposals(decoded[None], objectness[None], [(height, width)], counts)
        write(f"proposals{case}.counts", counts)
        write(f"proposals{case}.options", [pre_nms, post_nms, height, width])
        write(f"proposals{case}.anchors", anchor)
        write(f"proposals{case}.deltas", deltas)
        write(f"proposals{case}.objectness", objectness)
        write(f"proposals{case}.boxes", boxes[0])
        write(f"proposals{case}.scores", scores[0])


def detections():
    cases = [(31, 4, 0.05, 0.5, 100), (50, 6, 0.05, 0.3, 20), (1, 2, 0.3, 0.5, 10), (5, 21, 0.2, 0.5, 100)]
    for case, (n, classes, score, nms, limit) in enumerate(cases):
        proposal = random_boxes(n, 91, 133)
        logits = short(torch.randn(n, classes) * 2, 4096)
        deltas = short(torch.randn(n, 4 * classes) * torch.tensor([1.0, 1.0, 1.5, 1.5] * classes), 64)
        heads = roi_heads.RoIHeads(None, None, None, 0.5, 0.5, 128, 0.25, None, score, nms, limit)
        boxes, scores, labels = heads.postprocess_detections(logits, deltas, [proposal], [(91, 133)])
        write(f"detections{case}.options", [score, nms, float(limit)])
        write(f"detections{case}.proposals", proposal)
        write(f"detections{case}.logits", logits)
        write(f"detections{case}.deltas", deltas)
        write(f"detections{case}.boxes", boxes[0])
        write(f"detections{case}.scores", scores[0])
        write(f"detections{case}.labels", labels[0])


box_coder()
anchors()
matches()
proposals()
detections()
out.close()
