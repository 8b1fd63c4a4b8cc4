"""`socodet report`: one page about a run, or several side by side."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings


@reads_images
def report(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    output: Path = Path("report.html"),
    images: Path | None = None,
    data: Path | None = None,
    split: str = "val",
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    overwrite: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Any:
    """Write one HTML page about runs: settings, curves, and what their networks see in images.

    Args:
        runs: One or more folders that `socodet pretrain` or `socodet finetune` wrote; several are compared.
        output: Page to write, .html.
        images: Images to show, if they have moved since the first run; with --data FILE.json, the images of that file.
        data: Annotated dataset to run fine-tuned detectors on, to show precision, recall and their worst images.
        split: Split of --data, if it is a folder; `all` for one without splits.
        overwrite: Replace an existing page.
        device: Where the networks run; auto takes a CUDA device if there is one.
    """
    from socodet.reports.report import report

    result = report(
        runs, output, images=images, data=data, split=split, reading=reading, overwrite=overwrite, device=device
    )
    print(result)
    return result
