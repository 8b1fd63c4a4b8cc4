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
    """Upload a run to the Hugging Face Hub: its weights as safetensors, its settings, log and a model card.

    Every command then accepts it as hub:USER/NAME or hub:USER/NAME@REVISION.

    Args:
        run: Folder that `socodet pretrain` or `socodet finetune` wrote.
        repository: USER/NAME; created if it does not exist, and otherwise given a new commit.
        license: Licence of the weights for the model card, by the Hub's name, such as cc-by-4.0.
        datasets: Datasets that it was trained on, for the model card, by their names on the Hub.
        private: Create a repository that only you can read.
        checkpoint: For a fine-tuned detector: the best on its validation set, if it was scored during training, or
            the last.
    """
    from socodet.deployment.push import push

    pushed = push(run, repository, license=license, datasets=datasets, private=private, checkpoint=checkpoint)
    print(pushed)
    if pushed.unfinished:
        LOGGER.info(f"note: the run is not finished; these are the weights after {pushed.unfinished}")
    if license is None:
        LOGGER.info("note: no licence is given, and without one others may not use the weights; set it with --license")
    print(
        f"next:\n  socodet predict {pushed.name} IMAGES --output FOUND"
        if pushed.is_detector
        else f"next:\n  socodet finetune SET --init {pushed.name} --output DETECTOR"
    )
    return pushed
