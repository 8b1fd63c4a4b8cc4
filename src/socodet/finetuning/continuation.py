"""Continuing from a fine-tuned detector: all its weights, and in its heads the rows of classes with the same name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.detectors.by_name import detector_named
from socodet.errors import InputError
from socodet.finetuning.detector import TrainedDetector, load_detector
from socodet.runtime.notices import printable
from socodet.weights.report import LoadReport


class ClassLayer(NamedTuple):
    """A layer with separate outputs for each class."""

    unit: int = 1
    """Number of outputs per class; RetinaNet has them for each anchor."""
    background: Literal["first", "last", "none"] = "first"


CLASS_LAYERS = {
    "roi_heads.box_predictor.cls_score.": ClassLayer(),
    "roi_heads.box_predictor.bbox_pred.": ClassLayer(4),
    "roi_heads.mask_predictor.mask_fcn_logits.": ClassLayer(),
    "head.classification_head.cls_logits.": ClassLayer(),
    "detr.class_embed.": ClassLayer(background="none"),
    "detr.model.decoder.class_embed.": ClassLayer(background="none"),
    "detr.model.enc_score_head.": ClassLayer(background="none"),
    "detr.model.denoising_class_embed.": ClassLayer(background="last"),
}
"""Layers by name prefix; those of RT-DETR begin with detr."""


@dataclass(frozen=True)
class Continuation:
    """What a new detector took over from another one."""

    report: LoadReport
    kept: tuple[str, ...]
    """Classes of both detectors, whose rows in the heads were copied."""
    new: tuple[str, ...]
    """Classes of the new detector only, whose rows start fresh."""
    dropped: tuple[str, ...]
    """Classes of the old detector only."""

    def __str__(self) -> str:
        lines = [str(self.report)]
        for what, names in (("kept", self.kept), ("new", self.new), ("dropped", self.dropped)):
            if names:
                lines.append(f"  classes {what}: {', '.join(map(printable, names))}")
        return "\n".join(lines)


def continue_from(network: nn.Module, name: str, data: DetectionDataset, run: str | Path) -> Continuation:
    """Loads a fine-tuning run's best weights into a fresh network of the detector `name` for the classes of `data`.

    InputError for another detector, other module sizes or a run without a checkpoint. Also if the classes differ and
    two of them share a name, or the detector is a user's own whose per-class layers are not known.
    """
    old = load_detector(run, device="cpu")
    _check_same(old, name)
    theirs, ours = old.network.state_dict(), network.state_dict()
    names = tuple(category.name for category in data.categories)
    if names != old.class_names and not any(key.startswith(tuple(CLASS_LAYERS)) for key in ours):
        raise InputError(
            f"{run}: its classes are not those of {data.name}, and it is not known which outputs of {name} belong to "
            "which class; go on with the same classes in the same order"
        )
    labels = _labels(old, data)
    loaded = []
    with torch.no_grad():
        for key, tensor in ours.items():
            layer = next((layer for name, layer in CLASS_LAYERS.items() if key.startswith(name)), None)
            source = theirs.get(key)
            if source is None:
                continue
            if layer is not None:
                _copy_rows(tensor, source, layer, labels, len(data.categories), len(old.categories))
            elif source.shape == tensor.shape:
                tensor.copy_(source)
            else:
                raise InputError(
                    f"{run}: {key} is {tuple(source.shape)} there and {tuple(tensor.shape)} here; leave out the flags "
                    "that set module sizes, which are taken from the detector"
                )
            loaded.append(key)
    report = LoadReport(
        str(run),
        "a fine-tuned detector",
        tuple(loaded),
        tuple(key for key in ours if key not in loaded),
        {key: key.rpartition(".")[0] for key in theirs if key not in ours},
    )
    return Continuation(
        report,
        tuple(one for one in names if one in old.class_names),
        tuple(one for one in names if one not in old.class_names),
        tuple(one for one in old.class_names if one not in names),
    )


def _check_same(old: TrainedDetector, name: str) -> None:
    there, here = detector_named(old.recipe.settings.detector), detector_named(name)
    if name not in (there.name, there.boxes_only) and there.name != here.boxes_only:
        raise InputError(f"{old.run}: is a {there.name}, not a {name}; go on with --detector {there.name}")


def _labels(old: TrainedDetector, data: DetectionDataset) -> list[tuple[int, int]]:
    """Pairs of new and old label: of the background and of each class with the same name.

    InputError when two classes share a name, unless all classes are the same in the same order.
    """
    here = tuple(category.name for category in data.categories)
    if here == old.class_names:
        return [(label, label) for label in range(len(here) + 1)]
    there = {name: label for label, name in enumerate(old.class_names, 1)}
    twice = [name for name in there if name in here and max(here.count(name), old.class_names.count(name)) > 1]
    if twice:
        raise InputError(
            f"{data.name}: its classes cannot be matched with those of {old.run}, because two are named "
            f"{printable(twice[0])}; give each a name of its own, or go on with the same classes in the same order"
        )
    return [(0, 0), *((label, there[name]) for label, name in enumerate(here, 1) if name in there)]


def _copy_rows(
    ours: Tensor, theirs: Tensor, layer: ClassLayer, labels: list[tuple[int, int]], classes: int, old_classes: int
) -> None:
    """Copies the outputs of shared classes; the first dimension is anchors x classes x `unit`."""
    more = 0 if layer.background == "none" else 1
    here = ours.view(-1, classes + more, layer.unit, *ours.shape[1:])
    there = theirs.view(-1, old_classes + more, layer.unit, *theirs.shape[1:])
    for label, old_label in labels:
        if layer.background == "first":
            here[:, label] = there[:, old_label]
        elif label or layer.background == "last":
            here[:, label - 1] = there[:, old_label - 1]  # for the background, index -1 is the last row
