"""The form into which every annotated dataset is read: images with boxes, labels and masks, and detector targets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from socodet.detection.datasets.masks import Segmentation, decode_mask
from socodet.detection.datasets.problems import FEWEST, AnnotationProblems, large_enough
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import decode_image, image_size
from socodet.images.file_header import image_file_size, read_image_file
from socodet.images.reading import PLAIN, PixelReading, requested_reading
from socodet.images.source import ImageSource
from socodet.images.truncated import TRUNCATED
from socodet.runtime.counted import counted
from socodet.runtime.notices import notice

if TYPE_CHECKING:
    import torch

Style = Literal["coco", "voc", "lvis"]
"""The evaluation rules that apply."""
Frequency = Literal["r", "c", "f"]
MANY_REPEATED = 0.1
"""Minimum share of duplicate objects at which a note is printed."""


@dataclass(frozen=True)
class Category:
    """A class; its label is its position among the dataset's categories, from 1."""

    id: int
    """The id in the file."""
    name: str
    frequency: Frequency | None = None
    """LVIS only: rare (in 1-10 training images), common (11-100) or frequent."""

    def in_results(self) -> dict[str, int | str]:
        """Its fields in COCO's result format, and its name."""
        return {"category_id": self.id, "category": self.name}


@dataclass(frozen=True)
class ImageAnnotations:
    """One image and its N objects."""

    image_id: int | str
    """The id in the file; for VOC, the image's file name without its suffix."""
    file: Path
    """The image's absolute path."""
    width: int
    height: int
    boxes: NDArray[np.float32]
    """(N, 4) xyxy in pixels, 0-based, right and bottom exclusive; inside the image and with an area."""
    labels: NDArray[np.int64]
    """(N,) 1..C; 0 is the background."""
    crowd: NDArray[np.bool_]
    """(N,) whether it is a region with an unknown number of objects, in which detections are ignored."""
    difficult: NDArray[np.bool_]
    """(N,) VOC: ignored in scores, but trained on like other objects."""
    areas: NDArray[np.float32]
    """(N,) in square pixels, of the mask if the file gives it; determines what counts as small, medium and large."""
    masks: Sequence[Segmentation] | None = None
    """N segmentations in COCO's form; None for a dataset without masks."""
    absent: frozenset[int] = frozenset()
    """LVIS: labels known to be absent from the image."""
    incomplete: frozenset[int] = frozenset()
    """LVIS: labels that are not exhaustively annotated in the image."""
    stored: tuple[ImageSource, int] | None = None
    """For an image that is not stored as a file, its source and index there; `file` is then only a name."""
    unusable: bool = False
    """Whether it has annotations but none can be used, so that it may show objects and is not background."""

    def read(self, max_pixels: int | None = None) -> bytes:
        """The encoded image. OSError when it cannot be read; TooManyPixelsError as in `read_image_file`.

        max_pixels: by default the limit set by `read_images_as`.
        """
        if self.stored is None:
            return read_image_file(self.file, max_pixels or requested_reading().reading.max_pixels)
        return self.stored[0].read(self.stored[1])

    def size_by_header(self) -> tuple[int, int]:
        """Width and height from the image's own header. OSError or UnreadableImageError."""
        return image_file_size(self.file) if self.stored is None else image_size(self.read())

    def __len__(self) -> int:
        return len(self.boxes)


def note_repeated_objects(about: Path | str, images: Sequence[ImageAnnotations]) -> None:
    """Prints a note if many objects are duplicates, as after running a conversion twice."""
    total = sum(map(len, images))
    distinct = sum(
        len({(label, box.tobytes()) for label, box in zip(image.labels.tolist(), image.boxes, strict=True)})
        for image in images
    )
    if total - distinct > max(MANY_REPEATED * total, FEWEST - 1):
        notice(
            f"{about}: {total - distinct:,} of its {total:,} objects have the class and the box of another in their "
            "image, as if they were written twice; remove them, because a detector can find only one of each"
        )


@dataclass(frozen=True, repr=False)
class DetectionDataset:
    """Images with annotated objects, read from any format."""

    name: str
    categories: tuple[Category, ...]
    """Label k is categories[k - 1]."""
    images: Sequence[ImageAnnotations]
    has_masks: bool
    """Whether masks can be trained on and scored."""
    style: Style
    problems: AnnotationProblems
    """What was wrong in the files and how it was handled, to show before training."""
    pixel_reading: PixelReading = PLAIN
    """How its images are converted to 8-bit RGB."""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        what = "masks" if self.has_masks else "boxes"
        classes = counted(len(self.categories), "class", "classes")
        return f"<DetectionDataset {self.name}: {counted(len(self), 'image')}, {classes}, {what}>"

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """The pixels of image `index`, (H, W, 3) RGB, in the size of its annotations.

        Annotations are assumed to be made on the upright image. InputError when the image has another size, for example
        because it was annotated without its EXIF rotation, and when it cannot be read.
        """
        image = self.images[index]
        try:
            pixels = decode_image(
                image.read(self.pixel_reading.max_pixels),
                reading=self.pixel_reading,
                on_truncated=lambda: TRUNCATED.add(str(image.file)),
            )
        except OSError as error:
            raise InputError(f"{image.file}: cannot be read ({error.strerror or error}); put it back") from None
        except UnreadableImageError as error:
            raise InputError(f"{image.file}: {error}; replace it or take it out of the annotations") from None
        height, width = pixels.shape[:2]
        if (width, height) != (image.width, image.height):
            raise InputError(
                f"{image.file}: is {width}x{height} pixels but annotated as {image.width}x{image.height}; "
                "boxes would be in the wrong place: correct its size in the annotations, or its EXIF orientation"
            )
        return pixels

    def target(self, index: int, size: tuple[int, int] | None = None) -> "dict[str, torch.Tensor]":
        """The target of image `index` for torchvision's detectors, without crowd regions and objects scaled to nothing.

        boxes float32 (N, 4), labels int64 (N,), and if the dataset has masks, masks uint8 (N, H, W), decoded on each
        call. With `size`, (height, width), everything is scaled to an image of that size.
        """
        import torch

        image = self.images[index]
        height, width = size or (image.height, image.width)
        scale = np.array([width / image.width, height / image.height] * 2, np.float32)
        boxes = image.boxes * scale
        kept = np.flatnonzero(~image.crowd & large_enough(boxes))
        target = {
            "boxes": torch.from_numpy(boxes[kept]),
            "labels": torch.from_numpy(image.labels[kept]),
        }
        if self.has_masks:
            assert image.masks is not None
            masks = np.zeros((len(kept), height, width), np.uint8)
            for place, index_of_object in enumerate(kept.tolist()):
                masks[place] = decode_mask(image.masks[index_of_object], (image.height, image.width), (height, width))
            target["masks"] = torch.from_numpy(masks)
        return target

    def select(self, indices: Sequence[int], name: str) -> "DetectionDataset":
        """A dataset of only the images at `indices`, in this order."""
        return replace(self, name=name, images=[self.images[index] for index in indices])

    def object_counts(self, *, trained_on: bool = False) -> list[int]:
        """Number of objects of each class, in the order of the categories, without crowd regions and difficult objects.

        trained_on: also count difficult objects, which are trained on but not scored.
        """
        counts = np.zeros(len(self.categories) + 1, np.int64)
        for image in self.images:
            left_out = image.crowd if trained_on else image.crowd | image.difficult
            np.add.at(counts, image.labels[~left_out], 1)
        return [int(count) for count in counts[1:]]

    def without_unusable(self) -> "DetectionDataset":
        """The dataset without images whose annotations are all unusable."""
        usable = [index for index, image in enumerate(self.images) if not image.unusable]
        return self if len(usable) == len(self) else self.select(usable, self.name)

    def with_objects(self) -> "DetectionDataset":
        """The images with at least one object that is not a crowd region.

        Detectors are usually trained on these (Detectron2's FILTER_EMPTY_ANNOTATIONS) and scored on all.
        """
        return self.select([i for i, image in enumerate(self.images) if not image.crowd.all()], self.name)
