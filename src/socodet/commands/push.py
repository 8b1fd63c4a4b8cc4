"""`socodet push`: a run on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

import tyro

from socodet.runtime.log import LOGGER
from socodet.training.run_folder import Checkpoint


def push(
    run: tyro.conf.Positional[Path],
    repository: tyro.conf.Positional[str],
    license: str | None = None,
    datasets: tuple[str, ...] = (),
    private: bool = False,
    checkpoint: Checkpoint = "best",
) -> Any:
    """Put a run on the Hugging Face Hub: its weights as safetensors, its settings, log and a model card.

    Afterwards every command takes it as hub:USER/NAME, or hub:USER/NAME@REVISION.

    Args:
        run: Folder that `socodet pretrain` or `socodet finetune` wrote.
        repository: USER/NAME; it is made if it is not there, and otherwise gets another commit.
        license: Of the weights, by the Hub's name for it, such as cc-by-4.0; the model card states it.
        datasets: What it was trained on, by the Hub's names of data sets, for the model card.
        private: Make a repository that only you can read.
        checkpoint: Of a fine-tuned detector: the best on its validation set, if it was scored during training, or the
            last.
    """
    from socodet.deployment.push import push

    pushed = push(run, repository, license=license, datasets=datasets, private=private, checkpoint=checkpoint)
    print(pushed)
    if license is None:
        LOGGER.info("note: no licence is stated, and others may not use it without one; --license states it")
    print(
        f"next:\n  socodet predict {pushed.name} IMAGES --output FOUND"
        if pushed.is_detector
        else f"next:\n  socodet finetune SET --init {pushed.name} --output DETECTOR"
    )
    return pushed
