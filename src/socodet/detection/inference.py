"""Runs a detector on many images."""

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.masks import RLE, encode_masks, placed_mask
from socodet.detection.detectors.transform import Answer, DetectorTransform, paste_masks, scaled_size
from socodet.detection.scores import Detections
from socodet.errors import InputError
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import ALONE, World
from socodet.training.distributed import StopFlag, agree_flags
from socodet.training.learner import StoppedEarlyError
from socodet.training.workers import Begin, make_batches

MASK_THRESHOLD = 0.5
WINDOW = 16
"""Number of consecutive images within which images of the same size are grouped."""
TOGETHER = {"cpu": 2**20, "cuda": 2**22}
"""Maximum number of pixels, before and after scaling, that go through a detector together."""

Read = Callable[[int], NDArray[np.uint8]]
"""Reads the pixels of image `index`, (H, W, 3) RGB; InputError or OSError when it cannot."""


@dataclass(frozen=True)
class _Reader:
    """Decodes images by index, or gives the reason why one cannot be read."""

    read: Read

    def __call__(self, indices: Sequence[int], begin: Begin) -> list[tuple[int, Tensor | str]]:
        return [(index, self._image(index, begin)) for index in indices]

    def _image(self, index: int, begin: Begin) -> Tensor | str:
        begin(f"image number {index}")
        try:
            pixels = np.require(self.read(index), requirements="W")  # torch warns about read-only memory
            return torch.from_numpy(pixels).permute(2, 0, 1)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"


def bytes_together(dataset: DetectionDataset) -> float:
    """About how many bytes of images a worker reads at a time when the dataset is scored."""
    some = dataset.images[:: max(1, len(dataset) // WINDOW**2)]
    return 3 * WINDOW * sum(image.width * image.height for image in some) / max(1, len(some))


@torch.no_grad()
def detect_each(
    detector: nn.Module,
    read: Read,
    indices: Sequence[int],
    *,
    batch_size: int | None = 1,
    precision: torch.dtype = torch.float32,
    workers: int = 0,
) -> Generator[tuple[int, Detections | str], None, None]:
    """Runs a detector in evaluation mode on each image; yields (index, detections) in the order of `indices`.

    If an image cannot be read, the reason takes the place of its detections. Images of a batch are padded to the
    largest of them, so boxes can differ slightly from those of one image at a time. Without a batch size, only images
    of the same size go through the detector together, and boxes are the same up to rounding. `read` runs in `workers`
    processes (0: in this one).
    """
    device = next(detector.parameters()).device
    asked = _with_small_masks(detector)
    window = batch_size or WINDOW
    batches = (indices[first : first + window] for first in range(0, len(indices), window))
    for batch in make_batches(_Reader(read), batches, workers):
        images = {index: image for index, image in batch if isinstance(image, Tensor)}
        groups = _same_size_groups(images, detector, device) if batch_size is None else [list(images)]
        found: dict[int, Detections] = {}
        for index, image in batch:
            if not isinstance(image, Tensor):
                yield index, image
                continue
            if index not in found:
                (group,) = [group for group in groups if index in group]
                with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                    answers = asked([images[k].to(device).float() / 255 for k in group])
                _check_outputs(detector, answers, len(group))
                for k, answer in zip(group, answers, strict=True):
                    found[k] = as_detections(answer, None if asked is detector else tuple(images[k].shape[1:]))
            yield index, found.pop(index)


def _check_outputs(detector: nn.Module, answers: Any, count: int) -> None:
    """InputError unless these are valid answers for `count` images, because a user's network may return anything."""
    wanted = {"boxes", "scores", "labels"}
    right = isinstance(answers, list) and all(isinstance(one, dict) and wanted <= one.keys() for one in answers)
    if not right or len(answers) != count:
        raise InputError(
            f"{type(detector).__name__}: in evaluation mode a detector must return a list with one dict per image, "
            "with boxes, scores and labels"
        )


class _SmallMasks(nn.Module):
    """A transform that leaves masks (N, 1, M, M) as the mask head gives them; pasted masks would fill the memory."""

    def __init__(self, transform: DetectorTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, *inputs: Any) -> Any:
        return self.transform(*inputs)

    def postprocess(self, result: list[Answer], *sizes: Any) -> list[Answer]:
        return self.transform.postprocess(result, *sizes, paste=False)


def _with_small_masks(detector: nn.Module) -> nn.Module:
    """A copy of our own detector that shares its modules but uses `_SmallMasks`; any other detector is unchanged."""
    transform = getattr(detector, "_modules", {}).get("transform")
    if not isinstance(transform, DetectorTransform):
        return detector
    other = copy.copy(detector)  # the original is unchanged, as another thread may be using it
    other.__dict__["_modules"] = {**detector._modules, "transform": _SmallMasks(transform)}
    return other


def _same_size_groups(images: dict[int, Tensor], detector: nn.Module, device: torch.device) -> list[list[int]]:
    """The images' indices, in groups of equal size that stay within `TOGETHER`."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, image in images.items():
        by_size.setdefault((image.shape[1], image.shape[2]), []).append(index)
    groups = []
    for (height, width), alike in by_size.items():
        pixels = height * width  # the size of masks
        if isinstance(transform := getattr(detector, "transform", None), GeneralizedRCNNTransform):
            pixels = max(pixels, math.prod(scaled_size((height, width), transform.min_size[-1], transform.max_size)))
        most = max(1, TOGETHER[device.type] // pixels)
        groups += [alike[first : first + most] for first in range(0, len(alike), most)]
    return groups


def detect(
    detector: nn.Module,
    dataset: DetectionDataset,
    *,
    precision: torch.dtype = torch.float32,
    workers: int = 0,
    world: World = ALONE,
    show_progress: bool = False,
    stop: Sequence[str] = (),
) -> tuple[dict[int | str, Detections], list[tuple[str, str]]]:
    """Detections of every image by its id, and the files that could not be used, with the reason; these have none.

    Images of the same size go through the detector together. Every process takes its share of the images and gets all
    results. The detector's mode is restored. Raises StoppedEarlyError in every process once the list `stop` of one of
    them has an element.
    """
    indices = range(world.rank, len(dataset), world.size)
    was_training = detector.training
    detector.eval()
    found: dict[int | str, Detections] = {}
    unreadable: list[tuple[str, str]] = []
    flag = StopFlag(world)
    with (
        progress_bar("evaluate", len(indices), show=show_progress and world.is_first) as progress,
        closing(
            detect_each(detector, dataset.pixels, indices, batch_size=None, precision=precision, workers=workers)
        ) as answers,
    ):
        for index, answer in answers:
            if isinstance(answer, str):
                file = str(dataset.images[index].file)
                unreadable.append((file, answer.removeprefix(f"{file}: ")))
            else:
                found[dataset.images[index].image_id] = answer
            progress.advance()
            if flag.is_set(bool(stop)):
                break
    detector.train(was_training)
    if agree_flags(world, (bool(stop),))[0]:
        raise StoppedEarlyError
    if world.size > 1:
        shares: list[Any] = [None] * world.size
        dist.all_gather_object(shares, (found, unreadable))  # type: ignore[no-untyped-call]
        found = {image_id: one for share, _ in shares for image_id, one in share.items()}
        unreadable = [one for _, some in shares for one in some]
    return found, unreadable


def as_detections(answer: Answer, size: tuple[int, ...] | None = None) -> Detections:
    """A detector's answer for one image as detections, without those that a single-stage detector labels background.

    size: the image's (height, width), if masks still have to be pasted into it.
    """
    kept = answer["labels"] > 0
    masks = _encode_masks(answer["masks"][kept], answer["boxes"][kept], size) if "masks" in answer else None
    return Detections(
        answer["boxes"][kept].cpu().numpy().astype(np.float32),
        answer["scores"][kept].cpu().numpy().astype(np.float32),
        answer["labels"][kept].cpu().numpy().astype(np.int64),
        masks,
    )


def _encode_masks(masks: Tensor, boxes: Tensor, size: tuple[int, ...] | None) -> list[RLE]:
    """Run lengths of masks (N, 1, …), encoded one at a time."""
    if size is None:
        return [encode_masks((mask > MASK_THRESHOLD).cpu().numpy())[0] for mask in masks]
    height, width = size
    bounds, encoded = torch.tensor([width, height]), []
    for mask, box in zip(masks.cpu(), boxes.float().cpu(), strict=True):
        # Outside its box, a pasted mask is below 0.5.
        low, high = box[:2].floor().long().clamp(min=0), box[2:].ceil().long().minimum(bounds)
        columns, rows = (high - low).clamp(min=0).tolist()
        pasted = paste_masks(mask[None], (box - low.repeat(2))[None], (rows, columns))[0, 0]
        encoded.append(placed_mask((pasted > MASK_THRESHOLD).numpy(), low.tolist(), height, width))
    return encoded
