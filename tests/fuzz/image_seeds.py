#!/usr/bin/env python3
"""Seeds for image_fuzz: the tests' pictures. Usage: image_seeds.py FOLDER"""
import os
import shutil
import sys

images = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "images")
for name in sorted(os.listdir(images)):
    shutil.copy(os.path.join(images, name), sys.argv[1])
