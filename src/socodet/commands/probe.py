"""`socodet probe`: how much a run's network knows about annotated objects."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings
from socodet.probing.settings import ProbeData, ProbeSettings

EVERYDAY = ("run", "data", "val", "untrained", "output", "device", "overwrite")


@reads_images
def probe(
    run: tyro.conf.Positional[Path],
    data: Annotated[ProbeData, Flat],
    settings: Annotated[ProbeSettings, Flat] = ProbeSettings(),
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    untrained: bool = False,
    output: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
    overwrite: bool = False,
) -> Any:
    """Measure how much a run's network knows about annotated objects, without fine-tuning.

    Nearest neighbours and logistic regression predict the classes of the validation objects from features of the
    training objects. Objects are also looked up in another view, and compared at two scales.

    Args:
        run: Folder that `socodet pretrain` wrote.
        untrained: Also probe the run's random initialisation. This takes more than twice as long.
        output: .json file for the scores.
        device: Where the network runs; auto takes a CUDA device if there is one.
        workers: Number of processes that read images; by default one per core, or fewer if the network also runs on the
            CPU, or if their batches would fill more than half of the available memory.
        overwrite: Replace an existing file.
    """
    from socodet.probing.probe import probe

    scores = probe(
        run,
        data,
        settings=settings,
        reading=reading,
        untrained=untrained,
        output=output,
        device=device,
        workers=workers,
        overwrite=overwrite,
    )
    print(scores)
    return scores
