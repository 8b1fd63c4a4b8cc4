"""The files written for a framework."""

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.exporting.earlier import files_of_earlier, remove_unchanged, with_record
from socodet.runtime.files import SPECIAL, create_folder, is_special, resolve_path, write_atomically

_TORCH = (".pth", ".pt", ".safetensors")
SUFFIXES = {
    "torchvision": _TORCH,
    "timm": _TORCH,
    "detectron2": (".pkl",),  # Detectron2 recognises its own layout by it
    "mmdetection": (".pth",),
    "onnx": (".onnx",),
}
"""File suffixes of each format; transformers uses folders."""


@dataclass(frozen=True)
class FrameworkFiles:
    """Files for one framework, ready to be written, and what the card says about them."""

    weights: dict[Path, bytes]
    left_out: dict[Path, tuple[str, ...]]
    """For each file of weights, a description of the pretrained modules that are not in it."""
    how_to_load: str
    """Code that loads the files, in `language`."""
    configs: dict[Path, str] = field(default_factory=dict)
    configs_are: str = "config"
    """What the card calls each config file."""
    language: str = "python"
    notes: tuple[str, ...] = ()
    """Further notes for the card."""
    first_label: int = 1
    """The label of a detector's first class in that framework."""

    def write(self, card: Path, text: str, *, overwrite: bool) -> None:
        """Writes the files and the card, the weights last.

        InputError if a file exists and `overwrite` is false, unless its content is the same, for example after a call
        that was killed. If a file cannot be written, the new files are removed, so that the call can be repeated. With
        `overwrite`, files of an earlier export onto the same output that are not written again are removed (`earlier`).
        """
        configs = {path: content.encode(errors="backslashreplace") for path, content in self.configs.items()}
        files = {**configs, card: with_record(card, text, {**self.weights, **configs}), **self.weights}
        output = next(iter(self.weights))
        earlier = files_of_earlier(_cards_of(output), output, files) if overwrite else {}
        _refuse_to_replace([path for path, data in files.items() if not _is_same(path, data)], overwrite)
        new = [path for path in files if not os.path.lexists(path)]
        with ExitStack() as folders:
            for folder in sorted({path.parent for path in files}):
                folders.enter_context(create_folder(folder))
            try:
                for path, data in files.items():
                    write_atomically(path, data)
            except BaseException:
                for path in new:
                    path.unlink(missing_ok=True)
                raise
        remove_unchanged(earlier)


def python_string(text: str) -> str:
    """The text as a Python string literal in double quotes."""
    return '"' + repr(f'"{text}')[2:-1].replace('"', r"\"") + '"'


def state_dict_bytes(weights: Mapping[str, Tensor], output: Path) -> bytes:
    """The bytes of a state dict in the format of the output's suffix: `.safetensors`, or what torch.load reads."""
    if output.suffix == ".safetensors":
        return safetensors.torch.save(dict(weights))
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    return buffer.getvalue()


def _refuse_to_replace(paths: Iterable[Path], overwrite: bool) -> None:
    for path in paths:
        if is_special(path):
            raise InputError(f"{path}: {SPECIAL}; give another --output")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists; give another --output or pass --overwrite")


def _is_same(path: Path, data: bytes) -> bool:
    """Whether a file has these bytes."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def framework_path(output: Path, framework: str) -> Path:
    """`NAME-FRAMEWORK` beside the file, or NAME itself if it already ends with the framework."""
    end = f"-{framework}"
    return output.with_name(f"{output.stem.removesuffix(end)}{end}")


def card_path(output: Path, framework: str) -> Path:
    """The path of the card for `output`: `NAME-FRAMEWORK.md` beside a file, or `README.md` in a folder."""
    if framework == "transformers":
        return output / "README.md"
    return output.with_name(f"{framework_path(output, framework).name}.md")


def _cards_of(output: Path) -> list[tuple[Path, Path]]:
    """For each format in which `output` may have been exported, the path of its card and the folder of its configs."""
    cards = [(card_path(output, framework), framework_path(output, framework)) for framework in SUFFIXES]
    return [*cards, (card_path(output.parent, "transformers"), output.parent)]


def check_output(given: str | Path, format: str, formats: Iterable[str], *, overwrite: bool) -> tuple[Path, Path]:
    """The paths of the weights and of their card.

    InputError for a folder in place of a file or a file in place of a folder, for an existing file unless `overwrite`,
    and for a suffix that the format does not have; the message names those of `formats` that have it.
    """
    output = resolve_path(given)
    if output.is_dir() and format != "transformers":
        raise InputError(f"{output}: is a folder; give a file for --output")
    if output.exists() and not output.is_dir() and format == "transformers":
        raise InputError(f"{output}: is a file; give a folder for --output")
    ends = SUFFIXES.get(format, ())
    if ends and output.suffix not in ends:
        others = [other for other in formats if output.suffix in SUFFIXES.get(other, ())]
        way_out = f"; or choose the format that has {output.suffix}, {' or '.join(others)}" if others else ""
        raise InputError(f"{output}: a file of the format {format} ends in {' or '.join(ends)}; name it so{way_out}")
    _refuse_to_replace(() if output.is_dir() else (output,), overwrite)
    return output, card_path(output, format)
