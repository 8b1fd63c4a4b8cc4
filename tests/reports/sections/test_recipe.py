import copy
from pathlib import Path
from typing import Any

import pytest

from socodet.pretraining.recipes import recipe
from socodet.reports.page import Table
from socodet.reports.runs import RunRecord, names_of
from socodet.reports.sections.recipe import outcome_table, settings_tables
from socodet.runtime.serialization import to_json

DESCRIPTION: dict[str, Any] = {
    "recipe": to_json(recipe("tiny")),
    "images": {"count": 51, "names_sha256": "abc"},
    "start": None,
    "versions": {"socodet": "0", "torch": "2"},
}


def record(name: str, lines: list[dict[str, Any]] | None = None, **training: Any) -> RunRecord:
    description = copy.deepcopy(DESCRIPTION)
    description["recipe"]["training"] |= training
    return RunRecord(name, Path(name), description, lines or [])


def cells(table: Table) -> dict[str, list[str]]:
    return {name: rest for name, *rest in table.rows}


def test_names_are_as_short_as_possible() -> None:
    paths = [Path("/runs/a"), Path("/runs/b/seed1"), Path("/runs/c/seed1"), Path("/other/a")]
    assert names_of(paths) == ["runs/a", "b/seed1", "c/seed1", "other/a"]
    assert names_of([Path("/runs/a")]) == ["a"]


def test_settings_that_differ_are_shown_and_marked() -> None:
    main, others, folded = settings_tables([record("a"), record("b", base_lr=0.5, weight_decay=1e-3)])
    rows = cells(main)
    assert rows["Learning rate at batch 256"][1] == "0.5"
    assert rows["Views"] == ["whole 96, crop 96, previous 48"] * 2
    assert not main.folded
    assert [list(rows)[place] for place in main.marked] == ["Learning rate at batch 256"]
    assert others.folded.endswith(": 1")
    assert cells(others) == {"training.weight_decay": ["1e-05", "0.001"]}
    assert folded.folded
    every = cells(folded)
    assert every["sample.views.2.size"] == ["48", "48"]
    assert every["start"] == ["–", "–"]
    assert not any(name.startswith("versions") for name in every)


def test_a_single_run_has_no_differences() -> None:
    main, folded = settings_tables([record("a")])
    assert not main.folded
    assert main.marked == frozenset()
    assert folded.folded


def test_the_outcome_table_shows_the_newest_values() -> None:
    lines = [
        {"step": 5, "epoch": 1.0, "loss": -1.0, "embedding_std": 0.01, "effective_rank": 3.0},
        {"step": 10, "epoch": 2.0, "loss": -6.5, "embedding_std": 0.5 * 128**-0.5, "effective_rank": 30.25},
        {"step": 10, "probe_knn_balanced": 0.375},
    ]
    rows = cells(outcome_table([record("a", lines), record("new")]))
    assert rows["Steps"] == ["10", "–"]
    assert rows["Loss"] == ["−6.500", "–"]
    assert rows["  at perfect agreement"] == ["−8", "−8"]
    assert rows["Embedding std, relative to an even spread"] == ["50%", "–"]
    assert rows["Effective rank"] == ["30.2", "–"]
    (bounds,) = [cells for name, cells in rows.items() if name.startswith("  at most")]
    batch = DESCRIPTION["recipe"]["training"]["batch_size"]
    assert bounds == [str(min(4 * batch - 1, 128))] * 2  # four boxes per image
    assert rows["kNN accuracy, mean over classes"] == ["37.5%", "–"]
    assert "Linear accuracy, mean over classes" not in rows


@pytest.mark.parametrize(
    ("architecture", "objects", "batch_size", "bound"),
    [
        ("fpn", "all_views", 12, 47),  # 12 images of 4 boxes; centring removes one dimension
        ("fpn", "each_window", 12, 95),  # each of the two crops has 4 boxes of its own
        ("image", "all_views", 12, 11),
        ("fpn", "all_views", 64, 128),  # the size of an embedding
        ("own:encoder", "all_views", 12, None),
    ],
)
def test_the_bound_of_the_effective_rank_follows_from_the_batch(
    architecture: str, objects: str, batch_size: int, bound: int | None
) -> None:
    run = record("a", batch_size=batch_size)
    run.description["recipe"]["model"]["architecture"] = architecture
    run.description["recipe"]["sample"]["objects"] = objects
    run.description["recipe"]["sample"]["views"][2]["window"] = "crop"
    assert run.rank_bound == bound


def test_the_lowest_possible_loss_depends_on_the_runs_objective() -> None:
    cosine, infonce = record("a"), record("b")
    infonce.description["recipe"]["objective"]["loss"] = "infonce"
    assert cells(outcome_table([cosine, infonce]))["  at perfect agreement"] == ["−8", "0"]


def test_a_fine_tuning_run_shows_its_scores() -> None:
    description = {"recipe": {"name": "finetune", "settings": {}, "model": {}, "schedule": {}}}
    run = RunRecord(
        "ft", Path("ft"), description, [{"step": 4, "loss": 1.5}, {"step": 4, "box_AP": 12.345, "box_APs": None}]
    )
    assert run.kind == "finetune"
    rows = cells(outcome_table([run]))
    assert rows["box AP"] == ["12.35"] or rows["box AP"] == ["12.34"]
    assert "box APs" not in rows
    assert run.last("box_AP") == pytest.approx(12.345)


def test_large_numbers_have_thousands_separators_and_no_exponent() -> None:
    run = record("a", [{"step": 20000, "epoch": 4.0, "loss": -6.5, "images_per_second": 1639.4}])
    rows = cells(outcome_table([run]))
    assert rows["Steps"] == ["20,000"]
    assert rows["Images per second"] == ["1,639"]
    run.description["images"]["count"] = 1281167
    assert cells(settings_tables([run])[0])["Images"] == ["1,281,167"]
