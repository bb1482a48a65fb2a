#!/usr/bin/env python3
"""Writes eval_golden.txt: random annotations and detections with their scores.

COCO's are computed by pycocotools, VOC's by the plain definition below, after the development kit's text. Run in this folder with
a Python that has numpy and pycocotools. Every record is a line `name sizes...` and a line of values.
"""
import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

rng = np.random.default_rng(7)
out = open("eval_golden.txt", "w")


def write(name, values):
    values = np.asarray(values, dtype=np.float64)
    out.write(" ".join([name] + [str(n) for n in values.shape]) + "\n")
    out.write(" ".join(f"{v:.12g}" for v in values.ravel()) + "\n")


def random_scene(images, classes, most_objects, most_false, scores, largest, crowds):
    """Rows of objects: image, label, difficult, crowd, box; of detections: image, label, score, box."""
    objects, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, most_objects + 1)):
            size = np.maximum(4, largest * rng.random(2) ** 3)
            corner = rng.random(2) * 300
            box = np.round(np.concatenate([corner, corner + size]) * 8) / 8
            label = rng.integers(1, classes)
            crowd = crowds and rng.random() < 0.15
            objects.append([image, label, rng.random() < 0.2, crowd, *box])
            for _ in range(rng.integers(0, 12) if crowd else rng.integers(0, 4)):
                moved = box + rng.normal(size=4) * np.tile(size, 2) * rng.choice([0.02, 0.08, 0.2])
                moved = np.round(moved * 8) / 8
                if moved[2] > moved[0] and moved[3] > moved[1]:
                    guess = label if rng.random() < 0.9 else rng.integers(1, classes)
                    detections.append([image, guess, scores(0.3), *moved])
        for _ in range(rng.integers(0, most_false + 1)):
            corner = rng.random(2) * 300
            box = np.round(np.concatenate([corner, corner + 4 + largest * rng.random(2)]) * 8) / 8
            detections.append([image, rng.integers(1, classes), scores(0), *box])
    rng.shuffle(detections)
    detections.sort(key=lambda row: row[0])
    return objects, detections


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def voc(objects, detections, label, threshold):
    """The development kit's evaluation of one class: (objects, 11-point AP, area AP)."""
    truth = [o for o in objects if o[1] == label]
    count = sum(not o[2] for o in truth)
    taken = [False] * len(truth)
    right, wrong = [], []
    for d in sorted((d for d in detections if d[1] == label), key=lambda d: -d[2]):  # sorted() is stable
        best, match = -np.inf, None
        for i, o in enumerate(truth):
            if o[0] == d[0] and iou(o[4:], d[3:]) > best:
                best, match = iou(o[4:], d[3:]), i
        tp = fp = 0
        if best >= threshold:
            if not truth[match][2]:
                tp, fp = (0, 1) if taken[match] else (1, 0)
                taken[match] = True
        else:
            fp = 1
        right.append(tp)
        wrong.append(fp)
    if count == 0:
        return 0, np.nan, np.nan
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    recall = tp / count
    precision = tp / np.maximum(tp + fp, np.finfo(float).eps)
    eleven = sum(max(precision[recall >= t], default=0) for t in np.arange(0.0, 1.1, 0.1)) / 11
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], precision, [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    area = sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))
    return count, eleven, area


def coco(objects, detections, images, classes):
    """pycocotools' twelve numbers for every class and then for all."""
    annotations = []
    for i, (image, label, _, crowd, x1, y1, x2, y2) in enumerate(objects):
        annotations.append(
            dict(id=i + 1, image_id=image, category_id=int(label), iscrowd=int(crowd), bbox=[x1, y1, x2 - x1, y2 - y1],
                 area=(x2 - x1) * (y2 - y1))
        )
    results = [
        dict(image_id=image, category_id=int(label), score=score, bbox=[x1, y1, x2 - x1, y2 - y1])
        for image, label, score, x1, y1, x2, y2 in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dict(
            images=[dict(id=i) for i in range(images)], annotations=annotations,
            categories=[dict(id=i) for i in range(1, classes)],
        )
        truth.createIndex()
        found = truth.loadRes(results)
        rows = []
        for label in list(range(1, classes)) + [None]:
            evaluation = COCOeval(truth, found, "bbox")
            if label:
                evaluation.params.catIds = [label]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            rows.append(evaluation.stats)
    rows = np.array(rows)
    rows[rows == -1] = np.nan
    return rows


def coarse(low):
    return np.round((low + (1 - low) * rng.random()) * 8) / 8  # many ties


def fine(low):
    return float(np.float32(low + (1 - low) * rng.random()))


cases = [(12, 4, 6, 5, fine, 200, True), (30, 3, 3, 2, coarse, 120, False), (2, 3, 5, 900, fine, 90, False), (9, 8, 2, 1, coarse, 60, True)]
for case, (images, classes, most_objects, most_false, scores, largest, crowds) in enumerate(cases):
    objects, detections = random_scene(images, classes, most_objects, most_false, scores, largest, crowds)
    write(f"scene{case}.sizes", [images, classes])
    write(f"scene{case}.objects", objects)
    write(f"scene{case}.detections", detections)
    without_crowds = [o for o in objects if not o[3]]
    for threshold in (0.5, 0.7):
        rows = [voc(without_crowds, detections, label, threshold) for label in range(1, classes)]
        write(f"scene{case}.voc{threshold}", rows)
    write(f"scene{case}.coco", coco(objects, detections, images, classes))
out.close()
