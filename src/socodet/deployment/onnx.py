"""ONNX: a detector as one graph, from the pixels of an image to boxes, scores, labels and masks.

Written by torch's TorchScript exporter: the newer one follows no data-dependent selection of boxes (PyTorch 2.14).
"""

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from socodet.detection.detectors import detector_named
from socodet.detection.detectors.rt_detr import RTDETR
from socodet.detection.detectors.transform import DetectorTransform
from socodet.detection.inference import MASK_THRESHOLD
from socodet.errors import InputError
from socodet.export.files import FrameworkFiles
from socodet.finetuning.detector import TrainedDetector

OPSET = 17
"""RoiAlign is half-pixel aligned from 16 on."""
TRACED_SIZE = (96, 128)
"""Height and width of the image that the network is traced with; the graph takes any."""


def onnx_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """One file, weights inside. InputError for another suffix than .onnx, and without the package onnx."""
    if output.suffix != ".onnx":
        raise InputError(f"{output}: an ONNX file ends in .onnx; name it so")
    has_masks = detector_named(detector.recipe.settings.detector).has_masks
    masks = ", masks" if has_masks else ""
    return FrameworkFiles(
        weights={output: onnx_bytes(detector)},
        left_out={output: ()},
        how_to_load=(
            "import json\n\nimport numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
            f'session = onnxruntime.InferenceSession("{output.name}")\n'
            'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])\n'
            'image = np.asarray(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB"))\n'
            f'boxes, scores, labels{masks} = session.run(None, {{"image": image}})\n'
            "names = [classes[label - 1] for label in labels]"
        ),
        notes=(
            "Input `image`: uint8 (height, width, 3), RGB, of any size; one at a time, as boxes are selected image by "
            "image. Scaling and normalisation are inside.",
            "Outputs: `boxes` float32 (N, 4), xyxy in pixels of that image; `scores` float32 (N,); `labels` int64 "
            f"(N,), 1 is the first class{'; `masks` bool (N, height, width)' if has_masks else ''}. Non-maximum "
            "suppression is inside.",
            f"Opset {OPSET}; class names are in the file's metadata, `classes`.",
        ),
    )


def onnx_bytes(detector: TrainedDetector) -> bytes:
    """The graph: `image` uint8 (H, W, 3) RGB → `boxes` (N, 4), `scores` (N,), `labels` (N,), and `masks` (N, H, W).

    Boxes are xyxy in pixels of the image, label 1 is the first class, as in torchvision; H and W are free. Class names
    are in the metadata `classes`, a JSON list. InputError without the package onnx.
    """
    onnx = _package()
    device = next(detector.parameters()).device
    name = detector.recipe.settings.detector
    graph = _graph_of(detector)
    has_masks = detector_named(name).has_masks
    names = ["boxes", "scores", "labels", *(["masks"] if has_masks else [])]
    free: dict[str, dict[int, str]] = {name: {0: "objects"} for name in names}
    free["image"] = {0: "height", 1: "width"}
    if has_masks:
        free["masks"] |= {1: "height", 2: "width"}
    pixels = torch.randint(0, 256, (*TRACED_SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    written = io.BytesIO()
    with _traceable(detector.network), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, about sizes that are constants, and of the exporter's age
        torch.onnx.export(
            graph,
            (pixels.to(device),),
            cast(Any, written),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_axes=free,
        )
    model = onnx.load_from_string(written.getvalue())
    for key, value in {"classes": json.dumps(detector.class_names), "detector": name}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


class _Graph(nn.Module):
    """A detector of one image, as the graph has it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_hw3: Tensor) -> tuple[Tensor, ...]:
        """uint8 (H, W, 3) → boxes, scores, labels and perhaps masks."""
        (found,) = self.network([image_hw3.permute(2, 0, 1).float() / 255])
        kept = torch.nonzero(found["labels"] > 0).squeeze(1)  # single-stage detectors have an output for background
        answer = tuple(found[name][kept] for name in ("boxes", "scores", "labels"))
        return (*answer, found["masks"][kept, 0] > MASK_THRESHOLD) if "masks" in found else answer


class _SquareGraph(nn.Module):
    """RT-DETR of one image, which it sees as a square."""

    def __init__(self, network: RTDETR) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_hw3: Tensor) -> tuple[Tensor, ...]:
        """uint8 (H, W, 3) → boxes, scores, labels."""
        image = image_hw3.permute(2, 0, 1).float() / 255
        sides, side = torch._shape_as_tensor(image)[-2:], torch.tensor(self.network.side)
        rows, columns = (_interpolation(sides[axis], side) for axis in (0, 1))
        (found,) = self.network([rows @ image @ columns.T])
        scale = (sides.flip(0).float() / side).repeat(2)
        return found["boxes"] * scale, found["scores"], found["labels"]


def _graph_of(detector: TrainedDetector) -> nn.Module:
    """InputError for a network that neither is made of torchvision's parts nor is RT-DETR."""
    network = detector.network
    if isinstance(network, RTDETR):
        return _SquareGraph(network).eval()
    if isinstance(getattr(network, "transform", None), DetectorTransform):
        return _Graph(network).eval()
    raise InputError(f"{detector.run}: --format onnx knows no {detector.recipe.settings.detector}; use load_detector")


class _TracedTransform(DetectorTransform):
    """The same transform of tensors alone: its sizes are no constants of the graph."""

    def __init__(self, original: DetectorTransform) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(original.__dict__)

    def resize(self, image: Tensor, target: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any] | None]:
        """An image (3, H, W) scaled to the detector's size."""
        sides = torch._shape_as_tensor(image)[-2:]
        scale = torch.minimum(self.min_size[-1] / sides.min().double(), self.max_size / sides.max().double())
        size = (sides.double() * scale).round().clamp(min=1).long()
        rows, columns = (_interpolation(sides[axis], size[axis]) for axis in (0, 1))
        return rows @ image @ columns.T, target


def _interpolation(before: Tensor, after: Tensor) -> Tensor:
    """(after, before): each new pixel of an axis as a mean of old ones, as torch's antialiased bilinear interpolation.

    A triangle around the new pixel's centre, as wide as two of the new pixels or two of the old, whichever are wider.
    onnxruntime's own antialiased Resize gives other values (1.32).
    """
    scale = before.float() / after.float()
    new, old = (torch.arange(cast(int, side)) + 0.5 for side in (after, before))  # of tensors, so that a trace follows
    distance = old[None] - (new * scale)[:, None]
    weights = (1 - distance.abs() / scale.clamp(min=1)).clamp(min=0)
    normalised: Tensor = weights / weights.sum(1, keepdim=True)
    return normalised


@contextmanager
def _traceable(network: nn.Module) -> Iterator[None]:
    """With a transform that can be traced."""
    original = getattr(network, "transform", None)
    if not isinstance(original, DetectorTransform):
        yield
        return
    network.transform = _TracedTransform(original)
    try:
        yield
    finally:
        network.transform = original


def _package() -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError("--format onnx needs the package onnx; pip install 'socodet[onnx]'") from None
    return onnx
