"""Speed and quality of proposals compared with OpenCV's selective search; prints one JSON object.

    python -m venv ENV && ENV/bin/pip install -e . opencv-contrib-python-headless dlib
    ENV/bin/python benchmarks/proposals.py --images photos/ --annotations instances.json --limit 50

OpenCV needs its own environment, since its builds overwrite each other's files. dlib's figures are left out if it is
not installed; installing it compiles for minutes. Times are for one thread, include decoding, and are interleaved image
by image: one call of OpenCV per image, because it is slow, and the median of three calls of the others; then the median
over images. What the figures mean:

- `fast_speedup`, `single_speedup`: OpenCV's time at the native size over ours at the default work size;
  `..._same_size`: OpenCV given the image at our work size.
- `core_scaling`: images/s of `propose` on all cores, divided by that on one core and by the number of cores.
- `coverage`: mean best IoU of OpenCV's `fast` boxes with ours, after the paper's filter; `coverage_back`: of
  ours with OpenCV's; `coverage_control`: of OpenCV's with its own on the image saved as JPEG with quality 85.
- `recall`, `opencv_recall`: the share of annotated objects passing the paper's filter that some `fast` box overlaps
  with an IoU of 0.5 or more. `objects`: the same at 0.7, the mean best overlap, and the 95% interval of the paired
  bootstrap (over images) of our mean best overlap minus OpenCV's, for each strategy and size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from machine import machine
from socodet.images.decode import decode_image
from socodet.images.source import ImageSource, open_images
from socodet.proposals.filters import distinct, object_sized
from socodet.proposals.image_boxes import propose_boxes
from socodet.proposals.make_table import propose
from socodet.proposals.selective_search.color_spaces import convert
from socodet.proposals.selective_search.grouping import group
from socodet.proposals.selective_search.regions import describe, pixel_bins
from socodet.proposals.selective_search.search import HUE_WEIGHT, REFERENCE_SIDE, SIGMA, STRATEGIES, selective_search
from socodet.proposals.selective_search.segmentation import segment, sort_edges
from socodet.proposals.selective_search.work_image import shrink, smooth, work_shape
from socodet.proposals.settings import Method, ProposalSettings

try:
    import cv2
    import cv2.ximgproc
except ImportError:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit()
    sys.exit("benchmarks/proposals.py: needs cv2.ximgproc; pip install opencv-contrib-python-headless")

try:
    import dlib
except ImportError:
    dlib = None

Boxes = NDArray[np.float32]
METHODS: tuple[Method, ...] = ("single", "fast")
NATIVE = 1 << 30
REPEATS = 3


def opencv_boxes(bgr: NDArray[np.uint8], method: Method) -> Boxes:
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(bgr)
    search.switchToSelectiveSearchFast() if method == "fast" else search.switchToSingleStrategy()
    boxes: Boxes = search.process().astype(np.float32)  # xywh
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def dlib_boxes(rgb: NDArray[np.uint8]) -> Boxes:
    """Boxes of dlib's find_candidate_object_locations with default settings; its right and bottom are inclusive."""
    found: list[Any] = []
    dlib.find_candidate_object_locations(rgb, found)
    corners = [(b.left(), b.top(), b.right() + 1, b.bottom() + 1) for b in found]
    return np.array(corners, np.float32).reshape(-1, 4)


def kept(boxes: Boxes, width: int, height: int, max_overlap: float = 1.0) -> Boxes:
    """Boxes after the paper's filter; with an overlap of 1 only exact repeats are dropped."""
    good = object_sized(boxes, width, height, ProposalSettings())
    return distinct(boxes[good], max_overlap)


def best_overlaps(objects: NDArray[Any], boxes: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) the largest IoU of each object (N, 4) with a box (M, 4); 0 without boxes."""
    if not len(boxes):
        return np.zeros(len(objects))
    a, b = objects.astype(np.float64), boxes.astype(np.float64)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas_a, areas_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    best: NDArray[np.float64] = (inside / (areas_a[:, None] + areas_b[None] - inside)).max(axis=1)
    return best


# --- speed ------------------------------------------------------------------------------------------------


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(files: list[bytes]) -> dict[str, Any]:
    """Milliseconds per image including decoding, and the ratios of the medians."""
    jobs: dict[str, Callable[[bytes], object]] = {}
    for method in METHODS:
        jobs[method] = partial(our_job, method)
        jobs[f"opencv_{method}"] = partial(opencv_job, method, None)
        jobs[f"opencv_{method}_same_size"] = partial(opencv_job, method, ProposalSettings().work_size)
    if dlib is not None:
        jobs["dlib"] = lambda data: dlib_boxes(decode_image(data))
    for job in jobs.values():
        job(files[0])
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for data in files:
        for name, job in jobs.items():
            repeats = 1 if name.startswith("opencv") else REPEATS
            times[name].append(float(np.median([timed(partial(job, data)) for _ in range(repeats)])))
    medians = {name: 1000 * float(np.median(values)) for name, values in times.items()}
    ratios = {
        f"{m}_speedup{size}": medians[f"opencv_{m}{size}"] / medians[m] for m in METHODS for size in ("", "_same_size")
    }
    return ratios | {"milliseconds": medians}


def our_job(method: Method, data: bytes) -> Boxes:
    return propose_boxes(decode_image(data), ProposalSettings(method))


def opencv_job(method: Method, longest: int | None, data: bytes) -> Boxes:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if longest is not None:
        height, width = work_shape(image.shape[0], image.shape[1], longest)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return opencv_boxes(image, method)


def stages(files: list[bytes], method: Method) -> dict[str, float]:
    """Where the time goes: median milliseconds per image."""
    names = ("decode", "resize", "colors", "sort edges", "segment", "describe", "group")
    totals: list[dict[str, float]] = []
    strategy = STRATEGIES[method]
    for data in files:
        spent = dict.fromkeys(names, 0.0)
        clock = time.perf_counter()

        def lap(name: str, spent: dict[str, float] = spent) -> None:
            nonlocal clock
            now = time.perf_counter()
            spent[name] += now - clock
            clock = now

        image = decode_image(data)
        lap("decode")
        h, w = work_shape(image.shape[0], image.shape[1], ProposalSettings().work_size)
        scale = max(h, w) / REFERENCE_SIDE
        rgb = smooth(shrink(image, h, w), SIGMA * min(1, scale))
        lap("resize")
        for space in strategy.spaces:
            planes = convert(rgb, space)
            lap("colors")
            bins = pixel_bins(planes)
            lap("describe")
            if space == "hsv":
                planes[0] *= HUE_WEIGHT
            edges = sort_edges(planes)
            lap("sort edges")
            for k in strategy.ks:
                labels, regions, pairs = segment(edges, h, w, k, strategy.min_size * scale**2)
                lap("segment")
                described = describe(labels, regions, bins)
                lap("describe")
                for mix in strategy.mixes:
                    group(described, pairs, mix, h * w)
                lap("group")
        totals.append(spent)
    return {name: 1000 * float(np.median([spent[name] for spent in totals])) for name in names}


@dataclass(frozen=True)
class Repeated:
    """A source repeated many times, so that a job of a few images is long enough to time."""

    source: ImageSource
    count: int

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        """A number, since each image appears under several names."""
        return f"{index}"

    def read(self, index: int) -> bytes:
        """The bytes of the image at this position."""
        return self.source.read(index % len(self.source))

    @property
    def location(self) -> str:
        """Where the images are."""
        return self.source.location


def first_call() -> float:
    """Seconds to the first boxes with nothing compiled, in a new process with an empty cache."""
    program = "from socodet.proposals.image_boxes import compile_kernels; compile_kernels('fast')"
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-c", program]
        return timed(lambda: subprocess.run(command, env=environment, check=True))


def core_scaling(source: ImageSource, method: Method, images: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    job = Repeated(source, images)
    rates: dict[int, list[float]] = {1: [], cores: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for workers in rates:
                summary = propose(
                    job,
                    Path(folder) / "table",
                    settings=ProposalSettings(method),
                    workers=workers,
                    overwrite=True,
                    show_progress=False,
                )
                rates[workers].append(images / summary.seconds)
    one, all_cores = (float(np.median(rates[workers])) for workers in (1, cores))
    return {"core_scaling": all_cores / one / cores, "cores": cores, "images_per_second": [one, all_cores]}


# --- quality ----------------------------------------------------------------------------------------------


def boxes_of_image(data: bytes) -> dict[str, Boxes]:
    """The filtered boxes of each method, by name."""
    image = decode_image(data)
    height, width = image.shape[:2]
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    again = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)
    found = {"control": kept(opencv_boxes(again, "fast"), width, height)}
    if dlib is not None:
        found["dlib"] = kept(dlib_boxes(image), width, height)
    for method in METHODS:
        found[f"opencv_{method}"] = kept(opencv_boxes(bgr, method), width, height)
        found[method] = propose_boxes(image, ProposalSettings(method))
        native = selective_search(image, STRATEGIES[method], NATIVE)
        found[f"{method}_native"] = kept(native, width, height, ProposalSettings().max_overlap)
    return found


def agreement(found: list[dict[str, Boxes]]) -> dict[str, float]:
    def mean_best(one: str, other: str) -> float:
        return float(np.mean([best_overlaps(f[one], f[other]).mean() for f in found if len(f[one])]))

    return {
        "coverage": mean_best("opencv_fast", "fast"),
        "coverage_back": mean_best("fast", "opencv_fast"),
        "coverage_control": mean_best("opencv_fast", "control"),
        "coverage_native": mean_best("opencv_fast", "fast_native"),
        "coverage_native_back": mean_best("fast_native", "opencv_fast"),
    }


def counts(found: list[dict[str, Boxes]]) -> dict[str, dict[str, float]]:
    """Boxes per image, those distinct at IoU 0.7, and the number of images without any."""
    table = {}
    for name in found[0]:
        numbers = np.array([len(f[name]) for f in found])
        apart = np.array([len(distinct(f[name], 0.7)) for f in found])
        table[name] = {
            "median": float(np.median(numbers)),
            "fewest": float(numbers.min()),
            "distinct_0.7": float(np.median(apart)),
            "images_with_none": float((numbers == 0).sum()),
        }
    return table


def objects_found(found: list[dict[str, Boxes]], objects: list[NDArray[np.float64]]) -> dict[str, Any]:
    images = [i for i, boxes in enumerate(objects) if len(boxes)]
    overlaps = {
        name: [best_overlaps(objects[i], found[i][name]) for i in images] for name in found[0] if name != "control"
    }
    figures: dict[str, Any] = {}
    sizes = np.array([len(objects[i]) for i in images])
    draws = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 5000)
    for name, per_image in overlaps.items():
        best = np.concatenate(per_image)
        figures[name] = {
            "recall_0.5": float((best >= 0.5).mean()),
            "recall_0.7": float((best >= 0.7).mean()),
            "mean_best_overlap": float(best.mean()),
        }
        if name.removesuffix("_native") in METHODS:
            theirs = overlaps[f"opencv_{name.removesuffix('_native')}"]
            gains = np.array([(a - b).sum() for a, b in zip(per_image, theirs, strict=True)])
            interval = np.percentile(draws @ gains / (draws @ sizes), [2.5, 97.5])
            figures[name]["minus_opencv_95"] = [float(end) for end in interval]
    return {
        "recall": figures["fast"]["recall_0.5"],
        "opencv_recall": figures["opencv_fast"]["recall_0.5"],
        "objects": figures | {"count": int(sizes.sum()), "images": len(images)},
    }


def annotated_objects(annotations: Path, source: ImageSource, indices: range) -> list[NDArray[np.float64]]:
    """The boxes of each image's annotated objects that pass the paper's filter, crowds left out."""
    coco = json.loads(annotations.read_text())
    images = {image["id"]: image for image in coco["images"]}
    by_name: dict[str, list[list[float]]] = {}
    for annotation in coco["annotations"]:
        if not annotation.get("iscrowd"):
            x, y, w, h = annotation["bbox"]
            by_name.setdefault(images[annotation["image_id"]]["file_name"], []).append([x, y, x + w, y + h])
    shapes = {image["file_name"]: (image["width"], image["height"]) for image in coco["images"]}
    objects = []
    for index in indices:
        boxes = np.array(by_name.get(source.key(index), [])).reshape(-1, 4)
        shape = shapes.get(source.key(index), (1, 1))
        objects.append(boxes[object_sized(boxes, *shape, ProposalSettings())])
    return objects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--annotations", type=Path, help="COCO instances file for these images; adds recall")
    parser.add_argument("--limit", type=int, help="only the first N images")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    source = open_images(arguments.images)
    indices = range(min(len(source), arguments.limit or len(source)))
    files = [source.read(index) for index in indices]
    result: dict[str, Any] = {"machine": machine(), "images": len(files), "opencv": cv2.__version__}
    result["first_call_seconds"] = first_call()
    result |= speed(files)
    result["stages"] = {method: stages(files, method) for method in METHODS}
    result |= core_scaling(source, "single", 512)
    found = [boxes_of_image(data) for data in files]
    result |= agreement(found) | {"boxes": counts(found), "recall": None, "opencv_recall": None}
    if arguments.annotations is not None:
        result |= objects_found(found, annotated_objects(arguments.annotations, source, indices))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
