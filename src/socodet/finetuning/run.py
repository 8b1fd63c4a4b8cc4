"""A fine-tuning run's folder: its recipe, what it was trained on, and the scores of its detector.

RUN/run.json          settings, module sizes, schedule with every resolved field, data, initial weights, versions
RUN/log.jsonl         one JSON object per logged step, and one per evaluation
RUN/tensorboard/, RUN/checkpoints/   as in pretraining (`training/run_folder.py`), and the best weights, best.pt
RUN/images.json       the training images: their ids, and what distinguishes them from others
RUN/scores.json       the newest evaluation: step, data, scores, and scores of each class
RUN/predictions.json  its detections in COCO's result format, with --evaluation.save-predictions
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError
from socodet.finetuning.best import METRIC, BestCheckpoint
from socodet.finetuning.data_record import contents, describe_dataset, digest
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.settings import ModelSettings
from socodet.runtime.counted import counted
from socodet.runtime.files import read_note, write_atomically
from socodet.runtime.serialization import from_json, to_json, with_defaults
from socodet.training.run_folder import FINETUNED, NO_DETECTOR, Checkpoint, RunFolder
from socodet.weights.file import requested_start, start_path

if TYPE_CHECKING:
    from socodet.detection.datasets.annotations import DetectionDataset

SCORES = "scores.json"
PREDICTIONS = "predictions.json"
IMAGES = "images.json"
F1_LIMIT = "best_f1_score"
"""The log's key for the score threshold with the highest F1 on the validation set."""


@dataclasses.dataclass(frozen=True)
class FinetuneRecipe:
    """Everything that determines what is learned, except the data and the initial weights."""

    settings: FinetuneSettings
    model: ModelSettings
    schedule: ScheduleSettings
    """The settings' schedule with every number resolved."""

    @property
    def inference(self) -> InferenceSettings:
        """How the detector resizes images, and which detections it returns."""
        return self.settings.inference(self.schedule)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": FINETUNED, **to_json(self)}

    @classmethod
    def of_run(cls, run: RunFolder) -> "FinetuneRecipe":
        """The recipe of a run. InputError when the folder holds no fine-tuning run of this version."""
        fields = dict(run.describe(FINETUNED)["recipe"])
        if fields.pop("name", None) != FINETUNED:
            raise InputError(f"{run.path}: {NO_DETECTOR.format(run.path)}")
        return from_json(cls, fields, f"{run.path}/run.json")


def is_finetuned(source: str | Path) -> bool:
    """Whether `source` is the folder of a fine-tuning run."""
    run = RunFolder(Path(source))
    return run.exists() and run.describe()["recipe"].get("name") == FINETUNED


def prepare_folder(
    run: RunFolder,
    recipe: FinetuneRecipe,
    data: "DetectionDataset",
    start: dict[str, str] | None,
    *,
    val: "DetectionDataset | None" = None,
    patience: int | None = None,
    overwrite: bool,
) -> None:
    """Prepares the folder for a new run on the training set `data`, scored on `val`, or for resuming the same run.

    `start` is what `WeightsFile.describe` returns for the initial weights, None from scratch. InputError when the
    folder holds anything else.
    """
    if overwrite and run.exists():
        _clear(run)
    description = _description(recipe, data, start, val)
    run.refuse_foreign()
    if run.checkpoints() or ended_with_only_best(run, patience) is not None:
        _check_same(run, description)
    else:
        from socodet.detection.datasets.shared_images import write_images

        for left in (run.best, run.path / SCORES, run.path / PREDICTIONS):  # of a run killed before a checkpoint
            left.unlink(missing_ok=True)
        run.write_description(description)
        write_images(data, run.path / IMAGES)


def has_detector(run: RunFolder) -> bool:
    """Whether the run has weights: a checkpoint, or only best.pt."""
    return bool(run.checkpoints()) or run.best.exists()


def load_weights(run: RunFolder, checkpoint: Checkpoint) -> tuple[dict[str, Any], bool]:
    """The state of a run's best weights, or the newest if it keeps none, and whether it is the best.

    InputError if there is none.
    """
    best = run.load_best() if checkpoint == "best" else None
    state = best or run.load_checkpoint()
    if state is None and run.best.exists():
        raise InputError(f"{run.path}: only its best weights are left; use --checkpoint best")
    if state is None:
        raise InputError(f"{run.path}: has no checkpoint yet; let the run continue until it writes one")
    return state, best is not None


def ended_with_only_best(run: RunFolder, patience: int | None = None) -> int | None:
    """The last step of a run that is finished, or that `patience` has ended, and has kept only its best weights.

    None for any other run. One without a checkpoint whose last step was not scored was killed in its first minutes, so
    that its best weights may be replaced.
    """
    if not run.exists() or run.checkpoints() or not run.best.exists():
        return None
    last = max((line["step"] for line in run.log_lines() if METRIC in line), default=0)
    steps = run.describe()["recipe"].get("schedule", {}).get("iterations")
    if steps is not None and steps in (last, (read_note(run.path / SCORES) or {}).get("step")):
        return int(steps)  # the log may lack its last lines, as after a full disk
    return last if patience is not None and BestCheckpoint.of_run(run, patience, last).exhausted else None


def keep_only_best(folder: Path) -> None:
    """Deletes the resumable checkpoints of the runs in `folder` and below whose best.pt holds the best weights.

    A run has two such checkpoints, each with the optimizer's state. They are kept where best.pt is damaged, or could
    not be written when AP was highest, for example on a full disk.
    """
    for best in folder.rglob("checkpoints/best.pt"):
        run = RunFolder(best.parent.parent)
        for checkpoint in run.checkpoints() if _has_best(run) else ():
            checkpoint.unlink(missing_ok=True)


def _has_best(run: RunFolder) -> bool:
    """Whether best.pt can be read and no evaluation gave a higher AP than its weights."""
    try:
        kept = run.load_best()
    except InputError:
        return False
    aps = {line["step"]: line["box_AP"] for line in run.log_lines() if line.get("box_AP") is not None}
    return kept is not None and kept["step"] in aps and aps[kept["step"]] == max(aps.values())


def count_images_trained_on(run: RunFolder, data: "DetectionDataset") -> int:
    """How many images of `data` the run was trained on; for a run from the Hub, all of them or none."""
    from socodet.detection.datasets.shared_images import count_shared_images

    whole = run.describe()["data"]["sha256"] == digest(data)
    return len(data) if whole else count_shared_images(data, run.path / IMAGES)


def trained_categories(run: RunFolder) -> "DetectionDataset":
    """The training set of a run without its images, which gives the classes and their labels."""
    from socodet.detection.datasets.annotations import Category, DetectionDataset
    from socodet.detection.datasets.problems import AnnotationProblems

    description = run.describe()
    data = description["data"]
    categories = tuple(from_json(Category, category, f"{run.path}/run.json") for category in data["categories"])
    return DetectionDataset(
        description["train"],
        categories,
        [],
        data["masks"],
        data["style"],
        AnnotationProblems(),
        pixel_reading=run.pixel_reading(),
    )


def best_f1(run: RunFolder, step: int) -> tuple[float | None, float | None]:
    """For the weights of `step`: the score threshold with the highest F1 on the validation set, and F1 in percent."""
    lines = [line for line in run.log_lines() if line.get("step") == step and F1_LIMIT in line]
    return (lines[-1][F1_LIMIT], lines[-1].get("best_f1")) if lines else (None, None)


def write_scores(
    file: Path,
    data: "DetectionDataset",
    step: int,
    scores: dict[str, float | None],
    of_classes: dict[str, dict[str, float | None]],
) -> None:
    """Writes the scores of the detector after `step` steps, overall and for each class."""
    about = {"step": step, "data": data.name, "images": len(data), "style": data.style}
    content = {**about, "scores": scores, "classes": of_classes}
    write_atomically(file, json.dumps(content, indent=2).encode() + b"\n")


def _description(
    recipe: FinetuneRecipe, data: "DetectionDataset", start: dict[str, str] | None, val: "DetectionDataset | None"
) -> dict[str, Any]:
    """The content of run.json, in plain JSON types."""
    detector = recipe.settings.detector
    return {
        "recipe": recipe.as_dict(),
        "train": data.name,
        "data": describe_dataset(data, detector),
        "val": None if val is None else {"images": len(val), "style": val.style, **contents(val, detector)},
        "start": start,
        "problems": data.problems.as_json(),
    }


def _clear(run: RunFolder) -> None:
    """Removes what a fine-tuning run writes, and nothing else."""
    run.clear()
    for name in (SCORES, PREDICTIONS, IMAGES):
        (run.path / name).unlink(missing_ok=True)


def _check_same(run: RunFolder, description: dict[str, Any]) -> None:
    """InputError unless the folder holds the same run."""
    there = run.describe()
    fields = {key: value for key, value in there["recipe"].items() if key != "name"}
    there["recipe"] = {**there["recipe"], **with_defaults(FinetuneRecipe, fields)}
    if "all_modules" not in fields.get("settings", {}):  # of an earlier version; its weights are loaded
        there["recipe"].get("settings", {})["all_modules"] = description["recipe"]["settings"]["all_modules"]
    _refuse_more_steps(run, description["recipe"], there["recipe"])
    starts = requested_start(description["start"], there.get("start")), start_path(there.get("start"))
    scored = ("val",) if description["val"] and there.get("val") else ()  # APs on different datasets cannot be compared
    run.refuse_other(
        *(
            {"init": start, **{part: one.get(part) for part in ("recipe", "data", *scored)}}
            for start, one in zip(starts, (description, there), strict=True)
        )
    )


LENGTH = {
    "settings": ("iterations", "epochs", "schedule"),
    "schedule": ("iterations", "warmup_iterations", "precise_bn"),
}
"""Fields of a recipe that change with its length."""


def _refuse_more_steps(run: RunFolder, requested: dict[str, Any], recorded: dict[str, Any]) -> None:
    """InputError, with advice, when the same run is requested with another length, since its schedule would change."""

    def without_length(recipe: dict[str, Any]) -> dict[str, Any]:
        parts = {part: dict(recipe.get(part) or {}) for part in LENGTH}
        for part, names in LENGTH.items():
            for name in names:
                parts[part].pop(name, None)
        return {**recipe, **parts}

    steps, before = (recipe["schedule"]["iterations"] for recipe in (requested, recorded))
    if steps != before and without_length(requested) == without_length(recorded):
        raise InputError(
            f"{run.path}: is a run of {counted(before, 'step')}, not {steps:,}, and its learning rate depends on its "
            "length; resume it with the flags it was started with, or, to train its detector further, start a new run "
            f"from it: --init {run.path} --output another folder"
        )
