"""Writes golden/reference.safetensors with the format's own library.

    pip install safetensors numpy && python3 tests/golden/safetensors_files.py
"""
import os

import numpy as np
from safetensors.numpy import save_file

here = os.path.dirname(os.path.abspath(__file__))

save_file(
    {
        "b.weight": np.array([[1.5, -2.0, 3.25], [0.0, -0.0, 1e-40]], np.float32),
        "a.weight": np.array([np.inf, -np.inf, 65504.0], np.float16),
        "bytes": np.array([0, 128, 255], np.uint8),
        "signed": np.array([[-128], [127]], np.int8),
        "int": np.array([-2147483648, 2147483647], np.int32),
        "long": np.array([-9223372036854775808, 9223372036854775807], np.int64),
        "scalar": np.array(42.0, np.float32),
        "empty": np.zeros((2, 0, 3), np.float32),
        "naïve \"name\"\\": np.array([7], np.int32),
    },
    os.path.join(here, "reference.safetensors"),
    metadata={"note": "line 1\nline 2 \u2713"},
)
