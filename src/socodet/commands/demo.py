"""`socodet demo`: all of it on a few photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socodet.commands.parsing import call


def demo(argv: Sequence[str]) -> None:
    """All of it on a few photographs: propose, pretrain, export, load, and a page that shows what happened."""

    def arguments(
        images: Path | None = None, output: Path = Path("demo"), overwrite: bool = False, seed: int = 0
    ) -> Any:
        """All of it on a few photographs: propose, pretrain, export, load, and a page that shows what happened.

        Args:
            images: Folder of images; by default the photographs that come with the package.
            output: Folder for everything it makes.
            overwrite: Throw away an earlier demo in that folder.
            seed: Of the run.
        """
        from socodet.reports.demo import demo

        return demo(images, output, overwrite=overwrite, seed=seed)

    print(call(arguments, "demo", argv))
