"""How many dimensions a pretrained FPN's outputs use, compared with a fresh FPN on the same pretrained backbone.

python benchmarks/pyramid_rank.py RUN IMAGES [--images 24] [--size 128] [--seeds 3]

RUN is a pretraining run with an FPN. Batch norm uses batch statistics, as in training. Prints one JSON object with, for
each level from P2 to P5, the effective rank of its cells over all images (at most the pyramid's channels), and the mean
squared difference of horizontal neighbours over twice the variance (1 for unrelated cells, near 0 for a smooth map).
Figures of the fresh FPN are means over seeds.
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from machine import machine
from socodet import build_detector
from socodet.images.decode import decode_image
from socodet.images.source import open_images
from socodet.models.normalization import normalize
from socodet.pretraining.watch import effective_rank


def figures(backbone: nn.Module, pixels_b3hw: Tensor) -> dict[str, dict[str, float]]:
    """Effective rank and neighbours' difference of each level."""
    with torch.no_grad():
        levels = backbone(pixels_b3hw)
    found = {}
    for level in range(4):
        maps = levels[str(level)]
        cells = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
        difference = maps.diff(dim=3).square().mean() / (2 * maps.var())
        found[f"P{level + 2}"] = {"rank": effective_rank(cells), "neighbours": float(difference)}
    return found


def main() -> None:
    """Measures the pretrained FPN, then fresh ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    source = open_images(given.folder)
    chosen = np.linspace(0, len(source) - 1, given.images).astype(int)
    shape = (given.size, given.size)
    pixels = np.stack(
        [np.asarray(Image.fromarray(decode_image(source.read(int(index)))).resize(shape)) for index in chosen]
    )
    pixels_b3hw = normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    network = build_detector(given.run, detector="faster_rcnn_fpn", show_report=False)
    backbone = network.get_submodule("backbone").train()
    pretrained = figures(backbone, pixels_b3hw)
    fresh = []
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        for module in backbone.get_submodule("fpn").modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)  # like torchvision's FPN
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        fresh.append(figures(backbone, pixels_b3hw))
    means = {
        level: {name: float(np.mean([one[level][name] for one in fresh])) for name in pretrained[level]}
        for level in pretrained
    }
    print(json.dumps({"machine": machine(), "pretrained": pretrained, "fresh": means}, indent=1))


if __name__ == "__main__":
    main()
