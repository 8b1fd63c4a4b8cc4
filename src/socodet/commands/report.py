"""`socodet report`: one page about a run, or several side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from socodet.commands.parsing import call


def report(argv: Sequence[str]) -> None:
    """Write one HTML page about runs: settings, curves, and what their networks see in pictures."""

    def arguments(
        runs: tyro.conf.Positional[tuple[Path, ...]],
        output: Path = Path("report.html"),
        images: Path | None = None,
        overwrite: bool = False,
        device: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> Any:
        """Write one HTML page about runs: settings, curves, and what their networks see in pictures.

        Args:
            runs: Folders that `socodet pretrain` or `socodet finetune` wrote; several are compared.
            output: The page, .html.
            images: The pictures to show, if they are no longer where the first run had them.
            overwrite: Replace a page that exists.
            device: Where the networks run; auto takes a CUDA device when there is one.
        """
        from socodet.reports.report import report

        return report(runs, output, images=images, overwrite=overwrite, device=device)

    result = call(arguments, "report", argv)
    for note in result.notes:
        print(f"note: {note}")
    print(f"{result.path}: written in {result.seconds:.0f} s")
