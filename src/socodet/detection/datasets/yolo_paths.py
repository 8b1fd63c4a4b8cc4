"""Locates the splits that a `data.yaml`, or Darknet's `obj.data`, names."""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from socodet.detection.datasets.splits import SPELLINGS
from socodet.errors import InputError
from socodet.runtime.notices import notice


def locate_path(written: str, roots: Sequence[Path]) -> Path | None:
    """The file or folder that a value names, below the first root that has it; otherwise found by the end of its path.

    The end must distinguish splits: a last name alone, such as `images`, counts only if it is the name of a split.
    """
    parts = [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts and written:
        return roots[0]
    for start in range(len(parts)):
        elsewhere = any(part != ".." for part in parts[:start])
        for root in roots:
            path = root / ("/".join(parts[start:]) if start else written.replace("\\", "/"))
            try:
                there = path.is_file() or (path.is_dir() and (not elsewhere or identifies_split(parts[start:])))
            except (OSError, ValueError):  # a name that no file can have
                continue
            if there:
                if elsewhere:
                    notice(f"{written}, a path on another machine, is taken to be {path}")
                return path
    return None


def folder_of_last_name(written: str, above: Path) -> list[Path]:
    """The folder beside the file with the last name of a path, where splits are looked for if not beside the file."""
    name = PureWindowsPath(written).name
    return [above / name] if name not in ("", "..") and (above / name).is_dir() else []


def identifies_split(end: Sequence[str]) -> bool:
    """Whether the end of a path can belong to only one split."""
    return len(end) > 1 or any(end[0].lower() in names for names in SPELLINGS.values())


def refuse_ambiguous_split(file: Path, split: str, written: str, place: Path) -> None:
    """InputError if a split exists both beside the folder of its file, as the file says, and inside that folder.

    Roboflow writes `../train/images` for a folder beside the file; the one above may belong to another dataset that was
    unpacked there.
    """
    above = file.absolute().parent
    end = written.replace("\\", "/").removeprefix("../")
    if not identifies_split(end.split("/")[:1]):
        return
    inner = above / end
    if inner != place == above / written and inner.exists() and not inner.samefile(place):
        raise InputError(
            f"{file}: its {split} is {written}, and {inner} is there too; write {inner.relative_to(above)} if that is "
            "meant, or else path: .. beside it"
        )
