#!/usr/bin/python3
"""Writes the inputs and expected values of image_test: tests/golden/images/* and tests/golden/image_golden.txt.

Needs Pillow, NumPy, PyTorch and torchvision. A line of image_golden.txt is one of
  pixels FILE HEIGHT WIDTH HEX          what Pillow decodes, upright, as RGB
  resize H W TO_H TO_W HEX FLOATS...    F.interpolate(bilinear, align_corners=False) of bytes as floats
  size H W SHORTER LONGER TO_H TO_W     torchvision.models.detection.transform's resize
  adjust NAME VALUE H W HEX HEX         torchvision.transforms.functional.adjust_NAME
"""
import io
import os
import struct
import zlib

import numpy as np
import torch
import torchvision.transforms.functional as tvf
from PIL import Image, ImageChops, ImageOps
from torchvision.models.detection.transform import _resize_image_and_masks

here = os.path.dirname(os.path.abspath(__file__))
folder = os.path.join(here, "images")
os.makedirs(folder, exist_ok=True)
rng = np.random.RandomState(7)
lines = []

# A smooth picture with a bright corner, so that every orientation differs; odd sides, not a multiple of 8.
height, width = 21, 30
y, x = np.mgrid[0:height, 0:width]
rgb = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), 128 + 100 * np.sin(x / 5) * np.cos(y / 4)], -1).astype(np.uint8)
rgb[:6, :9] = (250, 40, 20)
picture = Image.fromarray(rgb)
grey = picture.convert("L")


def expect(name, image=None):
    path = os.path.join(folder, name)
    if image is None:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    a = np.asarray(image)
    lines.append(f"pixels {name} {a.shape[0]} {a.shape[1]} {a.tobytes().hex()}")
    assert os.path.getsize(path) < 4096, name


def save(image, name, expected=None, **options):
    image.save(os.path.join(folder, name), **options)
    expect(name, expected)


# JPEG
save(picture, "rgb_444.jpg", quality=90, subsampling=0)
save(picture, "rgb_420.jpg", quality=80, subsampling=2)
save(picture, "rgb_422.jpg", quality=80, subsampling=1)
save(picture, "progressive.jpg", quality=85, progressive=True, optimize=True)
save(grey, "grey.jpg", quality=85)
save(picture.convert("CMYK"), "cmyk_adobe.jpg", quality=85)
data = open(os.path.join(folder, "cmyk_adobe.jpg"), "rb").read()
at = data.index(b"\xff\xee")
length = struct.unpack(">H", data[at + 2:at + 4])[0]
open(os.path.join(folder, "cmyk_plain.jpg"), "wb").write(data[:at] + data[at + 2 + length:])
# Pillow takes every CMYK file for Adobe's, which store 255 - ink; without the marker the numbers are ink (as in torchvision).
inks = ImageChops.invert(Image.open(os.path.join(folder, "cmyk_plain.jpg")))
expect("cmyk_plain.jpg", inks.convert("RGB"))
# The transform flag of Adobe's marker set to YCCK: the same numbers read as luma, chroma and black.
ycck = bytearray(data)
ycck[at + 2 + length - 1] = 2
open(os.path.join(folder, "ycck.jpg"), "wb").write(ycck)
expect("ycck.jpg")
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(picture, f"orientation_{orientation}.jpg", quality=80, exif=exif.tobytes())
# Big-endian EXIF, as many cameras write it, with an entry before the orientation.
tiff = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHH", 0x0100, 3, 1, 30, 0) + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + b"\0" * 4
save(picture, "orientation_big_endian.jpg", quality=80, exif=b"Exif\0\0" + tiff)

# PNG
save(picture, "rgb.png")
save(grey, "grey.png")
save(grey.convert("1"), "bits_1.png")
save(picture.quantize(200), "palette.png")
save(picture.quantize(4), "palette_2bit.png", bits=2)
rgba = picture.convert("RGBA")
rgba.putalpha(grey)
save(rgba, "alpha.png")
save(Image.merge("LA", (grey, grey)), "grey_alpha.png")
quantized = picture.quantize(16)
save(quantized, "palette_transparent.png", expected=quantized.convert("RGB"), transparency=3)
# A file named .jpg that is a PNG.
with open(os.path.join(folder, "png_inside.jpg"), "wb") as f:
    f.write(open(os.path.join(folder, "rgb.png"), "rb").read())
expect("png_inside.jpg")


def png(name, color, depth, rows, interlace=0, expected=None):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    open(os.path.join(folder, name), "wb").write(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    expect(name, expected)


rgb16 = rgb.astype(np.uint16) * 256 + 77
png("rgb_16bit.png", 2, 16, [r.astype(">u2").tobytes() for r in rgb16], expected=picture)
grey16 = np.asarray(grey).astype(np.uint16) * 256 + 200
png("grey_16bit.png", 0, 16, [r.astype(">u2").tobytes() for r in grey16], expected=grey.convert("RGB"))
passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
interlaced = [row.tobytes() for y0, x0, dy, dx in passes for row in rgb[y0::dy, x0::dx]]
png("interlaced.png", 2, 8, interlaced, interlace=1, expected=picture)

# BMP
save(picture, "rgb.bmp")
save(grey, "grey.bmp")
save(grey.convert("1"), "bits_1.bmp")
save(picture.quantize(64), "palette.bmp")

# Resizing
for h, w, to_h, to_w in [(7, 5, 13, 9), (16, 24, 11, 40), (1, 1, 4, 3), (1, 50, 1, 13), (9, 9, 9, 9), (30, 20, 6, 5), (2, 3, 31, 17)]:
    a = rng.randint(0, 256, (h, w, 3)).astype(np.uint8)
    t = torch.from_numpy(a).permute(2, 0, 1)[None].float()
    out = torch.nn.functional.interpolate(t, size=(to_h, to_w), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    values = " ".join(f"{v:.7g}" for v in out.flatten().tolist())
    lines.append(f"resize {h} {w} {to_h} {to_w} {a.tobytes().hex()} {values}")
sizes = [(375, 500), (500, 375), (333, 500), (281, 500), (480, 640), (427, 640), (1, 1), (1, 5000), (3000, 2), (600, 600), (1333, 800), (499, 101)]
sizes += [tuple(int(v) for v in rng.randint(50, 1200, 2)) for _ in range(60)]
for h, w in sizes:
    for shorter, longer in [(600, 1000), (800, 1333), (300, 500), (160, 213)]:
        if min(h, w) * min(shorter / min(h, w), longer / max(h, w)) < 1:
            to = None
        else:
            to = _resize_image_and_masks(torch.zeros(1, h, w), float(shorter), float(longer))[0].shape[-2:]
            lines.append(f"size {h} {w} {shorter} {longer} {to[0]} {to[1]}")

# Colours
for name, values in [("brightness", [0.4, 1.0, 1.7]), ("contrast", [0.0, 0.5, 1.6]), ("saturation", [0.0, 0.5, 1.9]), ("hue", [-0.5, -0.1, 0.05, 0.3])]:
    for value in values:
        a = rng.randint(0, 256, (6, 7, 3)).astype(np.uint8)
        a[0, :, :] = a[0, :, :1]
        t = torch.from_numpy(a).permute(2, 0, 1)
        out = getattr(tvf, "adjust_" + name)(t, value).permute(1, 2, 0).contiguous().numpy()
        lines.append(f"adjust {name} {value} 6 7 {a.tobytes().hex()} {out.tobytes().hex()}")

with open(os.path.join(here, "image_golden.txt"), "w") as f:
    f.write("\n".join(lines) + "\n")
print(len(lines), "lines")
