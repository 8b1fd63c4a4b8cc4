"""A fine-tuned detector, ready to use: `load_detector`."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.masks import decode_rle
from socodet.detection.detectors.by_name import new_detector
from socodet.detection.inference import detect_each
from socodet.detection.scores import Detections
from socodet.errors import ArgumentError, InputError
from socodet.finetuning.input_images import AnyImage, as_pixels, check_tensors, refuse_missing
from socodet.finetuning.inputs import check_limits
from socodet.finetuning.run import FinetuneRecipe, best_f1, load_weights, trained_categories
from socodet.finetuning.trainer import scored_weights
from socodet.images.reading import PLAIN
from socodet.images.truncated import TRUNCATED
from socodet.runtime.log import LOGGER
from socodet.runtime.shown import Shown, ShownTable
from socodet.runtime.world import world_from_environment
from socodet.training.checkpoint_file import SAFETENSORS
from socodet.training.devices import autocast_type, choose_device
from socodet.training.run_folder import Checkpoint, RunFolder
from socodet.weights.hub import reads_hub


@dataclass(frozen=True, eq=False)
class FoundObjects(Shown):
    """What a detector found in one image: N objects, highest score first."""

    boxes: NDArray[np.float32]
    """(N, 4) xyxy in pixels of the original image; right and bottom are exclusive."""
    scores: NDArray[np.float32]
    """(N,) in [0, 1]."""
    labels: tuple[str, ...]
    """N class names."""
    masks: NDArray[np.bool_] | None
    """(N, H, W); None from a detector that predicts boxes only."""

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        found = ", ".join(f"{label} {score:.2f}" for label, score in zip(self.labels, self.scores, strict=True))
        return f"{self.headline()}: {found}" if found else self.headline()

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dict per object: `label`, `score` and the corners `x1`, `y1`, `x2`, `y2`, as in predictions.csv."""
        return [
            {"label": label, "score": score, **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
            for label, score, box in zip(self.labels, self.scores.tolist(), self.boxes.tolist(), strict=True)
        ]

    def headline(self) -> str:
        """The number of objects."""
        return f"{len(self)} object{'s' * (len(self) != 1)}"

    def shown(self) -> list[ShownTable]:
        """Label, score and box of each object."""
        boxes = (", ".join(f"{side:.0f}" for side in box) for box in self.boxes)
        rows = [(*row,) for row in zip(self.labels, (f"{score:.2f}" for score in self.scores), boxes, strict=True)]
        return [ShownTable(rows, ("object", "score", "box (xyxy, pixels)"))]


class TrainedDetector(nn.Module):
    """The detector of a fine-tuning run in evaluation mode, with its class names.

    `predict` takes images of any size as files, PIL images or arrays. Called like a torchvision detector with a list of
    (3, H, W) tensors of RGB in [0, 1], it returns boxes, labels (1 is the first class) and scores. To train further,
    use the module `network`.
    """

    if TYPE_CHECKING:  # nn.Module's __call__ returns Any

        def __call__(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            """Same as `forward`."""
            ...

    def __init__(
        self, network: nn.Module, recipe: FinetuneRecipe, categories: Sequence[Category], step: int, run: Path
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.recipe = recipe
        """Detector, module sizes and schedule that it was trained with."""
        self.categories = tuple(categories)
        self.step = step
        """Number of steps it was trained for."""
        self.run = run
        self.pixel_reading = PLAIN
        """How its training images were read."""
        self.f1_limit: float | None = None
        """The score threshold that gave the highest F1 on the validation set; None if it was not scored."""
        self.best_f1: float | None = None
        """F1 at that threshold, in percent."""
        self.precision = torch.float32
        """What `predict` computes in: float32, or the type that autocast uses."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels, label 1 first."""
        return tuple(category.name for category in self.categories)

    def extra_repr(self) -> str:
        """Additional text for its repr."""
        return (
            f"{self.recipe.settings.detector} of {self.run}, step {self.step:,}, classes: {', '.join(self.class_names)}"
        )

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Same as torchvision's detectors in evaluation mode. ArgumentError for input that these do not take."""
        check_tensors(images)
        self._check_evaluating()
        answer: list[dict[str, Tensor]] = self.network(images) if images else []
        return answer

    def check_ready(self) -> None:
        """InputError unless it is in evaluation mode with float32 weights, as `predict` requires."""
        self._check_evaluating()
        kinds = {str(tensor.dtype) for tensor in self.network.parameters() if tensor.dtype != torch.float32}
        if kinds:
            raise InputError(
                f"the detector's weights are {' and '.join(sorted(kinds))}, but predict needs float32; call "
                'detector.float(). For speed, load_detector(..., precision="bfloat16") computes in half precision'
            )

    def _check_evaluating(self) -> None:
        if self.network.training:
            raise InputError(
                "the detector is in training mode; call detector.eval(). To train it, call detector.network with "
                "images and targets"
            )

    def predict(
        self,
        images: Iterable[AnyImage],
        *,
        min_score: float = 0.0,
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> list[FoundObjects]:
        """The objects in each image with a score of at least `min_score`, at most `max_detections` per image.

        images: paths, bytes of image files, PIL images, or uint8 arrays (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey;
        transparent parts become white. Images are read when they are needed, `batch_size` at a time. min_score: the
        default keeps everything that the detector returns, whereas `socodet.predict` drops scores below 0.05.
        InputError for an image that cannot be read.
        """
        check_limits(min_score, max_detections, batch_size)
        self.check_ready()
        single = isinstance(images, str | os.PathLike | bytes | Image.Image | np.ndarray | Tensor | Mapping)
        if single or not isinstance(images, Iterable):
            how = "; for an array of several images, list(array)" if getattr(images, "ndim", 0) == 4 else ""
            raise ArgumentError(f"predict takes a list of images; put a single one into a list{how}")
        if isinstance(images, Sequence):
            refuse_missing(images)
        found: list[FoundObjects] = []
        places = iter(enumerate(images))
        while some := list(islice(places, batch_size)):  # all together may not fit into memory
            pixels = [as_pixels(image, self.pixel_reading, f"images[{place}]") for place, image in some]
            for index, answer in detect_each(
                self.network, pixels.__getitem__, range(len(pixels)), batch_size=batch_size, precision=self.precision
            ):
                if isinstance(answer, str):
                    raise InputError(f"image {some[index][0]}: {answer}")
                found.append(self._named(select_detections(answer, min_score, max_detections), pixels[index].shape[:2]))
        TRUNCATED.report()
        return found

    def _named(self, found: Detections, size: tuple[int, ...]) -> FoundObjects:
        masks = None
        if found.masks is not None:
            masks = np.stack([decode_rle(mask).astype(bool) for mask in found.masks] or [np.empty(size, bool)])
            masks = masks[: len(found)]
        labels = tuple(self.class_names[label - 1] for label in found.labels)
        return FoundObjects(found.boxes, found.scores, labels, masks)


@reads_hub("run")
def load_detector(
    run: str | Path,
    *,
    checkpoint: Checkpoint = "best",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
) -> TrainedDetector:
    """Loads the detector of a fine-tuning run, the same one that `finetune` and `evaluate` score.

    checkpoint: `best` loads the weights with the highest AP on the validation set if the run was evaluated during
    training, otherwise the newest; `last` loads the newest. Each of several processes loads onto its own device.
    InputError when `run` is not a fine-tuning run or has no checkpoint yet.
    """
    folder = RunFolder(Path(run))
    recipe, trained = FinetuneRecipe.of_run(folder), trained_categories(folder)
    state, is_best = load_weights(folder, checkpoint)
    resumable = not is_best and folder.checkpoints()[-1].suffix != SAFETENSORS  # a run from the Hub is not
    if checkpoint == "best" and resumable and state["step"] < recipe.schedule.iterations:
        of = f"{state['step']:,} of {recipe.schedule.iterations:,} steps"
        LOGGER.warning(f"note: {folder.path}: stopped after {of}; repeat its command to go on")
    classes = len(trained.categories) + 1
    network = new_detector(recipe.settings.detector, recipe.model, classes, inference=recipe.inference)
    network.load_state_dict(scored_weights(state))
    where = choose_device(device, world_from_environment(rendezvous=False))
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    detector = TrainedDetector(network, recipe, trained.categories, state["step"], folder.path)
    detector.pixel_reading = trained.pixel_reading
    detector.f1_limit, detector.best_f1 = best_f1(folder, detector.step)
    detector.precision = autocast_type(precision, where)
    return detector


def select_detections(found: Detections, min_score: float, max_detections: int | None) -> Detections:
    """The detections with a score of at least `min_score`, highest first, at most `max_detections`."""
    best = found.best(len(found) if max_detections is None else max_detections)
    return best.take(np.flatnonzero(best.scores >= min_score))
