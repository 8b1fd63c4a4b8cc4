"""The networks that a report compares, and what it measures on each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize as unit

from socodet.models.encoders import ObjectEncoder
from socodet.models.normalization import normalize
from socodet.probing.features import box_encoder, reestimate_on_views
from socodet.probing.probe import levels_and_size
from socodet.probing.retrieval import BATCH_SIZE, DRAWS, FIRST_DRAW, recall_at_1
from socodet.probing.samples import MIN_SIDE, View, collate_views
from socodet.reports.images import ShownImage
from socodet.reports.runs import RunRecord
from socodet.views.batch import Batch, collate
from socodet.views.geometry import WHOLE
from socodet.views.photometric import UNCHANGED
from socodet.views.rendering import render, show_window
from socodet.views.sample import box_levels, make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings
from socodet.weights.pretrained_run import encoder_weights, model_settings

UNTRAINED = "untrained"

PLAIN = PhotometricSettings(jitter_probability=0, grayscale_probability=0, blur_probability=0)
OTHER = PhotometricSettings(blur_probability=0, solarize_probability=0.2)
"""Colour distortion of the two views on which networks are compared."""


@dataclass(frozen=True)
class Network:
    """A network with its name on the page."""

    name: str
    encoder: ObjectEncoder
    question: SampleSettings
    """Settings of the views that it is tested on; objects are taken from the first view."""

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.encoder.parameters()).device

    def draw(self, images: Sequence[ShownImage], seed: int, epoch: int) -> Batch:
        """One random draw of the views of every image."""
        return collate(
            [
                (
                    image.index,
                    make_sample(image.pixels, image.boxes, self.question, sample_rng(seed, epoch, image.index)),
                )
                for image in images
            ]
        )

    def reestimate_statistics(self, images: Sequence[ShownImage], seed: int) -> None:
        """Re-estimates its batch norm statistics on these images."""
        draws = (self.draw(images, seed, epoch) for epoch in range(DRAWS))
        reestimate_on_views(self.encoder, (view for draw in draws for view in draw.views))

    def recall_at_1(self, images: Sequence[ShownImage], seed: int) -> list[float]:
        """Recall@1 from the first view's objects to each of the other views, over `DRAWS` draws."""
        draws = [[self.draw(part, seed, FIRST_DRAW + draw) for part in batches(images)] for draw in range(DRAWS)]
        return [recall_at_1(self.encoder, draws, 0, gallery) for gallery in range(1, len(self.question.views))]

    def objects(self, images: Sequence[ShownImage]) -> int:
        """Maximum number of objects that `recall_at_1` searches for, each in `DRAWS` draws of its views."""
        return sum(max(1, min(self.question.boxes_per_image, len(image.boxes))) for image in images)

    @torch.no_grad()
    def object_features(self, images: Sequence[ShownImage]) -> NDArray[np.float32]:
        """Unit-length h (Eq. 1) of all proposals of these images in their `plain_view`: (N, D)."""
        self.encoder.eval()
        found = []
        for part in batches(images):
            batch = collate_views([plain_view(image, self.question) for image in part]).to(self.device)
            h: Tensor = self.encoder(normalize(batch.pixels), batch.rois)
            found.append(unit(h.float(), dim=1).cpu())
        features: NDArray[np.float32] = torch.cat(found).numpy()
        return features

    @torch.no_grad()
    def feature_maps(self, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
        """The encoder's feature maps of images (N, 3, S, S) uint8, by name: each (N, C, h, w)."""
        self.encoder.eval()
        maps = self.encoder.feature_maps(normalize(pixels.to(self.device)))
        return {name: one.float().cpu().numpy() for name, one in maps.items()}


def batches(images: Sequence[ShownImage]) -> list[Sequence[ShownImage]]:
    """The images in groups of up to `BATCH_SIZE`."""
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


def plain_view(image: ShownImage, question: SampleSettings, scale: int = 1) -> View:
    """The whole image in its own colours, `scale` times the size of the question's first view, with its boxes."""
    size = question.views[0].size * scale
    height, width = image.pixels.shape[:2]
    boxes = image.boxes.astype(np.float64) / [width, height, width, height] * size
    levels = torch.from_numpy(box_levels(boxes, question))
    pixels = render(show_window(image.pixels, WHOLE, size), UNCHANGED, False)
    return View(torch.from_numpy(pixels), torch.from_numpy(boxes.astype(np.float32)), levels)


def networks_of(
    trained: Sequence[RunRecord], images: Sequence[ShownImage], device: torch.device, seed: int
) -> list[Network]:
    """The first run's network as initialised by its seed, with batch norm statistics of `images`; then every run's."""
    first = trained[0]
    initialised_by = first.description["recipe"]["training"]["seed"]
    encoder = box_encoder(model_settings(first.path), None, initialised_by)
    untrained = Network(UNTRAINED, encoder.to(device), comparison_settings(first))
    untrained.reestimate_statistics(images, seed)
    networks = [untrained]
    for record in trained:
        encoder = box_encoder(model_settings(record.path), encoder_weights(record.path))
        networks.append(Network(record.name, encoder.to(device), comparison_settings(record)))
    return networks


def comparison_settings(record: RunRecord) -> SampleSettings:
    """View settings with the same windows, colours and objects for every run, and this run's image size and levels."""
    own = levels_and_size(record.folder)
    size = own.views[0].size
    return replace(
        own,
        views=(ViewSettings("whole", size, PLAIN, flip_probability=0), ViewSettings("crop", size, OTHER)),
        jitter_probability=0,
        min_box_side=MIN_SIDE * size,
    )
