"""Output shared by several commands, as text or JSON, and the exit of a stopped command."""

import dataclasses
import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socodet.errors import InputError
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import printable

if TYPE_CHECKING:
    from socodet.finetuning.evaluate import Evaluation

LISTED = 10
LISTED_CLASSES = 100


def resume_hint(overwrite: bool) -> str:
    """How to resume an interrupted command, to append to a sentence."""
    return f"; the same command{', without --overwrite,' if overwrite else ''} resumes from here"


def how_far(runs: Sequence[Any], called: str, hint: str) -> str:
    """How many runs of a study have finished and diverged, and if some have not, how to go on."""
    finished, diverged = (sum(getattr(run, state) for run in runs) for state in ("finished", "diverged"))
    left = len(runs) - finished - diverged
    return f"{finished} of {len(runs)} {called} finished, {diverged} diverged{f', {left} to go{hint}' if left else ''}"


def exit_if_stopped(stopped_by: str | None) -> None:
    """Exits, in every process, with the code of the signal that stopped the run, so that scripts see it."""
    if stopped_by is not None and stopped_by not in ("max_steps", "patience"):
        number = getattr(signal, stopped_by, signal.SIGTERM)  # of "another process": the launcher sends SIGTERM
        raise SystemExit(128 + number)


def refuse_unwritten(found: object) -> None:
    """InputError if files of a result could not be written; call it after printing the result."""
    unwritten: Sequence[str] = getattr(found, "unwritten", ())
    if unwritten:
        raise InputError(f"not written: {'; '.join(unwritten)}; free some space, or give another name")


def print_some(title: str, lines: Sequence[str]) -> None:
    """Prints the first of many lines to stderr, below a title; nothing if there are none."""
    if lines:
        more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
        shown = [f"  {printable(line)}" for line in [*lines[:LISTED], *more]]
        LOGGER.warning("\n".join([title, *shown]))


def list_unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    """Lists on stderr the images that were left out, given as (key, reason)."""
    lines = [f"{key}: {why}" for key, why in unreadable]
    what = "1 image could not be read and was" if len(lines) == 1 else f"{len(lines)} images could not be read and were"
    print_some(f"{what} left out:", lines)


def print_scores(evaluation: "Evaluation", file: Path | None) -> None:
    """Prints a dataset's scores, overall and by class; with very many classes, the latter only go to `file`."""
    if evaluation.about:
        print(f"{evaluation.about}:")
    classes = len(evaluation.of_classes)
    if classes <= LISTED_CLASSES:
        print(evaluation.classes_as_table())
    else:
        print(f"AP of each of the {classes} classes: " + (f"{file}" if file else "give a file for it with --output"))
    print("\n".join(evaluation.summary()))


def as_json(found: Any) -> Any:
    """A command's result in plain JSON types, as `--json` prints it: its own `as_json`, or its fields.

    Paths become text, non-finite numbers null, sets sorted lists, and NumPy's values Python's.
    """
    own = getattr(found, "as_json", None)
    if own is not None:
        return as_json(own())
    if dataclasses.is_dataclass(found):
        shown = (field.name for field in dataclasses.fields(found) if field.name != "is_first")
        return {name: as_json(getattr(found, name)) for name in shown}
    if isinstance(found, Mapping):
        return {str(key): as_json(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [as_json(one) for one in found]
    if isinstance(found, set | frozenset):
        return [as_json(one) for one in sorted(found)]
    if hasattr(found, "tolist"):  # NumPy's scalars and arrays
        return as_json(found.tolist())
    if isinstance(found, float) and not math.isfinite(found):
        return None
    return str(found) if isinstance(found, Path) else found
