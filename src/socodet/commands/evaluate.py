"""`socodet evaluate`: a fine-tuned detector's scores on a set."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


def evaluate(argv: Sequence[str]) -> None:
    """Score a fine-tuned detector on an annotated set."""
    from socodet.commands.parsing import Flat, call, printable
    from socodet.finetuning.evaluate import Evaluation
    from socodet.finetuning.run import score_table
    from socodet.training.settings import ExecutionSettings

    def arguments(
        run: tyro.conf.Positional[Path],
        data: Path,
        split: str = "val",
        images: Path | None = None,
        output: Path | None = None,
        save_predictions: Path | None = None,
        execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),  # noqa: B008
        overwrite: bool = False,
    ) -> Evaluation:
        """Score a fine-tuned detector on an annotated set of the categories that it was trained on.

        Args:
            run: Folder that `socodet finetune` wrote.
            data: Annotated set: a COCO or LVIS .json, a folder in COCO's or Pascal VOC's layout, or a VOC list.
            split: Which part of a folder.
            images: Folder of the images of a .json file, if they are not found nearby.
            output: File for the scores, .json.
            save_predictions: File for the detections, in COCO's result format.
            overwrite: Replace files that exist.
        """
        from socodet.finetuning.evaluate import evaluate_run

        return evaluate_run(
            run,
            data,
            split=split,
            images=images,
            output=output,
            save_predictions=save_predictions,
            execution=execution,
            overwrite=overwrite,
        )

    result = call(arguments, "evaluate", argv)
    for file in result.unreadable[:10]:
        print(f"not readable, nothing found in it: {printable(file)}", file=sys.stderr)
    print(score_table(result.scores))
