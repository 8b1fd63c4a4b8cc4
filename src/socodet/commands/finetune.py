"""`socodet finetune`: a detector from pretrained weights and an annotated set, or several compared."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from socodet.commands.parsing import Flat, call, exit_if_stopped, goes_on, printable, value_of
from socodet.errors import InputError

if TYPE_CHECKING:
    from socodet.finetuning.finetune import FinetuneResult
    from socodet.models.settings import ModelSettings
    from socodet.studies.comparison import Comparison


def finetune(argv: Sequence[str]) -> None:
    """Fine-tune a detector on annotated images, or compare several first weights, seeds and parts of the labels."""
    from socodet.finetuning.finetune import SCRATCH, FinetuneResult, finetune
    from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
    from socodet.models.settings import ModelSettings
    from socodet.studies.comparison import Comparison, compare, named_inits
    from socodet.training.settings import ExecutionSettings

    base = _shared_model(argv)

    def arguments(
        train: tyro.conf.Positional[Path],
        output: Path,
        init: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
        seeds: int | None = None,
        fractions: tuple[float, ...] = (),
        val: Path | None = None,
        images: Path | None = None,
        settings: Annotated[FinetuneSettings, Flat] = FinetuneSettings(),  # noqa: B008
        model: Annotated[ModelSettings, Flat] = base,
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        resume: bool = False,
        retry_diverged: bool = False,
        overwrite: bool = False,
    ) -> FinetuneResult | Comparison:
        """Fine-tune a detector on annotated images, or compare several first weights, seeds and parts of the labels.

        The same command again goes on with what was interrupted. The sizes of the modules are those of the run that
        --init names, if it does.

        Several --init, or --seeds, or --fractions: every --init with every seed on every part of the labels, each a
        run under --output, and a table with mean and spread. More of them may be added later.

        Args:
            train: Annotated set: a COCO or LVIS .json, a folder in COCO's or Pascal VOC's layout, or a VOC list.
            output: Folder of the run, or of the comparison.
            init: First weights: a pretraining run's folder, an exported file, a checkpoint of the method's public code,
                a backbone's state dict, or scratch, the default. Given several times, they are compared; NAME=PATH
                gives one a name in the table.
            seeds: Compare so many runs of each kind, with the seeds from --seed on.
            fractions: Compare parts of the training images, such as 0.01 0.05 0.1 0.5 1, chosen by the seed and the
                same for every --init.
            val: Annotated set to score on; by default the validation part of a folder.
            images: Folder of the images of a .json file, if they are not found nearby.
            resume: Go on with the run in the folder; no error when it is finished already. A comparison always does.
            retry_diverged: Of a comparison, run those runs that diverged again, from their last good checkpoint.
            overwrite: Throw away what is in the folder.
        """
        if len(init) < 2 and seeds is None and not fractions:
            if retry_diverged:
                raise InputError("--retry-diverged is for a comparison; a single run goes on with the same command")
            return finetune(
                train,
                output,
                settings,
                val=val,
                images=images,
                init=named_inits(init)[0].source if init else SCRATCH,
                model=model,
                evaluation=evaluation,
                execution=execution,
                resume=resume,
                overwrite=overwrite,
            )
        if settings.fraction is not None and fractions:
            raise InputError("--fraction and --fractions: give one of them")
        if seeds is not None and seeds < 1:
            raise InputError(f"--seeds must be at least 1, not {seeds}")
        return compare(
            train,
            output,
            named_inits(init or (SCRATCH,)),
            settings,
            seeds=range(settings.seed, settings.seed + (seeds or 1)),
            fractions=fractions or (settings.fraction or 1.0,),
            val=val,
            images=images,
            model=model,
            evaluation=evaluation,
            execution=execution,
            retry_diverged=retry_diverged,
            overwrite=overwrite,
        )

    result = call(arguments, "finetune", argv)
    if result.is_first:
        for reason in result.unreadable[:10]:
            print(f"left out: {printable(reason)}", file=sys.stderr)
        if len(result.unreadable) > 10:
            print(f"and {len(result.unreadable) - 10} more", file=sys.stderr)
        if isinstance(result, Comparison):
            _tell_comparison(result, argv)
        else:
            _tell_run(result, argv)
    exit_if_stopped(result.stopped_by)


def _tell_run(result: "FinetuneResult", argv: Sequence[str]) -> None:
    from socodet.finetuning.run import score_table

    if result.evaluation is not None:
        print(score_table(result.evaluation.scores))
    if result.finished:
        print(f"{result.run}: {result.detector} finished, {result.steps} steps")
    else:
        print(
            f"{result.run}: stopped by {result.stopped_by} after {result.steps} of {result.total_steps} steps"
            f"{goes_on(argv)}"
        )


def _tell_comparison(comparison: "Comparison", argv: Sequence[str]) -> None:
    print(comparison.as_markdown())
    finished, diverged = (sum(getattr(run, state) for run in comparison.runs) for state in ("finished", "diverged"))
    left = len(comparison.runs) - finished - diverged
    ended_early = comparison.stopped_by is not None or value_of("--max-steps", argv) is not None
    print(
        f"{comparison.markdown}: {finished} of {len(comparison.runs)} runs finished, {diverged} diverged"
        f"{f', {left} to go' if left else ''}{goes_on(argv) if left and ended_early else ''}"
    )


def _shared_model(argv: Sequence[str]) -> "ModelSettings":
    """Sizes of the modules: those of the first --init that is a run's folder."""
    from socodet.studies.comparison.protocol import named_inits, shared_model

    pairs = zip(argv, [*argv[1:], ""], strict=True)
    given = (value_of("--init", pair) for pair in pairs)  # every one, where value_of alone gives the last
    return shared_model(named_inits([init for init in given if init]))
