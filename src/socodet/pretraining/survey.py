"""A look at the images and the machine before a run: enough to choose settings by."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from socodet.errors import UnreadableImageError, none_readable
from socodet.images.source import ImageSource, read_pixels
from socodet.proposals.image_boxes import compile_kernels, propose_boxes
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.limits import available_cores
from socodet.runtime.notices import notice
from socodet.runtime.progress import progress_bar
from socodet.views.settings import SampleSettings

SURVEYED = 48
"""Images decoded and searched for proposals, spaced evenly over the dataset."""
GREY_DIFFERENCE = 8
"""A pixel whose channels differ by at most this (0..255) counts as grey; JPEG rounding stays below it."""
SMALLER_SCALE = 0.1
"""Minimum scale of proposals where too few pass the paper's filter, which begins at 0.3."""
GREY_PIXELS = 0.99
"""An image is grey if this share of its pixels is."""


@dataclass(frozen=True)
class ImageSurvey:
    """Statistics of a sample of the images."""

    count: int
    """Images in the dataset."""
    surveyed: int
    """Sampled images that could be read."""
    short_side: int
    """Median shorter side, pixels."""
    grey: float
    """Share of images without colour."""
    few_boxes: float
    """Share of images with fewer proposals within the paper's filter (0.3 to 0.8 of the image) than a sample draws."""
    no_boxes: float = 0.0
    """Share of images without any proposal, even at `SMALLER_SCALE`."""
    proposal_seconds: float = 0.0
    """Mean seconds that one core needs to read an image and search it for proposals."""


@dataclass(frozen=True)
class Machine:
    """What a run executes on."""

    device: str
    """cpu or cuda."""
    memory_gib: float
    """Memory of the CUDA device; 0 without one."""
    cores: int = 1


def survey_images(source: ImageSource, *, show_progress: bool = False) -> ImageSurvey:
    """Samples `SURVEYED` images of the dataset; says how many cannot be read. InputError when none of them can."""
    wanted = np.unique(np.linspace(0, len(source) - 1, min(SURVEYED, len(source))).round().astype(int))
    sides, grey, few, seconds = [], [], [], []
    none = 0
    paper, smaller = ProposalSettings(), ProposalSettings(min_scale=SMALLER_SCALE)
    unreadable: list[tuple[str, str]] = []
    compile_kernels(paper.method)  # not part of an image's time
    with progress_bar("sampling images", len(wanted), show=show_progress) as bar:
        for index in wanted.tolist():
            before = time.thread_time()
            try:
                pixels = read_pixels(source, index)
            except (UnreadableImageError, OSError) as error:
                unreadable.append((source.key(index), str(error)))
                continue
            finally:
                bar.advance()
            sides.append(min(pixels.shape[:2]))
            grey.append(is_grey(pixels))
            boxes = len(propose_boxes(pixels, paper))
            seconds.append(time.thread_time() - before)
            few.append(boxes < SampleSettings().boxes_per_image)
            none += not boxes and not len(propose_boxes(pixels, smaller))
    if not sides:
        raise none_readable(f"{source.location}: none of the {len(wanted)} sampled images", unreadable[0])
    if unreadable:
        notice(
            f"{source.location}: {len(unreadable)} of {len(wanted)} sampled images cannot be read and will be left out "
            f"(first: {': '.join(unreadable[0])})"
        )
    return ImageSurvey(
        count=len(source),
        surveyed=len(sides),
        short_side=int(np.median(sides)),
        grey=float(np.mean(grey)),
        few_boxes=float(np.mean(few)),
        no_boxes=none / len(sides),
        proposal_seconds=float(np.mean(seconds)),
    )


def is_grey(pixels_hw3: NDArray[np.uint8]) -> bool:
    """Whether an image (H, W, 3) has no colour."""
    difference = pixels_hw3.max(axis=2).astype(np.int16) - pixels_hw3.min(axis=2)
    return bool((difference <= GREY_DIFFERENCE).mean() >= GREY_PIXELS)


def this_machine(device: torch.device) -> Machine:
    """The machine of this process, with `device` as its device."""
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else 0.0
    return Machine(device.type, memory, available_cores())
