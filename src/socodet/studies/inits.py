"""The initial weights that a study compares, with their names in tables and folders."""

import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from socodet.errors import ArgumentError, InputError
from socodet.finetuning.settings import SCRATCH
from socodet.images.reading import PLAIN, PixelReading
from socodet.models.settings import ModelSettings
from socodet.runtime.files import read_note
from socodet.runtime.serialization import from_json
from socodet.training.run_folder import RunFolder
from socodet.weights.hub import download, is_on_hub, origin
from socodet.weights.pretrained_run import model_settings

COMPARISON = "comparison.json"
"""The file that describes a comparison in its folder."""


@dataclass(frozen=True)
class Init:
    """Initial weights and their name."""

    name: str
    source: str | Path
    """A pretraining run's folder, a file of weights, or `scratch`: what `finetune` takes as `init`."""

    def __post_init__(self) -> None:
        for field, given in (("name", self.name), ("source", self.source)):
            if not isinstance(given, str | Path):
                raise ArgumentError(f"Init: {field} must be text, not of type {type(given).__name__}")
        object.__setattr__(self, "source", str(download(self.source) if is_on_hub(self.source) else self.source))
        if not self.source:
            raise InputError(f"--init {self.name}=: the weights are missing; write NAME=PATH or NAME=scratch")
        if not self.name or self.name.startswith(".") or not self.name.isprintable() or set(self.name) & set("/\\|"):
            raise InputError(f"init {self.name!r}: cannot be a name in a table; name it yourself, --init NAME=PATH")

    @property
    def is_scratch(self) -> bool:
        """Whether it is `scratch`, with no pretrained weights."""
        return self.source == SCRATCH

    @property
    def place(self) -> str:
        """The absolute path, the name on the Hub, or `scratch`."""
        return SCRATCH if self.is_scratch else origin(self.source)


def named_inits(given: Sequence[str]) -> tuple[Init, ...]:
    """Initial weights from the command line: `PATH`, `scratch` or `NAME=PATH`.

    The default name is the folder's, or the file's without its suffix. Anything that exists as a path is a path, even
    with an equals sign.
    """
    inits = []
    for text in given:
        name, equals, source = text.partition("=")
        if is_on_hub(text):
            name, source = text.partition("@")[0].rpartition("/")[2], text
        elif not equals or "/" in name or Path(text).exists():
            path = Path(text)
            name, source = path.stem if path.is_file() else os.path.basename(os.path.realpath(path)), text
        inits.append(Init(name, source))
    return tuple(inits)


def check_distinct(what: str, values: Sequence[object], fix: str) -> None:
    """InputError if nothing is given to compare, or something is given twice."""
    if not values:
        raise InputError(f"a comparison needs at least one {what}")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"{what} {twice} is given twice; {fix}")


def check_case(names: Iterable[str], begun: Collection[str]) -> None:
    """InputError for a name that differs from another only in case, because macOS would keep their runs in one folder.

    Names that a comparison has `begun` with are kept, for comparisons of earlier versions.
    """
    first: dict[str, str] = {}
    for name in (*begun, *names):
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name and name not in begun:
            raise InputError(
                f"init {name}: differs from {other} only in case, and some disks use one folder for both; give it "
                "another name, --init NAME=PATH"
            )


def shared_model(inits: Sequence[Init], output: str | Path | None = None) -> ModelSettings:
    """Default module sizes: those of the first init that is a run's folder, otherwise those that the first file shows.

    If such an init no longer exists, but the run or comparison in `output` started from it, they are taken from there.
    """
    for init in inits:
        if not init.is_scratch and Path(init.source).is_dir():
            return model_settings(init.source)
    if output is not None and any(not init.is_scratch and not Path(init.source).exists() for init in inits):
        if RunFolder(Path(output)).checkpoints():
            return model_settings(output)
        note = read_note(Path(output) / COMPARISON)
        if note is not None:
            return from_json(ModelSettings, note["asked"]["model"], f"{Path(output) / COMPARISON}")
    file = next((init.source for init in inits if not init.is_scratch and Path(init.source).is_file()), None)
    if file is None:
        return ModelSettings()
    from socodet.weights.sizes import settings_of  # imports torch, which takes seconds

    return settings_of(file)


def shared_pixel_reading(inits: Sequence[Init]) -> PixelReading:
    """How the images of the runs among the inits were read; where two differ, the first counts."""
    runs = [RunFolder(Path(init.source)) for init in inits if not init.is_scratch]
    readings = (run.pixel_reading() for run in runs if run.exists())
    return reduce(PixelReading.filled_from, readings, PLAIN)
