"""The annotated datasets of a probe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.classes import match_classes
from socodet.detection.datasets.folder_listing import reuse_folder_listings
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.shared_images import note_on_shared
from socodet.detection.datasets.splits import MissingSplitError, no_validation_split
from socodet.detection.datasets.subsets import mini_dataset
from socodet.detection.datasets.validation_set import images_for_other, may_have_splits, split_to_score
from socodet.errors import InputError
from socodet.images.reading import read_images_like
from socodet.probing.settings import ProbeData, ProbeSettings
from socodet.runtime.notices import notice


@dataclass(frozen=True)
class ProbeDatasets:
    """Training and validation images with their objects."""

    train: DetectionDataset
    val: DetectionDataset

    @classmethod
    def chosen(cls, train: DetectionDataset, val: DetectionDataset, settings: ProbeSettings) -> "ProbeDatasets":
        """Takes as many images as the settings allow. Prints a note if the datasets have images in common.

        InputError if the datasets have no class in common.
        """
        note = note_on_shared(train, val)
        if note is not None:
            notice(note)
        val = match_classes(train, val)
        return cls(
            _subsample(train, settings.max_train_images, settings.seed),
            _subsample(val, settings.max_val_images, settings.seed),
        )


@reuse_folder_listings()
def open_probe_datasets(
    data: ProbeData | str | Path, settings: ProbeSettings | None = None, reading: ReadingSettings | None = None
) -> ProbeDatasets:
    """Opens the training and validation sets. A path is a folder with both, unless `reading` holds a share back.

    Raises InputError when a dataset cannot be read, or when `data` names only one.
    """
    if not isinstance(data, ProbeData):
        data = ProbeData(Path(data))
    reading = reading or ReadingSettings()
    given = data.data
    if data.val is None and not may_have_splits(given) and not reading.val_share:
        if not given.exists():
            raise InputError(f"{given}: no such file or folder")
        raise no_validation_split(given)
    if data.val is not None and reading.val_share is not None:
        raise InputError("--val-share and --val: give one of them")
    val_split, val_images = data.val_split, images_for_other(data.val or given, given, data.images)
    if data.val is not None:
        val_split = split_to_score(data.val, val_images, val_split)
    more: dict[str, Any] = {"reading": reading, "check_images": True}
    train = open_detection_set(given, split=data.train_split, images=data.images, **more)
    with read_images_like(train.pixel_reading):
        try:
            val = open_detection_set(data.val or given, split=val_split, images=val_images, **more)
        except MissingSplitError:
            if val_split != "val":
                raise
            raise no_validation_split(data.val or given) from None
    return ProbeDatasets.chosen(train, val, settings or ProbeSettings())


def _subsample(dataset: DetectionDataset, count: int | None, seed: int) -> DetectionDataset:
    if count is None or count >= len(dataset):
        return dataset
    return mini_dataset(dataset, count / len(dataset), seed)
