"""`socodet finetune`: trains a detector from pretrained weights on an annotated dataset, or compares several."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from socodet.commands.messages import how_far, list_unreadable, print_scores, resume_hint
from socodet.commands.parsing import Flat, reads_images, values_of
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.inputs import check_finetuning_arguments, check_paths_exist
from socodet.finetuning.run import SCORES, FinetuneRecipe, is_finetuned
from socodet.finetuning.settings import SCRATCH, EvaluationSettings, FinetuneSettings
from socodet.images.reading import requested_reading
from socodet.models.settings import ModelSettings
from socodet.runtime.extensions import is_extension
from socodet.runtime.notices import notice
from socodet.runtime.settings import Seed, problem
from socodet.studies.inits import named_inits, shared_model
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.pretrained_run import is_short_run, only_its_backbone

if TYPE_CHECKING:
    from socodet.finetuning.finetune import FinetuneResult
    from socodet.studies.comparison import Comparison

EVERYDAY = (
    *("train", "output", "init", "detector", "val", "val-share", "epochs", "iterations", "size", "batch-size", "seeds"),
    *("fractions", "patience", "device", "workers", "resume", "overwrite"),
)


def defaults(argv: Sequence[str]) -> dict[str, Any]:
    """Module sizes are those of the first --init that is a run or else a file; so is a fine-tuned run's detector.

    If that folder no longer exists, they are those of the run or comparison that started from it.
    """
    inits = named_inits(values_of("--init", argv))
    begun = None if "--overwrite" in argv else next(reversed(values_of("--output", argv)), None)
    chosen: dict[str, Any] = {"model": shared_model(inits, begun)}
    source = inits[0].source if len(inits) == 1 and not inits[0].is_scratch else None
    if source is not None and begun is not None and not Path(source).exists() and RunFolder(Path(begun)).checkpoints():
        source = begun
    if source is not None and is_finetuned(source):
        there = FinetuneRecipe.of_run(RunFolder(Path(source))).settings
        pools = all("rcnn" in one or is_extension(one) for one in values_of("--detector", argv))
        chosen["settings"] = FinetuneSettings(
            there.detector,
            size=there.size,
            rois_per_image=there.rois_per_image if pools else None,  # with another detector, the run is refused anyway
            batch_size=there.batch_size,
        )
    return chosen


@reads_images
def finetune(
    train: tyro.conf.Positional[Path],
    output: Path,
    init: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    seeds: tuple[Seed, ...] = (),
    fractions: tuple[float, ...] = (),
    val: Path | None = None,
    images: Path | None = None,
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    settings: Annotated[FinetuneSettings, Flat] = FinetuneSettings(),
    model: Annotated[ModelSettings, Flat] = ModelSettings(),
    evaluation: EvaluationSettings = EvaluationSettings(),
    patience: int | None = None,
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    resume: bool = False,
    retry_diverged: bool = False,
    overwrite: bool = False,
) -> Any:
    """Fine-tune a detector on annotated images, or compare initial weights, seeds and label fractions.

    The same command resumes an interrupted one. The detector's modules get the sizes of those that --init names, a run
    or a file of weights; a file with a backbone other than torchvision's ResNets needs --backbone.

    With several --init, --seeds or --fractions, every --init is trained with every seed on every fraction of the
    labels, each as a run under --output, and a table gives the mean and standard deviation. More can be added later.

    Args:
        train: Annotated dataset: a folder or file in the format of COCO, LVIS, VOC, YOLO, CVAT, Label Studio, LabelMe,
            VIA, Roboflow, Hugging Face or tools that write these, or a table of boxes (docs/data.md).
        output: Folder of the run, or of the comparison.
        init: Initial weights: a pretraining run's folder, hub:USER/NAME on the Hugging Face Hub, a file of weights, or
            scratch, the default. A file can be an export, a checkpoint of the method's public code, or the state dict
            of a backbone or of one of torchvision's detectors. With a fine-tuned detector's folder, its training
            continues, and its heads keep the classes with the same names. Several --init are compared; NAME=PATH
            names one in the table.
        seeds: Compare runs with these seeds, such as 0 1 2. A single number above 0 is a count of seeds.
        fractions: Compare fractions of the training images, such as 0.01 0.05 0.1 0.5 1, chosen by the seed and the
            same for every --init.
        val: Annotated dataset to score on; by default the folder's validation split, or --val-share of the images.
        images: Folder of the images, if they are not found nearby; also for --val, unless that dataset has its own.
        patience: End the run after this many evaluations in a row without a higher box AP. Evaluations before the
            learning rate drops say little about AP after the drop.
        resume: Resume the run in the folder; no error if it is already finished. Comparisons always resume.
        retry_diverged: Rerun the diverged runs of a comparison from their last good checkpoint.
        overwrite: Delete the run or comparison in the folder.
    """
    check_paths_exist(train, val)
    result: FinetuneResult | Comparison
    comparing = len(init) > 1 or bool(seeds or fractions)
    if not comparing:
        if retry_diverged:
            raise InputError("--retry-diverged is for a comparison; a single run resumes with the same command")
        start = named_inits(init)[0].source if init else SCRATCH
        goes_on = check_finetuning_arguments(
            train,
            val,
            output=output,
            init=start,
            backbone_only=settings.backbone_only,
            patience=patience,
            overwrite=overwrite,
        )
        chosen = goes_on or start == SCRATCH or settings.backbone_only or settings.all_modules
        if not chosen and is_short_run(start) and not only_its_backbone(start):
            notice(
                f"note: {start} is a short run; after such runs the backbone alone gave better detectors "
                "(--backbone-only; docs/results.md)"
            )
        from socodet.finetuning.finetune import finetune as finetune_once

        result = finetune_once(
            train,
            output,
            settings,
            val=val,
            images=images,
            reading=reading,
            init=start,
            model=model,
            evaluation=evaluation,
            execution=execution,
            patience=patience,
            resume=resume,
            overwrite=overwrite,
        )
    else:
        if patience is not None:
            raise InputError("--patience is for a single run; compared runs all have the same length")
        wrong = problem("seeds", seeds, tuple[Seed, ...])
        if wrong:
            raise InputError(wrong)
        if len(seeds) == 1 and seeds[0] > 0:
            first, count = settings.seed, seeds[0]
            seeds = tuple(range(first, first + count))
            notice(f"note: --seeds {count} alone is read as {count} seeds; write --seeds {' '.join(map(str, seeds))}")
        from socodet.studies.comparison import compare

        result = compare(
            train,
            output,
            named_inits(init or (SCRATCH,)),
            settings,
            seeds=seeds or None,
            fractions=fractions or None,
            val=val,
            images=images,
            reading=reading,
            model=model,
            evaluation=evaluation,
            execution=execution,
            retry_diverged=retry_diverged,
            overwrite=overwrite,
        )
    if result.is_first:
        list_unreadable(result.unreadable)
        hint = resume_hint(overwrite)
        if comparing:
            _print_comparison(cast("Comparison", result), hint if result.stopped_by or execution.max_steps else "")
        else:
            run = cast("FinetuneResult", result)
            _print_run(run, hint, _scored_on(train, val, images, reading) if run.evaluation else "--data SET")
    return result


def _scored_on(train: Path, val: Path | None, images: Path | None, reading: ReadingSettings) -> str:
    """The flags that make `evaluate` score the same images as this run."""
    from socodet.detection.datasets.validation_set import images_for_other, split_to_score

    elsewhere = images if val is None else images_for_other(val, train, images)
    flags = {
        "--data": val or train,
        "--split": None if val is None else split_to_score(val, elsewhere),
        "--images": elsewhere,
        "--val-share": reading.val_share,
        "--val-seed": reading.val_seed if reading.val_share else 0,
        "--box-form": reading.box_form,
    }
    words = [str(word) for flag, value in flags.items() if value not in (None, 0, "val") for word in (flag, value)]
    return shlex.join([*words, *["--outside-images"] * requested_reading().settings.outside_images])


def _print_run(result: "FinetuneResult", hint: str, scored_on: str) -> None:
    if result.evaluation is not None:
        print_scores(result.evaluation, result.run / SCORES)
    if result.best is not None:
        step, ap = result.best
        print(f"best checkpoint: step {step:,}, box AP {ap:.2f} of 100; predict, evaluate and export use it")
    print(f"{result}{'' if result.finished else hint}")
    if not result.finished:
        return
    run = shlex.quote(str(result.run))
    print(
        "next:\n"
        f"  socodet predict {run} IMAGES --output FOLDER --draw\n"
        f"  socodet evaluate {run} {scored_on}\n"
        f"  socodet export {run} --format onnx --output FILE.onnx"
    )


def _print_comparison(comparison: "Comparison", hint: str) -> None:
    print(comparison.as_markdown())
    print(f"{comparison.markdown}: {how_far(comparison.runs, 'runs', hint)}")
