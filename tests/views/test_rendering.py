"""Which calls compile the kernels."""

import subprocess
import sys

_SCRIPT = """
import numpy as np
from socodet.views import rendering
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import SampleSettings

def compiled():
    kernels = (rendering.resample_window, rendering.resize_canvas, rendering._render)
    return [len(kernel.signatures) for kernel in kernels]

assert compiled() == [0, 0, 0], "importing compiled something"
rendering.warm_up()
assert compiled() == [1, 1, 1]
image = np.zeros((40, 50, 3), np.uint8)
image.setflags(write=False)
settings = SampleSettings(boxes_per_image=3)
proposals = np.array([[2, 2, 18, 18]], np.float32)
for variant in (image, image[::2, ::2], np.asfortranarray(image)):
    for index in range(20):
        make_sample(variant, proposals, settings, sample_rng(0, 0, index))
assert compiled() == [1, 1, 1], "a sample needed a kernel that warm_up had not compiled"
"""


def test_warm_up_compiles_all_kernels_and_importing_none() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
