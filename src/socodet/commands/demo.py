"""`socodet demo`: every step on a few photographs."""

from pathlib import Path
from typing import Any

import tyro

from socodet.commands.messages import resume_hint
from socodet.commands.parsing import reads_images


@reads_images
def demo(
    images: tyro.conf.Positional[Path | None] = None,
    output: Path = Path("demo"),
    overwrite: bool = False,
    seed: int = 0,
) -> Any:
    """Run every step on a few photographs: propose, pretrain, export, fine-tune, and a page with the results.

    Args:
        images: Folder of images; by default the photographs shipped with the package.
        output: Folder for all results.
        overwrite: Delete an earlier demo in the folder.
        seed: Random seed of the run.
    """
    from socodet.reports.demo import demo

    result = demo(images, output, overwrite=overwrite, seed=seed)
    if result.stopped_by is None:
        print(result)
    else:
        doing = "pretraining" if result.load_report is None else "fine-tuning"
        print(f"{output}: stopped by {result.stopped_by} while {doing}{resume_hint(overwrite=False)}")
    return result
