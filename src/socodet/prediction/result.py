"""What a call of `predict` returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from socodet.runtime.counted import counted
from socodet.runtime.shown import LISTED, Shown, ShownPart, ShownTable, ShownThumbnail


@dataclass(frozen=True)
class PredictResult(Shown):
    """What a call of `predict` did."""

    output: Path
    images: int
    """Number of images given."""
    done: int
    """How many of them are processed, by this call or an earlier one."""
    detections: int
    unreadable: tuple[tuple[str, str], ...]
    """Name of each image that could not be read, and the reason."""
    stopped_by: str | None
    seconds: float
    limits: str = ""
    """A description of which scores are written and drawn."""
    of_classes: Mapping[str, int] = field(default_factory=dict)
    """Number of detections by class."""
    drawn: tuple[Path, ...] = ()
    """A few of the drawings, those with the highest scores first."""

    @property
    def finished(self) -> bool:
        """Whether every image is processed and the files are written."""
        return self.done == self.images

    def __str__(self) -> str:
        if self.finished:
            left_out = len(self.unreadable)
            found = f"{counted(self.detections, 'detection')} in {counted(self.images - left_out, 'image')}"
            if left_out:
                found += f" ({left_out:,} could not be read)"
            return f"{self.output}: {found}, {self.limits}"
        return f"{self.output}: stopped by {self.stopped_by} after {self.done:,} of {counted(self.images, 'image')}"

    def shown(self) -> list[ShownPart]:
        """The number of objects of each class, the images that could not be read, and a few drawings."""
        rows = [(name, f"{count:,}") for name, count in self.of_classes.items()]
        parts: list[ShownPart] = [ShownTable(rows, ("class", "detections"))] if rows else []
        if self.unreadable:
            caption = f"{len(self.unreadable):,} images could not be read"
            parts.append(ShownTable(self.unreadable[:LISTED], ("image", "reason"), caption))
        return [*parts, *(ShownThumbnail.of(file, f"detections in {file.name}") for file in self.drawn)]
