#!/usr/bin/env python3
"""Writes res5.safetensors: what torchvision makes of ResNet C4 detectors whose box head is layer4 and a mean ("res5"): losses, the gradient of
every parameter, detections, running statistics. ResNet-18 of width 2 with frozen and with live batch norm, ResNet-50 of width 1 with frozen.

Weights and images are not stored: each is counted off from its name by value(), which tests/res5_test.cpp has, too. Every anchor
and proposal is sampled. Needs torch and torchvision (written with 1.13 and 0.14).
"""
import os

import numpy as np
import torch
import torchvision
from faster_rcnn_golden import detector, resnet_c4, resnet_layer, run, write
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

pooled = 5  # layer4 makes 3 of it


def value(name, shape):
    """Element i in [-1, 1): the SplitMix64 generator's output i from the FNV-1a hash of the name, its upper 24 bits."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(40)
    return (z.astype(np.float64) * 2.0**-23 - 1).reshape(shape)


def weight(name, shape):
    x = value(name, shape)
    if len(shape) > 1:
        spread = 0.2 if name.startswith("roi_heads.box_predictor.") else 1.8  # no class is sure
        x = x * (3 * spread / (np.prod(shape) / shape[0])) ** 0.5
    elif name.endswith("running_var"):
        x = 1 + 0.5 * x
    elif name.endswith("weight"):  # batch norm's; many blocks of ResNet-50 add up
        x = (1 + 0.3 * x) * (0.3 if ".bn3." in name else 1)
    else:
        x = 0.2 * x
    return torch.tensor(x, dtype=torch.float32)


class Res5(nn.Module):
    def __init__(self, block, inner, planes, count, norm):
        super().__init__()
        self.layer4 = resnet_layer(block, inner, planes, count, 2, norm)

    def forward(self, x):
        return self.layer4(x).mean((2, 3))


def res5_detector(width, block, counts, norm):
    body = resnet_c4(width, block, counts, norm)
    head = Res5(block, body.out_channels, 8 * width, counts[3], norm)
    model = detector(body, head, 8 * width * block.expansion, pooled)
    model.load_state_dict({name: weight(name, tuple(old.shape)) for name, old in model.state_dict().items()
                           if not name.endswith("num_batches_tracked")}, strict=False)
    return model


tensors = {}
for name, model, (height, width) in (
        ("resnet18_frozen", res5_detector(2, BasicBlock, (2, 2, 2, 2), FrozenBatchNorm2d), (81, 65)),
        ("resnet18_live", res5_detector(2, BasicBlock, (2, 2, 2, 2), nn.BatchNorm2d), (70, 101)),
        ("resnet50_frozen", res5_detector(1, Bottleneck, (3, 4, 6, 3), FrozenBatchNorm2d), (97, 50))):
    image = torch.tensor(1.7 * value(name + ".image", (1, 3, height, width)), dtype=torch.float32)
    boxes = torch.tensor([[5, 8, 40, 45], [20.5, 3.25, 48, 30], [10, 30, 44, 60]])
    regions = []
    model.roi_heads.box_head.register_forward_hook(lambda _, inputs, __: regions.append(inputs[0].shape[0]))
    result = run(model, image, boxes, torch.tensor([1, 3, 2]))
    result["output.size"] = torch.tensor([height, width], dtype=torch.int32)
    result["output.regions"] = torch.tensor([regions[0]], dtype=torch.int32)
    if name.endswith("live"):
        result.update({"state." + key: x for key, x in model.state_dict().items() if "running" in key})
    tensors.update({f"{name}.{key}": x for key, x in result.items()})
    print(name, {key[7:]: round(x.item(), 4) for key, x in result.items() if "loss" in key}, regions, len(result["output.scores"]), "detections")
write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "res5.safetensors"), tensors, {"torchvision": torchvision.__version__})
