"""`socodet finetune`: a detector from pretrained weights and an annotated set."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro


def finetune(argv: Sequence[str]) -> None:
    """Fine-tune a detector on annotated images, from a pretraining run, a backbone's file or from scratch."""
    from socodet.commands.parsing import Flat, call, exit_if_stopped, goes_on, printable, value_of
    from socodet.detection.finetune import EvaluationSettings, FinetuneResult
    from socodet.detection.finetuned_run import score_table
    from socodet.models.settings import ModelSettings
    from socodet.training.settings import ExecutionSettings
    from socodet.training.weights import model_settings

    init_given = value_of("--init", argv)
    is_run = init_given is not None and (Path(init_given) / "run.json").is_file()
    base = model_settings(init_given) if is_run and init_given is not None else ModelSettings()

    def arguments(
        train: tyro.conf.Positional[Path],
        output: Path,
        init: str = "scratch",
        detector: Literal[
            "mask_rcnn_r50_fpn",
            "mask_rcnn_r50_c4",
            "faster_rcnn_r50_c4",
            "faster_rcnn_r50_fpn",
            "retinanet_r50_fpn",
            "fcos_r50_fpn",
        ] = "mask_rcnn_r50_fpn",
        val: Path | None = None,
        images: Path | None = None,
        schedule: Literal["coco_1x", "coco_2x", "coco_4x", "mini_coco", "voc_24k", "lvis_1x", "lvis_90k"] = "coco_1x",
        iterations: int | None = None,
        epochs: float | None = None,
        batch_size: int = 16,
        base_lr: float | None = None,
        size: int | None = None,
        fraction: float | None = None,
        precise_bn: int | None = None,
        seed: int = 0,
        model: Annotated[ModelSettings, Flat] = base,
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        resume: bool = False,
        overwrite: bool = False,
    ) -> FinetuneResult:
        """Fine-tune a detector on annotated images, from a pretraining run, a backbone's file or from scratch.

        The same command again goes on with a run that was interrupted. The sizes of the modules are those of the run
        that --init names, if it does.

        Args:
            train: Annotated set: a COCO or LVIS .json, a folder in COCO's or Pascal VOC's layout, or a VOC list.
            output: Folder of the run.
            init: First weights: a pretraining run's folder, an exported file, a backbone's state dict, or scratch.
            detector: Which detector; a set without masks trains the one without them.
            val: Annotated set to score on; by default the validation part of a folder.
            images: Folder of the images of a .json file, if they are not found nearby.
            schedule: Length, drops, decay and sizes, as the paper has them for a data set.
            iterations: Steps, in place of the schedule's.
            epochs: Passes over the training images, in place of the schedule's steps.
            batch_size: Images a step, over all processes; the schedule's steps and rate are for 16 and follow.
            base_lr: Learning rate at batches of 16, in place of the schedule's.
            size: Shorter side of an image at most; all sizes of the schedule shrink in proportion.
            fraction: Take this part of the training images, chosen by --seed (Mini COCO: 0.05 or 0.1).
            precise_bn: Training batches that batch norm's statistics are taken from before an evaluation.
            seed: Of fresh weights, the order of the images and every draw.
            resume: Go on with the run in the folder; no error when it is finished already.
            overwrite: Throw away the run that is in the folder.
        """
        from socodet.detection.finetune import finetune

        return finetune(
            train,
            output,
            val=val,
            images=images,
            init=init,
            detector=detector,
            model=model,
            schedule=schedule,
            iterations=iterations,
            epochs=epochs,
            batch_size=batch_size,
            base_lr=base_lr,
            size=size,
            fraction=fraction,
            precise_bn=precise_bn,
            seed=seed,
            evaluation=evaluation,
            execution=execution,
            resume=resume,
            overwrite=overwrite,
        )

    result = call(arguments, "finetune", argv)
    if not result.is_first:
        exit_if_stopped(result.stopped_by)
        return
    for reason in result.unreadable[:10]:
        print(f"left out: {printable(reason)}", file=sys.stderr)
    if len(result.unreadable) > 10:
        print(f"and {len(result.unreadable) - 10} more", file=sys.stderr)
    if result.evaluation is not None:
        print(score_table(result.evaluation.scores))
    if result.finished:
        print(f"{result.run}: {result.detector} finished, {result.steps} steps")
    else:
        print(
            f"{result.run}: stopped by {result.stopped_by} after {result.steps} of {result.total_steps} steps"
            f"{goes_on(argv)}"
        )
    exit_if_stopped(result.stopped_by)
