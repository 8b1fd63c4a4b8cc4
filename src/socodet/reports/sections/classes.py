"""AP of each class, from a fine-tuning run's newest scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socodet.errors import InputError
from socodet.finetuning.run import SCORES
from socodet.reports.page import Section, Table
from socodet.reports.runs import RunRecord
from socodet.runtime.files import read_note

OPEN = 30
"""Tables with more classes are folded."""
NOTHING = "–"


def class_sections(records: Sequence[RunRecord]) -> list[Section]:
    """One section, or none if no run has scores by class."""
    scored: dict[str, dict[str, Any]] = {record.name: _classes(record.path / SCORES) for record in records}
    names = list(dict.fromkeys(name for classes in scored.values() for name in classes))
    if not names:
        return []
    apart = any(  # scored on different datasets
        len({one[name]["objects"] for one in scored.values() if name in one}) > 1 for name in names
    )
    rows = []
    for name in names:
        found = [classes.get(name, {}) for classes in scored.values()]
        counts = [f"{one['objects']:,}" if one else NOTHING for one in found]
        objects = counts if apart else [next(count for count in counts if count != NOTHING)]
        rows.append((name, *objects, *(_percent(one.get("box_AP")) for one in found)))
    columns = [f"Objects of {run}" for run in scored] if apart else ["Objects"]
    columns += [f"AP of {run}" for run in scored] if len(scored) > 1 else ["AP"]
    table = Table(("Class", *columns), rows, folded=f"{len(rows)} classes" if len(rows) > OPEN else "")
    text = "Box AP over IoU 0.50:0.95 in percent, from the newest evaluation, and the number of objects in its dataset."
    return [Section("Average precision of each class", text, [table])]


def _classes(file: Path) -> dict[str, Any]:
    """Class → scores; empty without the file. InputError when an evaluation did not write it."""
    noted = read_note(file)
    classes = noted.get("classes", {}) if isinstance(noted, dict) else {} if noted is None else None
    usable = isinstance(classes, dict) and all(
        isinstance(one, dict)
        and isinstance(one.get("objects"), int)
        and isinstance(one.get("box_AP"), int | float | None)
        for one in classes.values()
    )
    if not usable:
        raise InputError(f"{file}: was not written by an evaluation; delete it, or evaluate again")
    assert classes is not None
    return classes


def _percent(ap: float | None) -> str:
    return NOTHING if ap is None else f"{ap:.1f}"
