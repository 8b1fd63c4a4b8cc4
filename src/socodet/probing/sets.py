"""The annotated sets of a probe."""

from dataclasses import dataclass
from pathlib import Path

from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.datasets.classes import with_classes_of
from socodet.detection.datasets.mini import mini_set
from socodet.errors import InputError
from socodet.probing.settings import ProbeData, ProbeSettings


@dataclass(frozen=True)
class ProbeSets:
    """Training and validation images with their objects."""

    train: DetectionDataset
    val: DetectionDataset

    @classmethod
    def chosen(cls, train: DetectionDataset, val: DetectionDataset, settings: ProbeSettings) -> "ProbeSets":
        """As many images as the settings allow. InputError if the sets have no class in common."""
        val = with_classes_of(train, val)
        return cls(
            _some(train, settings.train_pictures, settings.seed), _some(val, settings.val_pictures, settings.seed)
        )


def open_sets(data: ProbeData | str | Path, settings: ProbeSettings | None = None) -> ProbeSets:
    """Opens the training and the validation set; a path is a folder with both.

    Raises InputError when a set cannot be read, or `data` names only one.
    """
    if not isinstance(data, ProbeData):
        data = ProbeData(Path(data))
    if data.val is None and not data.dataset.is_dir():
        if not data.dataset.exists():
            raise InputError(f"{data.dataset}: no such file or folder")
        raise InputError(f"{data.dataset}: is a single set; give another one as the validation set (--val)")
    train, val = (
        open_detection_set(path, split=split, images=data.images, check_images=True)
        for path, split in ((data.dataset, data.train_split), (data.val or data.dataset, data.val_split))
    )
    return ProbeSets.chosen(train, val, settings or ProbeSettings())


def _some(dataset: DetectionDataset, count: int | None, seed: int) -> DetectionDataset:
    if count is None or count >= len(dataset):
        return dataset
    return mini_set(dataset, count / len(dataset), seed)
