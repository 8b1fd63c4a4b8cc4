"""The table of AP by class, for several fine-tuning runs."""

import json
from pathlib import Path
from typing import Any

from socodet.reports.page import Table
from socodet.reports.runs import RunRecord
from socodet.reports.sections.classes import OPEN, class_sections


def tuned(folder: Path, classes: dict[str, Any] | None) -> RunRecord:
    folder.mkdir()
    if classes is not None:
        (folder / "scores.json").write_text(json.dumps({"step": 1, "scores": {}, "classes": classes}))
    return RunRecord(folder.name, folder, {"recipe": {"settings": {}}}, [])


def test_each_class_has_a_row_and_each_run_a_column(tmp_path: Path) -> None:
    one = tuned(tmp_path / "one", {"cat": {"objects": 1200, "box_AP": 31.26}, "dog": {"objects": 0, "box_AP": None}})
    two = tuned(tmp_path / "two", {"cat": {"objects": 1200, "box_AP": 8.0}})
    (section,) = class_sections([one, two])
    (table,) = section.figures
    assert isinstance(table, Table)
    assert not table.folded
    assert table.header == ("Class", "Objects", "AP of one", "AP of two")
    assert table.rows == [("cat", "1,200", "31.3", "8.0"), ("dog", "0", "–", "–")]


def test_runs_scored_on_different_datasets_show_their_own_object_counts(tmp_path: Path) -> None:
    one = tuned(tmp_path / "one", {"cat": {"objects": 1200, "box_AP": 31.26}})
    two = tuned(tmp_path / "two", {"cat": {"objects": 7, "box_AP": 80.0}, "dog": {"objects": 3, "box_AP": 1.0}})
    (section,) = class_sections([one, two])
    (table,) = section.figures
    assert isinstance(table, Table)
    assert table.header == ("Class", "Objects of one", "Objects of two", "AP of one", "AP of two")
    assert table.rows == [("cat", "1,200", "7", "31.3", "80.0"), ("dog", "–", "3", "–", "1.0")]


def test_many_classes_are_folded_and_no_class_makes_no_section(tmp_path: Path) -> None:
    many = tuned(tmp_path / "many", {str(k): {"objects": 1, "box_AP": 1.0} for k in range(OPEN + 1)})
    (section,) = class_sections([many])
    (table,) = section.figures
    assert isinstance(table, Table)
    assert table.folded.startswith(str(OPEN + 1))
    assert class_sections([tuned(tmp_path / "not yet", None)]) == []
