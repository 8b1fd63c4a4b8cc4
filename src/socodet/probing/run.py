"""`socodet probe`: what a pretraining run's network knows of annotated objects."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from socodet._version import __version__
from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.errors import InputError
from socodet.probing.features import box_encoder
from socodet.probing.measure import ProbeScores, ProbeSets, ProbeSettings, probe_encoder
from socodet.runtime.files import check_output_file, write_atomically
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device, default_workers
from socodet.training.run_folder import RunFolder
from socodet.views.settings import SampleSettings, ViewSettings
from socodet.weights.pretrained_run import encoder_weights, model_settings

Source = str | Path | DetectionDataset


def open_sets(
    dataset: Source,
    val: Source | None = None,
    *,
    train_split: str = "train",
    val_split: str = "val",
    images: str | Path | None = None,
    settings: ProbeSettings | None = None,
) -> ProbeSets:
    """The training and the validation set of a probe, opened and cut to the number of pictures.

    `val` is the validation set where `dataset` is no folder with both. InputError where it is missing.
    """
    if val is None:
        if isinstance(dataset, DetectionDataset) or not Path(dataset).is_dir():
            where = dataset.name if isinstance(dataset, DetectionDataset) else dataset
            if not isinstance(dataset, DetectionDataset) and not Path(dataset).exists():
                raise InputError(f"{where}: no such file or folder")
            raise InputError(f"{where}: is one set; name another one to classify as the validation set (--val)")
        val = dataset
    train_set, val_set = (
        given
        if isinstance(given, DetectionDataset)
        else open_detection_set(given, split=split, images=images, check_images=True)
        for given, split in ((dataset, train_split), (val, val_split))
    )
    return ProbeSets.chosen(train_set, val_set, settings or ProbeSettings())


def probe(
    run: str | Path,
    dataset: Source | ProbeSets,
    val: Source | None = None,
    *,
    train_split: str = "train",
    val_split: str = "val",
    images: str | Path | None = None,
    settings: ProbeSettings | None = None,
    untrained: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
    show_progress: bool = True,
) -> ProbeScores:
    """Features h (Eq. 1) of the training objects tell the kind of the validation objects; and more (`ProbeScores`).

    The online encoder of a pretraining run, from its newest checkpoint, with the run's batch-norm statistics;
    `untrained`: the networks as the run's settings and seed begin at random, with statistics of the training pictures.

    `dataset` is a folder with both splits, or the training set alone and `val` the validation set; or what `open_sets`
    returned. `images` is where the pictures of .json files lie. InputError when `run` is no pretraining run or has no
    checkpoint yet, a set cannot be read or has no object to ask for, or labels mean different things.
    """
    settings = settings or ProbeSettings()
    folder = RunFolder(Path(run))
    model, sample = model_settings(run), levels_and_side(folder)
    weights, seed = None if untrained else encoder_weights(run), folder.describe()["recipe"]["training"]["seed"]
    encoder = box_encoder(model, weights, seed, backbone_alone=settings.of == "backbone")
    if settings.of == "backbone":
        sample = replace(sample, level_rule="single")
    if not isinstance(dataset, ProbeSets):
        dataset = open_sets(
            dataset, val, train_split=train_split, val_split=val_split, images=images, settings=settings
        )
    where = choose_device(device, ALONE)
    return probe_encoder(
        encoder.to(where),
        dataset,
        sample,
        settings,
        fresh_statistics=untrained,
        workers=default_workers(where) if workers is None else workers,
        show_progress=show_progress,
    )


def levels_and_side(run: RunFolder) -> SampleSettings:
    """Of a run's sample settings the level rule and the size of the first view."""
    sample = run.settings(SampleSettings, "sample")
    first = ViewSettings(size=sample.views[0].size)
    return SampleSettings(
        views=(first, first), min_box_side=1, level_rule=sample.level_rule, level_limits=sample.level_limits
    )


def probe_and_compare(
    run: str | Path,
    dataset: Source,
    val: Source | None = None,
    *,
    train_split: str = "train",
    val_split: str = "val",
    images: str | Path | None = None,
    settings: ProbeSettings | None = None,
    untrained: bool = False,
    output: str | Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> dict[str, ProbeScores]:
    """`probe` of the run, and with `untrained` of its random initialisation beside it, by these names.

    `output` is a .json file for both, with what was asked; one that exists is refused unless `overwrite`.
    """
    file = None if output is None else check_output_file(output, overwrite=overwrite)
    settings = settings or ProbeSettings()
    if not untrained:
        encoder_weights(run)  # refuses what is no run before a set is read
    sets = open_sets(dataset, val, train_split=train_split, val_split=val_split, images=images, settings=settings)
    sides = {"pretrained": False, "untrained": True} if untrained else {"pretrained": False}
    scores = {
        name: probe(
            run, sets, settings=settings, untrained=side, device=device, workers=workers, show_progress=show_progress
        )
        for name, side in sides.items()
    }
    if file is not None:
        content = {"run": str(run), "of": settings.of, "seed": settings.seed, "socodet": __version__}
        found = {name: score.as_dict() for name, score in scores.items()}
        write_atomically(file, json.dumps(content | found, indent=2).encode() + b"\n")
    return scores


def probe_table(scores: Mapping[str, ProbeScores]) -> str:
    """The scores as text, a column each, and below them what was looked at."""
    first = next(iter(scores.values()))
    rows = [
        ("kNN accuracy, %", "knn", 100),
        ("  mean over kinds", "knn_balanced", 100),
        ("linear accuracy, %", "linear", 100),
        ("  mean over kinds", "linear_balanced", 100),
        ("largest kind alone, %", "largest_kind", 100),
        ("recall@1 in another view, %", "recall_at_1", 100),
        (f"cosine at {first.size} and {first.size // 2}", "scale_cosine", 1),
        ("  of different objects", "others_cosine", 1),
    ]
    width = max(len(label) for label, _, _ in rows)
    lines = [" " * width + "".join(f"  {name:>10}" for name in scores)]
    for label, field, factor in rows:
        cells = (_cell(getattr(one, field), factor) for one in scores.values())
        lines.append(f"{label:<{width}}" + "".join(f"  {cell:>10}" for cell in cells))
    for name, asked in (("training", first.train), ("validation", first.val)):
        lines.append(
            f"{name}: {asked.objects:,} objects in {asked.pictures - asked.unreadable:,} pictures of {asked.name}; "
            f"left out: {asked.crowd:,} crowd regions, {asked.difficult:,} difficult, {asked.small:,} small; "
            f"{asked.unreadable:,} pictures unreadable"
        )
    lines.append(f"recall@1: each of {first.recall_objects:,} objects, searched among all of them")
    return "\n".join(lines)


def _cell(value: float | None, factor: int) -> str:
    if value is None:
        return "none"
    return f"{value * factor:.1f}" if factor == 100 else f"{value:.3f}"
