"""Run lengths of an image's masks: each pasted within its box, as in `predict` and scoring, or into the whole image.

python benchmarks/mask_pasting.py [--masks 50]

Random boxes of up to 0.4 of the image's width and height, one thread. Prints one JSON object with the CPU seconds of
both and their ratio; asserts that the run lengths are equal.
"""

import argparse
import json
import time

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from machine import machine
from socodet.detection.datasets.masks import RLE, encode_masks
from socodet.detection.detectors.transform import paste_masks
from socodet.detection.inference import as_detections


def whole(answer: dict[str, Tensor], size: tuple[int, int]) -> list[RLE]:
    """Pastes masks one by one into the whole image."""
    pairs = zip(answer["masks"], answer["boxes"], strict=True)
    pasted = (paste_masks(mask[None], box[None], size)[:, 0] > 0.5 for mask, box in pairs)
    return [encode_masks(mask.numpy())[0] for mask in pasted]


def main() -> None:
    """Times both ways at two sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=50)
    count = parser.parse_args().masks
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    for height, width in ((480, 640), (3000, 4000)):
        sides = torch.tensor([width, height])
        corners = torch.rand(count, 2) * 0.6 * sides
        boxes = torch.cat([corners, corners + torch.rand(count, 2) ** 2 * 0.4 * sides + 20], dim=1)
        masks = interpolate(torch.rand(count, 1, 4, 4), size=(28, 28), mode="bilinear")
        answer = {"boxes": boxes, "scores": torch.ones(count), "labels": torch.ones(count).long(), "masks": masks}
        begun = time.process_time()
        ours = as_detections(answer, (height, width)).masks
        middle = time.process_time()
        assert ours == whole(answer, (height, width))
        seconds, slow = middle - begun, time.process_time() - middle
        results.append({"size": [width, height], "box": seconds, "image": slow, "ratio": slow / seconds})
    print(json.dumps({"machine": machine(), "masks": count, "sizes": results}, indent=1))


if __name__ == "__main__":
    main()
