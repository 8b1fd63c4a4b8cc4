"""A backbone's batch norm statistics on images as a detector sees them, for frameworks that freeze these statistics."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from socodet.errors import InputError, UnreadableImageError
from socodet.exporting.modules import PretrainedModules
from socodet.images.reading import PLAIN, read_images_like
from socodet.images.source import Images, ImageSource, as_source, full_location, open_images, read_pixels
from socodet.models.backbones import build_backbone, stage_outputs
from socodet.models.normalization import normalize
from socodet.runtime.progress import progress_bar
from socodet.training.precise_bn import reestimate_statistics
from socodet.training.run_folder import RunFolder

BATCH = 8
SIDE = 640
"""Images are scaled to this height and width: RT-DETR's input size, within the range that DETR trains on."""


def backbone_statistics(
    modules: PretrainedModules, images: Images | None, count: int, *, side: int = SIDE, show_progress: bool = False
) -> tuple[dict[str, Tensor], str] | None:
    """A backbone's running means and variances by plain name, and a description of where they come from.

    They are estimated on at most `count` images, evenly spaced over `images`; None for count 0. By default, `images`
    are those that the run was pretrained on; a file of weights without images keeps its statistics (None). Each batch
    is normalised by its own statistics, see `reestimate_statistics`. InputError when no image can be read.
    """
    if count == 0:
        return None
    source = _source(modules, images)
    if source is None:
        return None
    body, _ = build_backbone(modules.settings.backbone)
    state = {name.removeprefix("body."): value for name, value in modules.tensors.items() if name.startswith("body.")}
    body.load_state_dict(state, strict=False)  # older files lack batch norm's counters
    chosen = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int))
    read = 0
    with progress_bar("batch norm", len(chosen), show=show_progress) as progress:

        def batches() -> Iterator[Tensor]:
            nonlocal read
            for batch in _batches(source, chosen.tolist(), side):
                yield batch
                read += len(batch)
                progress.advance(len(batch))

        reestimate_statistics(body, lambda batch: stage_outputs(body, normalize(batch)), batches())
    if not read:
        raise InputError(f"{source.location}: none of {len(chosen)} images can be read; give others with --images")
    tensors = {f"body.{name}": value for name, value in body.state_dict().items() if "running_" in name}
    return tensors, f"re-estimated on {read} images at {side}x{side} pixels, from {Path(source.location).name}"


def _source(modules: PretrainedModules, images: Images | None) -> ImageSource | None:
    run = RunFolder(Path(modules.source)) if Path(modules.source).is_dir() else None
    with read_images_like(PLAIN if run is None else run.pixel_reading()):
        if images is not None:
            return as_source(images)
        location = None if run is None else run.describe().get("location")
        try:
            return None if location is None else open_images(full_location(location))
        except InputError as error:
            raise InputError(
                f"{error}; batch norm statistics are estimated on the run's images: give them with --images, or keep "
                "the statistics of pretraining with --bn-images 0"
            ) from None


def _batches(source: ImageSource, indices: list[int], side: int) -> Iterator[Tensor]:
    """Batches of uint8 (B, 3, side, side); images that cannot be read are left out."""
    batch: list[Tensor] = []
    for index in indices:
        try:
            pixels = torch.from_numpy(read_pixels(source, index, side)).permute(2, 0, 1)[None].float()
        except (OSError, UnreadableImageError):
            continue
        scaled = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
        batch.append(scaled.round().to(torch.uint8)[0])
        if len(batch) == BATCH:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)
