"""What scoring and reading large datasets cost compared with plain implementations: ratios from one run.

python benchmarks/large_sets.py [--images 300] [--detections 300] [--classes 200]

outcome: matching an image's detections, against one detection after another. voc: VOC's scores, against only computing
the overlaps of all pairs of a class in an image. coco: COCO's scores, 20,000 detections at a time, against all at once;
also the peak in MiB. order: the images of a batch under a schedule that repeats images of rare classes, for 100,000
images, against counting from the start of the pass and hashing the schedule for each image. png: the size of a PNG of
640x480 pixels, against decoding it. run_lengths: checking COCO's compressed run lengths of 200 masks, against reading
them character by character. annotations: reading a COCO file of 3,500 objects with outlines, against only parsing its
JSON. On one thread, with random boxes; prints one JSON object.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_iou

from machine import machine
from socodet.detection.datasets import masks
from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations
from socodet.detection.datasets.coco import read_coco
from socodet.detection.datasets.masks import encode_masks
from socodet.detection.datasets.problems import AnnotationProblems
from socodet.detection.scores import Detections, coco, voc
from socodet.detection.scores.outcomes import IOU, outcome
from socodet.images.decode import decode_image, image_size
from socodet.training.streams import Stream

OBJECTS = 7
REPEATED, BATCH = 100_000, 16


def boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """(N, 4) random boxes, xyxy."""
    corner = rng.random((count, 2)) * 500
    return np.concatenate([corner, corner + 10 + rng.random((count, 2)) * 130], 1).astype(np.float32)


def made(images: int, detections: int, classes: int) -> tuple[DetectionDataset, dict[int | str, Detections]]:
    """A dataset, and detections, a few of them near its objects."""
    rng = np.random.default_rng(0)
    listed: list[ImageAnnotations] = []
    found: dict[int | str, Detections] = {}
    for number in range(images):
        there, labels = boxes(rng, OBJECTS), rng.integers(1, classes + 1, OBJECTS)
        none = np.zeros(OBJECTS, bool)
        areas = (there[:, 2:] - there[:, :2]).prod(1)
        listed.append(ImageAnnotations(number, Path(f"/{number}"), 640, 640, there, labels, none, none, areas))
        guesses, kinds = boxes(rng, detections), rng.integers(1, classes + 1, detections)
        guesses[:OBJECTS], kinds[:OBJECTS] = there + rng.normal(0, 3, there.shape), labels
        found[number] = Detections(guesses, rng.random(detections).astype(np.float32), kinds)
    categories = tuple(Category(k, f"class {k}") for k in range(1, classes + 1))
    return DetectionDataset("random", categories, listed, False, "coco", AnnotationProblems()), found


def one_by_one(image: ImageAnnotations, found: Detections) -> int:
    """The number of true positives; each detection is compared with all objects of the image."""
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(image.boxes)).numpy()
    overlaps = np.where(found.labels[:, None] == image.labels[None], overlaps, 0)
    found_at = np.full(len(image), -1, np.float32)
    true_positives = 0
    for k in np.argsort(-found.scores, kind="stable").tolist():
        left = np.where(found_at < 0, overlaps[k], 0)
        if left.max(initial=0) >= IOU:
            true_positives += 1
            found_at[left.argmax()] = found.scores[k]
        else:
            (image.crowd & (overlaps[k] >= IOU)).any()
    return true_positives


def all_pairs(data: DetectionDataset, found: dict[int | str, Detections]) -> float:
    """Only the overlaps for each class and image, without scoring."""
    total = 0.0
    for label in range(1, len(data.categories) + 1):
        for image in data.images:
            one = found[image.image_id]
            mine, objects = (np.flatnonzero(labels == label) for labels in (one.labels, image.labels))
            total += voc._iou(one.boxes[mine], image.boxes[objects]).max(1, initial=0.0).sum()
    return total


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compared(plain: Callable[[], object], now: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of both implementations, and their ratio."""
    before, after = 1e3 * seconds(plain), 1e3 * seconds(now)
    return {"plain_ms": round(before, 3), "now_ms": round(after, 3), "ratio": round(before / after, 1)}


def peak(call: Callable[[], object]) -> float:
    """Peak memory of a call in MiB, above that before it."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    call()
    return round((status("VmHWM") - before) / 1024)


def status(field: str) -> int:
    """A field of /proc/self/status in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def coco_scores(data: DetectionDataset, found: dict[int | str, Detections], at_once: int) -> object:
    """COCO's scores, computed for `at_once` detections at a time."""
    coco.AT_ONCE = at_once
    return coco.evaluate_coco(data, found)


def order() -> dict[str, float]:
    """Finds the images of a batch in the middle of a pass."""
    factors = np.repeat([1.0, 1.5], REPEATED // 2)
    stream = Stream(np.arange(REPEATED), BATCH, 0, factors=tuple(factors.tolist()))
    stream.batch(0)
    step = REPEATED // BATCH // 2
    drawn = stream._pass(0).order

    def plain() -> list[int]:
        places = range(step * BATCH, (step + 1) * BATCH)
        return [hash(stream.factors) * 0 + int((drawn[:place] == drawn[place]).sum()) for place in places]

    return compared(plain, lambda: stream.batch(step))


def png() -> dict[str, float]:
    """Reads the size of a photograph-like PNG."""
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 30, (480, 640, 3)) + np.linspace(0, 200, 640)[None, :, None]).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        data = file.getvalue()
    return compared(lambda: [decode_image(data) for _ in range(5)], lambda: [image_size(data) for _ in range(5)])


def run_lengths() -> dict[str, float]:
    """Checks run lengths of masks with rough borders."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    rough = [np.hypot(x - 300, y - 200) < 40 + radius + 8 * rng.random((480, 640)) for radius in range(20)]
    written = [rle["counts"] for rle in encode_masks(np.stack(rough))] * 10

    def character_by_character(counts: str) -> int:
        runs: list[int] = []
        value = shift = 0
        for character in counts:
            bits = ord(character) - 48
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                value |= -1 << shift if bits & 16 else 0
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                value = shift = 0
        return sum(runs)

    assert {character_by_character(counts) for counts in written} == {masks._total(counts) for counts in written}
    return compared(lambda: [*map(character_by_character, written)], lambda: [*map(masks._total, written)])


def annotations() -> dict[str, float]:
    """Reads a COCO file of 500 images with outlines of 25 points."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.json"
        images = [{"id": k, "file_name": f"{k}.jpg", "width": 640, "height": 640} for k in range(500)]
        for image in images:
            (file.parent / str(image["file_name"])).touch()
        objects = []
        for k, (x1, y1, x2, y2) in enumerate(boxes(rng, OBJECTS * len(images)).astype(float).round(2).tolist()):
            written = {
                "id": k,
                "image_id": k % len(images),
                "category_id": 1,
                "iscrowd": 0,
                "area": 0.6 * (x2 - x1) ** 2,
            }
            outline = rng.uniform((x1, y1), (x2, y2), (25, 2)).round(2).reshape(-1).tolist()
            objects.append(written | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [outline]})
        categories = [{"id": 1, "name": "thing"}]
        file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
        assert sum(map(len, read_coco(file).images)) == len(objects)
        return compared(lambda: json.loads(file.read_bytes()), lambda: read_coco(file))


def main() -> None:
    """Measures, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 300), ("detections", 300), ("classes", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = vars(parser.parse_args())
    torch.set_num_threads(1)
    data, found = made(**asked)
    pairs = [(image, found[image.image_id]) for image in data.images]
    assert [one_by_one(*pair) for pair in pairs[:20]] == [
        int(outcome(*pair).true_positive.sum()) for pair in pairs[:20]
    ]
    result = {
        **asked,
        "outcome": compared(lambda: [one_by_one(*pair) for pair in pairs], lambda: [outcome(*pair) for pair in pairs]),
        "voc": compared(lambda: all_pairs(data, found), lambda: voc.evaluate_voc(data, found)),
        "order": order(),
        "png": png(),
        "run_lengths": run_lengths(),
        "annotations": annotations(),
    }
    shares = peak(
        lambda: coco_scores(data, found, 20_000)
    )  # measured before scoring all at once, which leaves memory allocated
    result["coco"] = {
        "now_MiB": shares,
        "plain_MiB": peak(lambda: coco_scores(data, found, 10**9)),
        **compared(lambda: coco_scores(data, found, 10**9), lambda: coco_scores(data, found, 20_000)),
    }
    print(json.dumps(result | {"machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
