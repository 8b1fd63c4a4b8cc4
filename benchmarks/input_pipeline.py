"""Input pipeline: finished samples per second and core, compared with decoding alone and with a conventional pipeline.

python benchmarks/input_pipeline.py --images DIR [--rounds 15] [--limit 64]

Timed from the files' bytes in memory, on one thread, taking turns of a few images in rotating order:

- decode: `decode_image`, from bytes to RGB pixels;
- views: the part of a sample after decoding;
- sample: decoding, and the three finished uint8 views of the default settings with their boxes and levels;
- conventional: PIL's decoding, and the same three views made one at a time with torchvision's transforms on
  PIL images, as in common training code, also as uint8 tensors. Computing boxes is not included.

Prints one JSON object. `worker_speedup` is sample compared with conventional, and `worker_over_decode` the time of a
sample over that of decoding; each is the median over rounds of the ratio within a round.
"""

import argparse
import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torchvision import transforms as tv

from machine import machine
from socodet.images.decode import decode_image
from socodet.images.source import open_images
from socodet.views.rendering import warm_up
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings

SETTINGS = SampleSettings()
TURN = 16
"""Images per turn, so that caches hold the data of one pipeline at a time, as in a worker."""


def conventional_colors(settings: PhotometricSettings) -> Callable[[Image.Image], torch.Tensor]:
    """The augmentation of one view with torchvision's transforms, except for PIL's blur, which is faster."""

    def blur(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*settings.blur_sigma)))

    color = tv.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
    return tv.Compose(  # type: ignore[no-any-return]
        [
            tv.RandomHorizontalFlip(),
            tv.RandomApply([color], settings.jitter_probability),
            tv.RandomGrayscale(settings.grayscale_probability),
            tv.RandomApply([tv.Lambda(blur)], settings.blur_probability),
            tv.RandomSolarize(settings.solarize_threshold, settings.solarize_probability),
            tv.PILToTensor(),
        ]
    )


def conventional_sample() -> Callable[[bytes], tuple[torch.Tensor, ...]]:
    """The three views of an image with PIL and torchvision, one view at a time."""
    first, second, third = SETTINGS.views
    whole = tv.Resize((first.size, first.size))
    crop = tv.RandomResizedCrop(second.size, SETTINGS.crop_scale, SETTINGS.crop_aspect)
    half = tv.Resize((third.size, third.size))
    colors = [conventional_colors(view.photometric) for view in SETTINGS.views]

    def sample(data: bytes) -> tuple[torch.Tensor, ...]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        v1, v2 = whole(image), crop(image)
        v3 = half(v2)
        return tuple(color(view) for color, view in zip(colors, (v1, v2, v3), strict=True))

    return sample


def random_proposals(image: NDArray[np.uint8], rng: np.random.Generator, count: int = 30) -> NDArray[np.float32]:
    """Boxes of relative scale 0.3 to 0.8."""
    size = np.array([image.shape[1], image.shape[0]])
    sides = rng.uniform(0.3, 0.8, (count, 2)) * size
    corners = rng.random((count, 2)) * (size - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def measure(files: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Seconds per image of each pipeline, round by round; within a round they take turns."""
    rng = np.random.default_rng(0)
    images = [decode_image(data) for data in files]
    proposals = [random_proposals(image, rng) for image in images]
    conventional = conventional_sample()
    epoch = 0

    def sample(i: int) -> object:
        return make_sample(decode_image(files[i]), proposals[i], SETTINGS, sample_rng(0, epoch, i))

    ways: dict[str, Callable[[int], object]] = {
        "decode": lambda i: decode_image(files[i]),
        "sample": sample,
        "views": lambda i: make_sample(images[i], proposals[i], SETTINGS, sample_rng(0, epoch, i)),
        "conventional": lambda i: conventional(files[i]),
    }
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    turns = [range(first, min(first + TURN, len(files))) for first in range(0, len(files), TURN)]
    for epoch in range(rounds + 1):  # the first round is a warm-up
        spent = dict.fromkeys(ways, 0.0)
        for t, turn in enumerate(turns):
            for n in range(len(names)):
                name = names[(n + t + epoch) % len(names)]
                started = time.perf_counter()
                for i in turn:
                    ways[name](i)
                spent[name] += time.perf_counter() - started
        if epoch > 0:
            for name, total in spent.items():
                seconds[name].append(total / len(files))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images of about 500x375")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=int, default=64, help="number of images used")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()

    source = open_images(arguments.images)
    files = [source.read(i) for i in range(min(arguments.limit, len(source)))]
    sizes = [decode_image(data).shape for data in files]
    seconds = measure(files, arguments.rounds)

    def ratio(a: str, b: str) -> float:
        return round(statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True)), 3)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "worker_speedup": ratio("conventional", "sample"),
        "worker_over_decode": ratio("sample", "decode"),
        "images_per_second_per_core": {name: round(1 / value, 1) for name, value in median.items()},
        "milliseconds": {name: round(1e3 * value, 3) for name, value in median.items()},
        "images": len(files),
        "median_width": statistics.median(s[1] for s in sizes),
        "median_height": statistics.median(s[0] for s in sizes),
        "rounds": arguments.rounds,
        "machine": machine(),
        "versions": {name: version(name) for name in ("numba", "numpy", "pillow", "simplejpeg", "torchvision")},
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
