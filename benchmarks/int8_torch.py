#!/usr/bin/env python3
"""VGG16's features (without the last pooling) in PyTorch, in float and statically quantized by its onednn engine, in turn.

  benchmarks/int8_torch.py [--size 600x800] [--runs 5] [--threads 2]

Random weights and input, batch 1; prints JSON with medians in ms. Needs torch and torchvision.
"""
import argparse
import json
import statistics
import time

import torch
import torchvision
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--size", default="600x800", help="HEIGHTxWIDTH")
parser.add_argument("--runs", type=int, default=5, help="of each, after one that is not counted")
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()
height, width = map(int, arguments.size.split("x"))
torch.set_num_threads(arguments.threads)
torch.manual_seed(1)
torch.backends.quantized.engine = "onednn"

image = torch.randn(1, 3, height, width).contiguous(memory_format=torch.channels_last)
float_features = torchvision.models.vgg16(weights=None).features[:-1].eval()
times = {"float": [], "int8": []}
with torch.no_grad():
    prepared = prepare_fx(float_features, get_default_qconfig_mapping("onednn"), (image,))
    prepared(image)
    models = {"float": float_features.to(memory_format=torch.channels_last), "int8": convert_fx(prepared)}
    for run in range(arguments.runs + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model(image)
            if run > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
print(json.dumps({"torch": torch.__version__, "size": arguments.size, "threads": arguments.threads,
                  **{name: round(statistics.median(of), 1) for name, of in times.items()}}))
