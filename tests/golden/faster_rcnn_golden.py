#!/usr/bin/env python3
"""Writes faster_rcnn.safetensors: three tiny Faster R-CNNs of torchvision (VGG-11 and ResNet-18 C4 of width 2, ResNet-50 C4 of width 1, the
ResNets with frozen batch norm), five images of odd sizes, and what torchvision makes of them: losses, the gradient of every parameter, detections; then the losses of
ten training steps.

Every anchor and proposal is sampled, so the losses do not depend on random numbers. Images are padded to multiples of 16, as by
torchvision with size_divisible=16. Needs torch and torchvision (written with 2.15 and 0.29).
"""
import json
import os
import struct
from collections import OrderedDict

import torch
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

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


pooled = 3


class Head(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.fc6, self.fc7 = nn.Linear(channels * pooled * pooled, width), nn.Linear(width, width)

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


def resnet_layer(block, inner, planes, count, stride, norm):
    out, blocks = planes * block.expansion, []
    for i in range(count):
        step = stride if i == 0 else 1
        down = nn.Sequential(nn.Conv2d(inner, out, 1, step, bias=False), norm(out)) if step != 1 or inner != out else None
        blocks.append(block(inner, planes, step, down, norm_layer=norm))
        inner = out
    return nn.Sequential(*blocks)


def resnet_c4(width, block, counts, norm=FrozenBatchNorm2d):
    wide = block.expansion * width
    body = nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(3, width, 7, 2, 3, bias=False), bn1=norm(width), relu=nn.ReLU(), maxpool=nn.MaxPool2d(3, 2, 1),
        layer1=resnet_layer(block, width, width, counts[0], 1, norm), layer2=resnet_layer(block, wide, 2 * width, counts[1], 2, norm),
        layer3=resnet_layer(block, 2 * wide, 4 * width, counts[2], 2, norm)))
    body.out_channels = 4 * wide
    return body


def detector(body, head=None, width=12, size=pooled):
    return FasterRCNN(
        body, box_head=head or Head(body.out_channels, width), box_predictor=FastRCNNPredictor(width, 4),
        rpn_anchor_generator=AnchorGenerator(((16, 32, 64),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], size, 2),
        rpn_pre_nms_top_n_train=60, rpn_post_nms_top_n_train=20, rpn_pre_nms_top_n_test=50, rpn_post_nms_top_n_test=15,
        rpn_batch_size_per_image=100000, box_batch_size_per_image=100000, box_score_thresh=0.05, box_nms_thresh=0.3)


def randomised(model):
    for parameter in model.parameters():  # large enough that every part matters
        nn.init.normal_(parameter, 0, (1.8 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.7, 1.3), module.bias.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2), module.running_var.uniform_(0.5, 1.5)
    for module in model.modules():
        if isinstance(module, Bottleneck):  # many of them add up
            module.bn3.weight.mul_(0.3)
    return model


def step(model, image, boxes, labels):
    """The pieces of GeneralizedRCNN without resizing: losses by name, and the padded images; gradients are left in the model."""
    height, width = image.shape[-2:]
    padded = torch.zeros(1, 3, -(-height // 16) * 16, -(-width // 16) * 16)
    padded[..., :height, :width] = image
    images = ImageList(padded, [(height, width)])
    targets = [{"boxes": boxes, "labels": labels}]
    model.train(), model.zero_grad()
    features = {"0": model.backbone(padded)}
    proposals, losses = model.rpn(images, features, targets)
    _, more = model.roi_heads(features, proposals, images.image_sizes, targets)
    losses.update(more)
    sum(losses.values()).backward()
    return losses, images


def run(model, image, boxes, labels):
    losses, images = step(model, image, boxes, labels)
    model.eval()
    with torch.no_grad():
        features = {"0": model.backbone(images.tensors)}  # by running statistics
        found, _ = model.rpn(images, features)
        detections, _ = model.roi_heads(features, found, images.image_sizes)
    result = {"output." + name: loss.reshape(1) for name, loss in losses.items()}
    result.update({"grad." + name: p.grad.clone() for name, p in model.named_parameters()})
    result["output.boxes"], result["output.scores"] = detections[0]["boxes"], detections[0]["scores"]
    result["output.labels"] = detections[0]["labels"].int()
    return result


def main():
    tensors = {}
    models = {"vgg11": randomised(detector(vgg11(2))), "resnet18": randomised(detector(resnet_c4(2, BasicBlock, (2, 2, 2)))),
              "resnet50": randomised(detector(resnet_c4(1, Bottleneck, (3, 4, 6))))}
    for name, model in models.items():
        tensors.update({f"{name}.weights.{key}": value.clone() for key, value in model.state_dict().items()})
    for case, (height, width) in enumerate([(49, 65), (65, 49), (70, 101), (81, 33), (97, 50)]):
        image = torch.randn(1, 3, height, width)
        corners = torch.rand(3, 2) * torch.tensor([width, height]) * 0.6
        boxes = torch.cat([corners, torch.minimum(corners + torch.rand(3, 2) * 30 + 12, torch.tensor([width, height]) - 0.5)], 1)
        labels = torch.tensor([1, 3, 2])
        tensors.update({f"{case}.image": image, f"{case}.boxes": boxes, f"{case}.labels": labels.int(), f"{case}.labels_long": labels})
        for name, model in models.items():
            if name == "resnet50" and case > 2:
                continue
            result = run(model, image, boxes, labels)
            tensors.update({f"{name}.{case}.{key}": value for key, value in result.items()})
            print(name, height, width, {key[7:]: round(v.item(), 4) for key, v in result.items() if "loss" in key},
                  len(result["output.scores"]), "detections")
    # Ten steps of SGD, image after image.
    for name in ("vgg11", "resnet18"):
        model = models[name]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
        totals = []
        for i in range(10):
            losses, _ = step(model, *(tensors[f"{i % 5}.{part}"] for part in ("image", "boxes", "labels_long")))
            totals.append(sum(losses.values()).item())
            optimizer.step()
        print(name, totals)
        tensors[f"{name}.totals"] = torch.tensor(totals)
    tensors = {key: value for key, value in tensors.items() if not key.endswith("labels_long")}
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "faster_rcnn.safetensors"), tensors, {"torchvision": torchvision.__version__})


if __name__ == "__main__":
    main()
