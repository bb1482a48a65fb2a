#!/usr/bin/python3
"""Writes faster_rcnn.safetensors: a tiny torchvision Faster R-CNN (VGG-11 of width 2), an input, and what torchvision makes of it.

Every anchor and proposal is sampled, so the losses do not depend on random numbers. Needs python3-torch and python3-torchvision.
"""
import json
import os
import struct

import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

torch.manual_seed(5)


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int32: "I32"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


class Head(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(channels * 49, width), nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.fc7(torch.relu(self.fc6(x.flatten(1)))))


def vgg11(width):
    layers, channels = [], 3
    for stage, convs in enumerate((1, 1, 2, 2, 2)):
        if stage:
            layers.append(nn.MaxPool2d(2, 2))
        out = width << min(stage, 3)
        for _ in range(convs):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
    body = nn.Sequential(*layers)
    body.out_channels = channels
    return body


classes = 4
body = vgg11(2)
model = FasterRCNN(
    body, box_head=Head(body.out_channels, 12), box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(12, classes),
    rpn_anchor_generator=AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
    box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2),
    rpn_pre_nms_top_n_train=60, rpn_post_nms_top_n_train=20, rpn_pre_nms_top_n_test=50, rpn_post_nms_top_n_test=15,
    rpn_batch_size_per_image=100000, box_batch_size_per_image=100000, box_score_thresh=0.05, box_nms_thresh=0.3)
for parameter in model.parameters():  # large enough that every part matters
    nn.init.normal_(parameter, 0, (1.8 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1)

height, width = 70, 101
image = torch.randn(1, 3, height, width)
boxes = torch.tensor([[5.0, 8.0, 40.0, 52.0], [30.5, 20.25, 95.0, 66.0], [60.0, 2.0, 75.0, 21.0]])
labels = torch.tensor([1, 3, 2])

# The pieces of GeneralizedRCNN without its transform.
images = ImageList(image, [(height, width)])
targets = [{"boxes": boxes, "labels": labels}]
model.train()
features = {"0": model.backbone(image)}
proposals, losses = model.rpn(images, features, targets)
_, more = model.roi_heads(features, proposals, images.image_sizes, targets)
losses.update(more)
sum(losses.values()).backward()
model.eval()
with torch.no_grad():
    found, _ = model.rpn(images, features)
    detections, _ = model.roi_heads(features, found, images.image_sizes)

tensors = {name: p for name, p in model.state_dict().items()}
tensors.update({"grad." + name: p.grad for name, p in model.named_parameters() if p.dim() == 1})
tensors["input.image"] = image
tensors["input.boxes"] = boxes
tensors["input.labels"] = labels.int()
for name, loss in losses.items():
    tensors["output." + name] = loss.reshape(1)
tensors["output.proposals"] = found[0]
tensors["output.boxes"] = detections[0]["boxes"]
tensors["output.scores"] = detections[0]["scores"]
tensors["output.labels"] = detections[0]["labels"].int()
for name in sorted(losses):
    print(name, losses[name].item())
print(len(found[0]), "proposals,", len(detections[0]["boxes"]), "detections")
write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "faster_rcnn.safetensors"), tensors, {"torchvision": torchvision.__version__})
