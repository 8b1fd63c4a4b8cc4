"""ONNX: a detector as one graph, from the pixels of images to boxes, scores, labels and masks.

The graph is written by torch's TorchScript exporter, because the newer exporter cannot follow the data-dependent
selection of boxes (PyTorch 2.14).
"""

import io
import json
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from socodet.deployment.onnx_graphs import graph_of
from socodet.deployment.onnx_steps import make_traceable, prepare_images
from socodet.detection.detectors.by_name import detector_named
from socodet.detection.detectors.rt_detr import RTDETR
from socodet.detection.detectors.transform import DetectorTransform
from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, python_string
from socodet.finetuning.detector import TrainedDetector
from socodet.models.backbone_names import RESNETS
from socodet.models.backbones import stage_outputs

OPSET = 17
"""RoiAlign is half-pixel aligned from opset 16 on."""
TRACED_BATCH, TRACED_SIZE = 2, (96, 128)
"""Number, height and width of the images that the network is traced with; the graph takes any."""
OTHER_BATCH, OTHER_SIZES = 3, ((224, 448), (160, 96))
"""Number and sizes of images with which a traced backbone is checked: its maps must equal the original's."""
TOLERANCE = 1e-3
"""Relative to the largest value of a map."""
LARGEST = 2**31 - 2**24
"""Maximum bytes of weights: an ONNX file holds 2 GiB, some of which the graph itself needs."""


def onnx_files(detector: TrainedDetector, output: Path) -> FrameworkFiles:
    """One file that contains the weights. InputError if the package onnx is not installed."""
    has_masks = detector_named(detector.recipe.settings.detector).has_masks
    masks = ", masks" if has_masks else ""
    how_many = (
        "any number of images of one size"
        if _graph(detector).takes_batches
        else "one image: this detector pools boxes image by image, so batch is 1"
    )
    suppression = "" if isinstance(detector.network, RTDETR) else " Non-maximum suppression is inside."
    return FrameworkFiles(
        weights={output: onnx_bytes(detector)},
        left_out={output: ()},
        how_to_load=(
            "import json\n\nimport numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
            f"session = onnxruntime.InferenceSession({python_string(output.name)})\n"
            'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])\n'
            'image = np.asarray(ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB"))\n'
            "images = image[None]  # (batch, height, width, 3)\n"
            f'boxes, scores, labels, of_image{masks} = session.run(None, {{"images": images}})\n'
            "names = [classes[label - 1] for label in labels]"
        ),
        notes=(
            f"Input `images`: uint8 (batch, height, width, 3), RGB, of any height and width; {how_many}. Scaling and "
            "normalisation are inside.",
            "Outputs for the N objects in all images: `boxes` float32 (N, 4), xyxy in pixels of the image; `scores` "
            "float32 (N,); `labels` int64 (N,), 1 is the first class; `of_image` int64 (N,), the index of the object's "
            f"image in the batch{'; `masks` bool (N, height, width)' if has_masks else ''}.{suppression}",
            f"Opset {OPSET}; class names are in the file's metadata under `classes`.",
        ),
    )


def onnx_bytes(detector: TrainedDetector) -> bytes:
    """The graph: `images` uint8 (B, H, W, 3) RGB → `boxes` (N, 4), `scores`, `labels`, `of_image` (N,), and `masks`.

    Boxes are xyxy in pixels of the image; label 1 is the first class, as in torchvision; `of_image` is an index into
    the batch; `masks` is (N, H, W). H and W are free, and so is B if the detector allows it. Class names are in the
    metadata `classes`, a JSON list. InputError if the package onnx is not installed, and for a detector that ONNX
    cannot hold.
    """
    onnx = _package()
    device = next(detector.parameters()).device
    name = detector.recipe.settings.detector
    graph = _graph(detector)
    size = sum(tensor.nbytes for tensor in detector.network.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{detector.run}: --format onnx: its weights have {size:,} bytes, but one ONNX file holds 2 GiB; "
            "fine-tune with a smaller backbone, or use load_detector"
        )
    has_masks = detector_named(name).has_masks
    names = ["boxes", "scores", "labels", "of_image", *(["masks"] if has_masks else [])]
    free: dict[str, dict[int, str]] = {name: {0: "objects"} for name in names}
    free["images"] = {1: "height", 2: "width", **({0: "batch"} if graph.takes_batches else {})}
    if has_masks:
        free["masks"] |= {1: "height", 2: "width"}
    shape = (TRACED_BATCH if graph.takes_batches else 1, *TRACED_SIZE, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    written = io.BytesIO()
    with make_traceable(detector.network), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's about constant sizes, and that the exporter is outdated
        _check_backbone(detector, pixels.to(device), OTHER_BATCH if graph.takes_batches else 1)
        try:
            torch.onnx.export(
                graph,
                (pixels.to(device),),
                cast(Any, written),
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=names,
                dynamic_axes=free,
            )
        except (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{detector.run}: --format onnx: torch cannot write a step of it ({reason}); use load_detector"
            ) from error
    model = onnx.load_from_string(written.getvalue())
    for key, value in {"classes": json.dumps(detector.class_names), "detector": name}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


class _FeatureMaps(nn.Module):
    """A backbone's feature maps as a tuple, which tracing needs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(stage_outputs(self.body, images))


def _check_backbone(detector: TrainedDetector, pixels: Tensor, batch: int) -> None:
    """InputError for a backbone that computes with sizes outside torch, as MobileViT does.

    A trace turns these sizes into constants, so for images of other sizes it fails or gives wrong maps.
    """
    name, network = detector.recipe.model.backbone, detector.network
    body = getattr(getattr(network, "backbone", None), "body", None)
    if name in RESNETS or body is None:  # RT-DETR takes squares of one size
        return
    maps = _FeatureMaps(body)
    padded, *_ = prepare_images(cast(DetectorTransform, network.transform), pixels)
    traced = torch.jit.trace(maps, padded, check_trace=False)  # type: ignore[no-untyped-call]
    for size in OTHER_SIZES:
        images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(pixels.device)
        right = maps(images)
        try:
            found = traced(images)
        except RuntimeError:  # tensor shapes that do not match
            found = ()
        if len(found) != len(right) or not all(map(_are_equal, found, right)):
            raise InputError(
                f"{detector.run}: --format onnx: a graph of the backbone {name} fits only images of one size, because "
                "it computes with sizes outside torch; use load_detector, or fine-tune with another backbone"
            )


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * other.abs().max())


def _graph(detector: TrainedDetector) -> nn.Module:
    graph = graph_of(detector.network)
    if graph is None:
        raise InputError(
            f"{detector.run}: --format onnx does not support {detector.recipe.settings.detector}; use load_detector"
        )
    return graph


def _package() -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError("--format onnx needs the package onnx; pip install 'socodet[onnx]'") from None
    return onnx
