"""A detector over a set: what it finds in every picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from socodet.detection.datasets import DetectionDataset
from socodet.detection.datasets.masks import encode_masks
from socodet.detection.scores import Detections
from socodet.errors import InputError
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import ALONE, World
from socodet.training.loop import loader_batches
from socodet.training.workers import start_worker

MASK_THRESHOLD = 0.5


class _Pictures(Dataset[tuple[int, Tensor | None]]):
    def __init__(self, dataset: DetectionDataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> tuple[int, Tensor | None]:
        index = self._indices[place]
        try:
            return index, torch.from_numpy(self._dataset.picture(index)).permute(2, 0, 1)
        except InputError:
            return index, None


def _alone(samples: list[tuple[int, Tensor | None]]) -> tuple[int, Tensor | None]:
    return samples[0]


@torch.no_grad()
def detect(
    detector: nn.Module,
    dataset: DetectionDataset,
    *,
    precision: torch.dtype = torch.float32,
    workers: int = 0,
    world: World = ALONE,
    show_progress: bool = False,
) -> tuple[dict[int | str, Detections], list[str]]:
    """Detections of every picture by its id, and the files that could not be read, in which nothing was found.

    One picture at a time, at its own size. Every process takes its share of them, and all get all. The detector's
    mode is restored.
    """
    device = next(detector.parameters()).device
    indices = range(world.rank, len(dataset), world.size)
    loader: DataLoader[Any] = DataLoader(
        _Pictures(dataset, indices),
        batch_size=1,
        collate_fn=_alone,
        num_workers=workers,
        worker_init_fn=start_worker,
    )
    was_training = detector.training
    detector.eval()
    found: dict[int | str, Detections] = {}
    unreadable: list[str] = []
    with progress_bar("evaluate", len(indices), show=show_progress and world.is_first) as progress:
        for index, picture in loader_batches(loader):
            if picture is None:
                unreadable.append(str(dataset.images[index].file))
            else:
                with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                    answer = detector([picture.to(device).float() / 255])[0]
                found[dataset.images[index].image_id] = as_detections(answer)
            progress.advance()
    detector.train(was_training)
    if world.size > 1:
        shares: list[Any] = [None] * world.size
        dist.all_gather_object(shares, (found, unreadable))  # type: ignore[no-untyped-call]
        found = {image_id: one for share, _ in shares for image_id, one in share.items()}
        unreadable = [file for _, files in shares for file in files]
    return found, unreadable


def as_detections(answer: dict[str, Tensor]) -> Detections:
    """A detector's answer to one picture; what a single-stage detector says of the background is left out."""
    kept = answer["labels"] > 0
    masks = None
    if "masks" in answer:
        masks = encode_masks((answer["masks"][kept, 0] > MASK_THRESHOLD).cpu().numpy())
    return Detections(
        answer["boxes"][kept].cpu().numpy().astype(np.float32),
        answer["scores"][kept].cpu().numpy().astype(np.float32),
        answer["labels"][kept].cpu().numpy().astype(np.int64),
        masks,
    )
