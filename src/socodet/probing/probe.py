"""`socodet probe`: how much a pretraining run's network knows about annotated objects."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from socodet._version import __version__
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.images.reading import read_images_like
from socodet.probing.datasets import open_probe_datasets
from socodet.probing.features import box_encoder
from socodet.probing.scores import ProbeScores, probe_encoder
from socodet.probing.settings import ProbeData, ProbeSettings
from socodet.runtime.files import check_output_file, write_note
from socodet.runtime.shown import Shown, ShownTable
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device
from socodet.training.run_folder import RunFolder
from socodet.views.settings import SampleSettings, ViewSettings
from socodet.weights.hub import reads_hub
from socodet.weights.pretrained_run import encoder_weights, model_settings

Device = Literal["auto", "cpu", "cuda"]
STANDARD_ERRORS = 2
"""Two accuracies that differ by less than this many standard errors may differ by chance."""


def levels_and_size(run: RunFolder) -> SampleSettings:
    """Sample settings with the pyramid-level rule of a run and the size of its first view."""
    sample = run.settings(SampleSettings, "sample")
    first = ViewSettings(size=sample.views[0].size)
    return SampleSettings(
        views=(first, first), min_box_side=1, level_rule=sample.level_rule, level_limits=sample.level_limits
    )


@reads_hub("run")
def probe(
    run: str | Path,
    data: ProbeData | str | Path,
    *,
    settings: ProbeSettings | None = None,
    reading: ReadingSettings | None = None,
    untrained: bool = False,
    output: str | Path | None = None,
    device: Device = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> "ProbeResult":
    """Measures how much a run's network knows about annotated objects, without fine-tuning.

    Among other scores (see `ProbeScores`), it measures how well features h (Eq. 1) predict the classes of the
    validation objects. The network is the online encoder of the pretraining run `run`, from its newest checkpoint and
    with its batch-norm statistics.

    data: a folder with a training and a validation split, or `ProbeData`. untrained: also probe the encoder as the
    run's settings and seed initialise it, with statistics of the training images. The result has the scores under
    `pretrained` and `untrained`. output: a .json file for the scores; an existing one is refused unless `overwrite`.
    Raises InputError when `run` is not a pretraining run or has no checkpoint yet, or the datasets cannot be used.
    """
    if workers is not None and workers < 0:
        raise InputError(f"workers must be at least 0, not {workers}")
    file = None if output is None else check_output_file(output, overwrite=overwrite)
    settings = settings or ProbeSettings()
    weights = {"pretrained": encoder_weights(run)} | ({"untrained": None} if untrained else {})
    folder = RunFolder(Path(run))
    model, sample = model_settings(run), levels_and_size(folder)
    of_backbone, seed = settings.of == "backbone", folder.describe()["recipe"]["training"]["seed"]
    if of_backbone:
        sample = replace(sample, level_rule="single")
    with read_images_like(folder.pixel_reading()):
        sets = open_probe_datasets(data, settings, reading)
    where = choose_device(device, ALONE)
    scores = {
        name: probe_encoder(
            box_encoder(model, trained, seed, backbone_alone=of_backbone).to(where),
            sets,
            sample,
            settings,
            fresh_statistics=trained is None,
            workers=workers,
            show_progress=show_progress,
        )
        for name, trained in weights.items()
    }
    if file is not None:
        asked = {"run": str(run), "of": settings.of, "seed": settings.seed, "socodet": __version__}
        write_note(file, asked | {name: score.as_dict() for name, score in scores.items()})
    found = ProbeResult(scores)
    found.started_from = folder.started_from()
    return found


class ProbeResult(dict[str, ProbeScores], Shown):
    """Scores of networks by name; prints as a table."""

    started_from: str | None = None
    """The weights that the run started from, if they were not random."""

    def __str__(self) -> str:
        lines = [probe_table(self)]
        if self.started_from is not None and "untrained" in self:
            lines.append(
                f"the run started from {self.started_from}, and untrained has random weights, so the difference "
                "between the two includes what the run started with"
            )
        return "\n".join(lines)

    def headline(self) -> str:
        """Which datasets were used."""
        first = next(iter(self.values()))
        return f"probe on {first.val.objects:,} objects of {first.val.name}, taught by {first.train.objects:,}"

    def shown(self) -> list[ShownTable]:
        """The scores, with a column per network."""
        return [ShownTable([(name.strip(), *cells) for name, *cells in _rows(self)], ("score", *self))]


def probe_table(scores: Mapping[str, ProbeScores]) -> str:
    """The scores as text, one column per network, followed by what they were measured on."""
    first, rows = next(iter(scores.values())), _rows(scores)
    width = max(len(label) for label, *_ in rows)
    lines = [" " * width + "".join(f"  {name:>10}" for name in scores)]
    lines += [f"{label:<{width}}" + "".join(f"  {cell:>10}" for cell in cells) for label, *cells in rows]
    for name, counts in (("training", first.train), ("validation", first.val)):
        lines.append(
            f"{name}: {counts.objects:,} objects in {counts.images - counts.unreadable:,} images of {counts.name}; "
            f"left out: {counts.crowd:,} crowd regions, {counts.difficult:,} difficult, {counts.small:,} small; "
            f"{counts.unreadable:,} images unreadable"
        )
    lines.append(
        f"recall@1: each of the {first.recall_objects:,} of {first.val.objects:,} validation objects that the other "
        "view shows, searched among all of them"
    )
    if len(scores) == 2:
        one, other = (score.knn for score in scores.values())
        points = 100 * STANDARD_ERRORS * difference_error(one, other, first.val.objects)
        lines.append(
            f"kNN: with {first.val.objects:,} validation objects, two accuracies that differ by less than "
            f"{points:.1f} points ({STANDARD_ERRORS} standard errors) may differ by chance"
        )
    return "\n".join(lines)


def difference_error(one: float, other: float, objects: int) -> float:
    """Standard error of the difference of two shares, each of `objects` objects, taken as independent samples.

    As in Agresti and Caffo (2000), a hit and a miss are added to each, so that it is not 0 if all or none are hits.
    """
    shares = ((share * objects + 1) / (objects + 2) for share in (one, other))
    return math.sqrt(sum(share * (1 - share) for share in shares) / (objects + 2))


def _rows(scores: Mapping[str, ProbeScores]) -> list[tuple[str, ...]]:
    """One row per score: its name and a cell for each network."""
    first = next(iter(scores.values()))
    fields = [
        ("kNN accuracy, %", "knn", 100),
        ("  mean over classes", "knn_balanced", 100),
        ("linear accuracy, %", "linear", 100),
        ("  mean over classes", "linear_balanced", 100),
        ("largest class alone, %", "largest_class", 100),
        ("recall@1 in another view, %", "recall_at_1", 100),
        (f"cosine at {first.size} and {first.size // 2}", "scale_cosine", 1),
        ("  of different objects", "others_cosine", 1),
    ]
    return [
        (label, *(_cell(getattr(one, field), factor) for one in scores.values())) for label, field, factor in fields
    ]


def _cell(value: float | None, factor: int) -> str:
    if value is None:
        return "none"
    return f"{value * factor:.1f}" if factor == 100 else f"{value:.3f}"
