"""How two records of settings differ, by the flags that a user types."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from socodet.errors import InputError

GROUPS = ("settings", "model", "sample", "training", "objective", "budget")
"""Groups of settings whose fields are flags without a prefix."""
SETS = {
    "images": "the images",
    "data": "the annotated dataset",
    "train": "the training set",
    "val": "the dataset to score on",
    "detector": "the detector",
    "reading": "the way images are read",
    "schedule": "the schedule",
}
"""Groups whose fields are not flags, in words."""
OTHER_NAMES = {
    "name": "--recipe",
    "table": "--proposals",
    "evaluation_every": "--evaluation.every",
    "socodet": "socodet's version",
}
"""Fields whose flags have other names, or that are not flags."""
RECIPE = ("recipe", "name")
OPTIONAL = {"flags_sha256", "masks_sha256"}
"""Fields that count only if both records have them: records of earlier versions do not, nor do those without masks."""
FOLLOWING = {"schedule", "drawn_from"}
"""Fields that follow from other settings are named only if nothing else differs."""
NAMED = 4
"""Maximum number of differences that a message names."""


def refuse_different_study(
    folder: Path, requested: Mapping[str, Any], recorded: Mapping[str, Any], kind: str, command: object = None
) -> None:
    """InputError when another study of the `kind` is in the folder; `command`: the one that began it, if known."""
    differing = differences(requested, recorded)
    if differing:
        begun = "" if not isinstance(command, str) else f" (it was begun with `{command.replace(' --overwrite', '')}`)"
        raise InputError(
            f"{folder}: holds {kind} of other settings: {differing}; repeat the command with the same flags to "
            f"resume{begun}, give another --output, or pass --overwrite to lose it"
        )


def differences(requested: Any, recorded: Any) -> str | None:
    """Where two JSON-like records differ, as `--epochs (not given now, 1.0 there)`; None when they are equal."""
    found = list(_different(requested, recorded, ()))
    if any(path == RECIPE for path, *_ in found):  # most others follow from it
        found = [one for one in found if one[0][0] != RECIPE[0] or one[0] == RECIPE]
    found = [one for one in found if not FOLLOWING & set(one[0])] or found
    named = [_in_words(*one) for one in found[:NAMED]]
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return ", ".join([*named, *more]) or None


def _different(ours: Any, theirs: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The path of each field that differs, and both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            if key not in OPTIONAL or (key in ours and key in theirs):
                yield from _different(ours.get(key), theirs.get(key), (*path, str(key)))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from _different(a, b, (*path, str(index)))
    elif ours != theirs:
        yield path, ours, theirs


def _in_words(path: tuple[str, ...], ours: Any, theirs: Any) -> str:
    if len(path) > 1 and path[0] == "recipe":
        path = path[1:]
    if path[0] in SETS:
        fields = [field.removesuffix("_sha256").replace("_", " ") for field in path[1:]]
        what = " of ".join(filter(None, [" ".join(fields).replace("sha256", "contents"), SETS[path[0]]]))
    elif path[0] in OTHER_NAMES:
        what = OTHER_NAMES[path[0]]
    else:
        what = "--" + ".".join(path[1:] if len(path) > 1 and path[0] in GROUPS else path).replace("_", "-")
    if path[-1].endswith("sha256"):
        return f"{what} (not the same as there)"
    return f"{what} ({_value(ours)} now, {_value(theirs)} there)"


def _value(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"{len(value)} of them" if any(isinstance(one, dict) for one in value) else " ".join(map(_value, value))
    return "another" if isinstance(value, dict) else str(value)
