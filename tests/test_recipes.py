"""Every recipe starts by name on real photographs; the paper's settings are the paper's."""

import dataclasses

import pytest

import socodet
from socodet.images.photographs import photographs
from socodet.models.settings import ModelSettings
from socodet.recipes import RECIPES, Recipe, recipe
from socodet.training.settings import ExecutionSettings


def shrunk(full: Recipe) -> Recipe:
    """The same recipe on small views, with narrow networks and batches of two."""
    views = tuple(dataclasses.replace(view, size=max(32, view.size // 4)) for view in full.sample.views)
    sample = dataclasses.replace(
        full.sample, views=views, level_limits=(12, 24, 48), min_box_side=min(4.0, full.sample.min_box_side)
    )
    model = dataclasses.replace(
        ModelSettings(full.model.architecture, "resnet18", 8, 1, 8, 8, 7, 16, 8), pooled_size=full.model.pooled_size
    )
    training = dataclasses.replace(full.training, batch_size=2, epochs=10, warmup_epochs=1)
    return dataclasses.replace(full, sample=sample, model=model, training=training)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for method in ("single", "random"):
        settings = socodet.proposals.ProposalSettings(method=method)
        socodet.propose(photographs(), folder / method, settings=settings, show_progress=False)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_starts(name, tables, tmp_path):
    small = shrunk(recipe(name))
    result = socodet.pretrain(
        photographs(),
        small,
        tmp_path / "run",
        proposals=tables / small.proposals.method,
        limit=8,
        execution=ExecutionSettings(device="cpu", workers=0, max_steps=2),
        show_progress=False,
    )
    assert (result.steps, result.total_steps, result.stopped_by) == (2, 40, "max_steps")


def test_the_papers_settings():
    paper = recipe("fpn_100ep")
    t, s = paper.training, paper.sample
    assert (t.epochs, t.batch_size, t.base_lr, t.warmup_epochs) == (100, 2048, 1.0, 10)
    assert (t.weight_decay, t.target_momentum) == (1e-5, 0.99)
    assert [view.size for view in s.views] == [224, 224, 112]
    assert (s.boxes_per_image, s.jitter, s.jitter_probability, s.crop_scale) == (4, 0.1, 0.5, (0.5, 1.0))
    assert s.level_limits == (48, 96, 192)
    assert (paper.model.hidden_size, paper.model.embedding_size, paper.model.pooled_size) == (4096, 256, 7)
    assert [view.size for view in recipe("fpn_star_400ep").sample.views] == [224, 224, 112, 192]
    assert [view.window for view in recipe("c4_400ep").sample.views] == ["whole", "crop"]
    assert recipe("c4_400ep").model.architecture == "c4"


def test_the_last_rows_of_the_ablations_are_the_main_recipe():
    main = recipe("fpn_100ep")
    for name in ("table4_multi_view", "table5a_112", "table5b_2048", "table5c_ss_4", "table5d_0990"):
        assert dataclasses.replace(recipe(name), name="fpn_100ep") == main


def test_each_row_of_table_4_changes_one_thing():
    rows = [recipe(name) for name in RECIPES if name.startswith("table4_")]
    assert [row.model.architecture for row in rows] == ["image", "c5", "fpn_no_head", "fpn", "fpn", "fpn", "fpn"]
    assert [row.sample.level_rule for row in rows[2:]] == ["canonical", "canonical", *["scale_aware"] * 3]
    assert [row.sample.jitter for row in rows] == [0, 0, 0, 0, 0, 0.1, 0.1]
    assert [len(row.sample.views) for row in rows] == [2] * 6 + [3]
