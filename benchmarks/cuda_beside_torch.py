#!/usr/bin/env python3
"""Shrike and torchvision on the same GPU, in turn: A B A B ..., medians and the ratio of each pair.

  benchmarks/cuda_beside_torch.py [--build build/cuda] [--rounds 3] [--runs 20] [--size 600x800] [--device cuda] [CASE ...]

Cases: infer, step (VGG16 Faster R-CNN, batch 1, 20 classes, 300 proposals in inference), roi_align, nms. Prints a Markdown table. Both
sides may use TF32 (--no-tf32 forbids it to both), and PyTorch's cuDNN may time its algorithms too. Needs torch and torchvision.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", default="build/cuda", help="folder of Shrike's build")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--runs", type=int, default=20, help="timed runs in each round, after three that are not counted")
parser.add_argument("--size", default="600x800", help="height x width of the image")
parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
parser.add_argument("--device", default="cuda")
parser.add_argument("--no-tf32", action="store_true")
parser.add_argument("--peer", help=argparse.SUPPRESS)  # run one case of PyTorch's side: in a process of its own, as ours is
parser.add_argument("cases", nargs="*")
arguments = parser.parse_args()
CASES = arguments.cases or ["infer", "step", "roi_align", "nms"]
HEIGHT, WIDTH = (int(side) for side in arguments.size.split("x"))


def detector():
    from torch import nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign
    layers, channels = [], 3
    for stage, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))):
        if stage > 0:
            layers.append(nn.MaxPool2d(2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, factor * arguments.width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = factor * arguments.width
    backbone = nn.Sequential(*layers)
    backbone.out_channels = channels
    units = 64 * arguments.width
    head = nn.Sequential(nn.Flatten(), nn.Linear(49 * channels, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())
    return FasterRCNN(
        backbone, min_size=min(HEIGHT, WIDTH), max_size=max(HEIGHT, WIDTH),
        rpn_anchor_generator=AnchorGenerator(((128, 256, 512),), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_train=2000, rpn_post_nms_top_n_train=500, rpn_pre_nms_top_n_test=6000, rpn_post_nms_top_n_test=300,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2), box_head=head, box_predictor=FastRCNNPredictor(units, 21),
        box_batch_size_per_image=128, box_score_thresh=0.05, box_nms_thresh=0.3).to(arguments.device)


def random_boxes(count, generator):
    import torch
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([0.7 * WIDTH, 0.7 * HEIGHT])
    side = 16 + torch.rand(count, 2, generator=generator) * torch.tensor([0.25 * WIDTH, 0.25 * HEIGHT])
    return torch.cat([corner, corner + side], 1).to(arguments.device)


def peer(case):
    """One case by PyTorch; the last line printed is JSON with median_s."""
    import torch
    import torchvision
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not arguments.no_tf32
    generator = torch.Generator().manual_seed(1)
    if case in ("infer", "step"):
        model = detector()
        images = [torch.rand(3, HEIGHT, WIDTH, device=arguments.device)]
        if case == "infer":
            model.eval()

            def run():
                with torch.no_grad():
                    for found in model(images):
                        found["boxes"].cpu(), found["scores"].cpu(), found["labels"].cpu()
        else:
            model.train()
            targets = [{"boxes": random_boxes(12, generator),
                        "labels": torch.randint(1, 4, (12,), generator=generator).to(arguments.device)}]
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

            def run():
                loss = sum(model(images, targets).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
    elif case == "roi_align":
        x = torch.rand(1, 8 * arguments.width, HEIGHT // 16, WIDTH // 16, device=arguments.device)
        boxes = [random_boxes(300, generator)]

        def run():
            torchvision.ops.roi_align(x, boxes, 7, 1 / 16, 2)
    else:
        boxes = random_boxes(6000, generator)
        scores = torch.rand(6000, generator=generator).to(arguments.device)

        def run():
            torchvision.ops.nms(boxes, scores, 0.7)
    synchronize = torch.cuda.synchronize if arguments.device == "cuda" else (lambda: None)
    times = []
    for i in range(arguments.runs + 3):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        if i >= 3:
            times.append(time.perf_counter() - start)
    print(json.dumps({"median_s": statistics.median(times)}))


def timed(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])["median_s"]


def ours(case):
    tf32 = ["--no-tf32"] if arguments.no_tf32 else []
    if case in ("infer", "step"):
        return [f"{arguments.build}/benchmarks/detector_bench", case, "--device", arguments.device, "--height", str(HEIGHT),
                "--image-width", str(WIDTH), "--width", str(arguments.width), "--runs", str(arguments.runs), *tf32]
    return [f"{arguments.build}/benchmarks/cuda_bench", "--only", case, "--height", str(HEIGHT), "--image-width", str(WIDTH),
            "--channels", str(arguments.width), "--runs", str(arguments.runs), "--device", arguments.device]


def main():
    if arguments.peer:
        return peer(arguments.peer)
    import torch
    import torchvision
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, {device}, {HEIGHT}x{WIDTH}, "
          f"{'float32' if arguments.no_tf32 else 'TF32'}, {arguments.rounds} rounds of {arguments.runs} runs\n")
    print("| case | Shrike ms | PyTorch ms | ratio (min to max) |\n|---|---|---|---|")
    passed = ["--runs", str(arguments.runs), "--size", arguments.size, "--width", str(arguments.width), "--device", arguments.device]
    passed += ["--no-tf32"] if arguments.no_tf32 else []
    for case in CASES:
        pairs = [(timed(ours(case)), timed([sys.executable, __file__, "--peer", case, *passed])) for _ in range(arguments.rounds)]
        ratios = [a / b for a, b in pairs]
        print(f"| {case} | {1e3 * statistics.median(a for a, _ in pairs):.3f} | {1e3 * statistics.median(b for _, b in pairs):.3f} | "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


main()
