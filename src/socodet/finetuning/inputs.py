"""Checks the arguments of `finetune`, `evaluate` and `predict` before importing torch, which takes seconds."""

from numbers import Integral, Real
from pathlib import Path
from typing import Any

from socodet.errors import InputError, SettingError
from socodet.finetuning.run import ended_with_only_best, is_finetuned
from socodet.finetuning.settings import SCRATCH
from socodet.runtime.files import check_output_file
from socodet.runtime.overwriting import refuse_to_delete
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile


def check_finetuning_arguments(
    *sets: Any, output: str | Path, init: str | Path, backbone_only: bool, patience: int | None, overwrite: bool
) -> bool:
    """Whether the folder's run goes on, or has ended. InputError for unusable datasets, weights or output folder."""
    if patience is not None and patience < 1:
        raise InputError(f"--patience must be at least 1, not {patience}")
    if overwrite:
        refuse_to_delete(output, {"--init": None if str(init) == SCRATCH else init})
    run = RunFolder(Path(output))
    there = bool(run.checkpoints()) or ended_with_only_best(run, patience) is not None
    from_own_checkpoint = there and not overwrite  # the initial weights may be gone
    if str(init) != SCRATCH and not from_own_checkpoint:
        WeightsFile.find(init)
    if backbone_only and (str(init) == SCRATCH or is_finetuned(init)):
        what = "initial weights are scratch" if str(init) == SCRATCH else f"{init} is a detector, trained on as a whole"
        raise InputError(
            f"--backbone-only: {what}; give a pretraining run or a file of weights as --init, or leave the flag out"
        )
    run.refuse_foreign()
    check_paths_exist(*sets)
    return from_own_checkpoint


def check_evaluation_arguments(
    run: str | Path, data: Any, output: str | Path | None, save_predictions: str | Path | None, *, overwrite: bool
) -> tuple[Path | None, Path | None]:
    """The files for scores and detections. InputError if these, the run or the dataset cannot be used."""
    scores, predictions = (
        None if path is None else check_output_file(path, overwrite=overwrite) for path in (output, save_predictions)
    )
    if scores and predictions and scores.resolve() == predictions.resolve():
        raise InputError(f"{scores}: cannot hold both the scores and the detections; give two names")
    RunFolder(Path(run)).require_detector()
    check_paths_exist(data)
    return scores, predictions


def check_paths_exist(*sets: Any) -> None:
    """InputError for a path that does not exist."""
    for given in sets:
        if isinstance(given, str | Path) and not Path(given).exists():
            raise InputError(f"{given}: no such file or folder; give an annotated dataset (docs/data.md)")


def check_limits(min_score: float | None, max_detections: int | None, batch_size: int) -> None:
    """SettingError for a limit on detections, or a batch size, that is not a number in its range."""
    if min_score is not None and not (_is_number(min_score, Real) and 0 <= min_score <= 1):
        raise SettingError(f"min_score must be a number between 0 and 1, not {min_score!r}")
    for name, value in (("max_detections", max_detections), ("batch_size", batch_size)):
        if value is None and name == "max_detections":
            continue
        if not (_is_number(value, Integral) and value >= 1):  # type: ignore[operator]
            raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
