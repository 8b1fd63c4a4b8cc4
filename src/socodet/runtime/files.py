"""Files written whole, and the JSON notes of what was asked."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socodet.errors import InputError


def write_atomically(path: Path, data: bytes) -> None:
    """All of `data` at `path`, or what was there before: never a part, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def check_output_file(path: str | Path, *, overwrite: bool) -> Path:
    """The file that something may be written to, in a folder that is there; asked before the work is done.

    InputError when it exists, unless `overwrite`, or is a folder.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{file}: is a folder; give the name of a file")
    if file.exists() and not overwrite:
        raise InputError(f"{file}: exists; give another name or pass --overwrite")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def read_note(path: Path) -> dict[str, Any] | None:
    """What a JSON file says of what was asked or how something ended; None where there is none."""
    if not path.is_file():
        return None
    try:
        noted: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore it, or give another --output") from None
    return noted


def write_note(path: Path, noted: Mapping[str, Any]) -> None:
    """Writes such a file whole."""
    write_atomically(path, json.dumps(dict(noted), indent=2).encode() + b"\n")


def refuse_foreign_folder(folder: Path, note: Path, kind: str) -> None:
    """InputError when a folder for many runs, told by its note, is a file or holds something else; `kind`: a study."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder for --output")
    if folder.is_dir() and any(folder.iterdir()) and not note.exists():
        raise InputError(f"{folder}: holds files that are not of {kind}; give another --output")


def refuse_other_note(folder: Path, asked: Mapping[str, Any], there: Mapping[str, Any], kind: str) -> None:
    """InputError when another study of the `kind` is in the folder."""
    difference = first_difference(asked, there)
    if difference:
        raise InputError(
            f"{folder}: holds {kind} of other settings: {difference}; give another --output, or pass --overwrite to "
            "lose it"
        )


def first_difference(ours: Any, theirs: Any, path: str = "") -> str | None:
    """Where two JSON-like settings differ first, as `field (X here, Y there)`; None when they are equal."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(k for k in theirs if k not in ours)]:
            found = first_difference(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            found = first_difference(a, b, f"{path}.{index}")
            if found:
                return found
        return None
    return None if ours == theirs else f"{path} ({json.dumps(ours)} asked, {json.dumps(theirs)} there)"
