"""Every recipe runs on real photographs; the paper's recipes have the paper's settings."""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import socodet
from socodet.detection.detectors.names import NAMES
from socodet.detection.detectors.schedules import SCHEDULES
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import RECIPES, Recipe, paper, recipe
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Origin, ProposalTable, table_schema
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")


def shrink(full: Recipe) -> Recipe:
    """The same recipe with small views, narrow networks and batches of two."""
    views = tuple(dataclasses.replace(view, size=max(32, view.size // 4)) for view in full.sample.views)
    sample = dataclasses.replace(
        full.sample, views=views, level_limits=(12, 24, 48), min_box_side=min(4.0, full.sample.min_box_side)
    )
    backbone = "timm/resnet18d" if full.model.architecture == "rt_detr" else "resnet18"
    model = dataclasses.replace(
        ModelSettings(full.model.architecture, backbone, 8, 1, 8, 8, 7, 16, 8), pooled_size=full.model.pooled_size
    )
    training = dataclasses.replace(full.training, batch_size=2, epochs=10, warmup_epochs=1)
    return dataclasses.replace(full, sample=sample, model=model, training=training)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for method in ("single", "random"):
        settings = ProposalSettings(method=method)
        socodet.propose(photographs(), folder / method, settings=settings, show_progress=False)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_starts(name, tables, tmp_path):
    small = shrink(recipe(name))
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


def test_recipes_of_random_boxes_refuse_a_table_of_other_boxes(tables, tmp_path):
    """A table would replace the recipe's own boxes, which are the whole point of these rows."""
    here = ExecutionSettings(device="cpu", workers=0, max_steps=1)
    with pytest.raises(InputError, match="single"):
        socodet.pretrain(
            photographs(), shrink(recipe("table5c_random_4")), tmp_path / "run", proposals=tables / "single"
        )
    assert not (tmp_path / "run" / "run.json").exists()
    imported = ProposalTable.read(tables / "single")
    schema = table_schema(imported.settings, Origin("boxes.json", True))
    pq.write_table(pq.read_table(tables / "single").cast(schema), tmp_path / "imported")
    socodet.pretrain(
        photographs(),
        shrink(recipe("table5c_random_4")),
        tmp_path / "run",
        proposals=tmp_path / "imported",
        execution=here,
        show_progress=False,
    )


def seventh() -> Recipe:
    """A user's recipe."""
    return shrink(recipe("tiny")).with_(seed=7)


def test_limit_takes_the_same_images_for_a_recipe_and_for_its_name(tables, tmp_path):
    shown = {}
    for given in (seventh(), socodet.register(seventh)):
        folder = tmp_path / str(len(shown))
        socodet.pretrain(
            photographs(),
            given,
            folder,
            proposals=tables / "single",
            limit=4,
            execution=ExecutionSettings(device="cpu", workers=0, max_steps=1),
            show_progress=False,
        )
        shown[folder] = json.loads((folder / "run.json").read_text())["images"]["names_sha256"]
    assert len({*shown.values()}) == 1


def test_papers_settings():
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


def test_last_rows_of_the_ablations_are_the_main_recipe():
    main = recipe("fpn_100ep")
    for name in ("table4_multi_view", "table5a_112", "table5b_2048", "table5c_ss_4", "table5d_0990"):
        assert dataclasses.replace(recipe(name), name="fpn_100ep") == main


def test_each_row_of_table_4_changes_one_thing():
    rows = [recipe(name) for name in RECIPES if name.startswith("table4_")]
    assert [row.model.architecture for row in rows] == ["image", "c5", "fpn_no_head", "fpn", "fpn", "fpn", "fpn"]
    assert [row.sample.level_rule for row in rows[2:]] == ["canonical", "canonical", *["scale_aware"] * 3]
    assert [row.sample.jitter for row in rows] == [0, 0, 0, 0, 0, 0.1, 0.1]
    assert [len(row.sample.views) for row in rows] == [2] * 6 + [3]


def test_docs_list_every_recipe_of_the_papers_tables():
    """A range such as `table5a_96` to `table5a_192` is given by its ends."""
    text = (Path(__file__).parents[2] / "docs/method.md").read_text(encoding="utf-8")
    section = text.split("## The paper's tables")[1].split("\n## ")[0]
    named = re.findall(r"`([a-z0-9_]+)`", section)
    assert set(named) <= {*RECIPES, *NAMES, *SCHEDULES}
    order = list(RECIPES)
    ranges = re.findall(r"`(table5\w+)` to `(table5\w+)`", section)
    covered = {name for first, last in ranges for name in order[order.index(first) : order.index(last) + 1]} | set(
        named
    )
    assert {name for name in order if RECIPES[name].__module__ == paper.__name__} <= covered


def test_public_codes_settings():
    """tools/SoCo_FPN_100ep.sh, SoCo_FPN_400ep.sh, SoCo_FPN_Star_400ep.sh and SoCo_C4_100ep.sh of hologerry/SoCo."""
    public, longer, star, c4 = map(recipe, ("fpn_public", "fpn_public_400ep", "fpn_star_public", "c4_public"))
    windows = [[(view.window, view.size) for view in r.sample.views] for r in (public, star, c4)]
    assert windows[0] == [("whole", 224), ("crop", 224), ("crop", 112)]
    assert windows[1] == [("whole", 224), ("crop", 224), ("previous", 112), ("crop", 192)]
    assert windows[2] == [("whole", 224), ("crop", 224)]
    assert [r.sample.object_sets for r in (public, star, c4)] == [(0, 0, 1), (0, 0, 0, 1), (0, 0)]
    assert [r.training.epochs for r in (public, longer, star, c4)] == [100, 400, 400, 100]
    assert [r.sample.crop_scale for r in (public, longer, star, c4)] == [(0.5, 1)] * 3 + [(0.6, 1)]
    assert [r.sample.jitter for r in (public, longer, star, c4)] == [0.1, 0.1, 0.1, 0]
    assert [[v.cutout_probability for v in r.sample.views] for r in (public, longer, star, c4)] == [
        [0, 0.5, 0.5],
        [0, 0, 0],
        [0, 0, 0, 0],
        [0, 0.5],
    ]
    assert {view.cutout_area for view in public.sample.views} == {(0.1, 0.3)}
    assert (public.model.pooled_size, c4.model.pooled_size) == (7, 14)
    for r in (public, longer, star, c4):
        assert (r.sample.boxes_per_image, r.sample.min_visible, r.sample.jitter_anchor) == (4, 0, "corner")
        assert dataclasses.replace(r.training, epochs=100) == recipe("fpn_100ep").training


def test_whole_image_has_no_objects_per_window():
    sample = recipe("fpn_public").sample
    with pytest.raises(ValueError, match="objects must be all_views"):
        Recipe("mixed", sample=sample, model=ModelSettings(architecture="image"))


def test_batch_norm_needs_two_values_per_micro_batch():
    one_box = dataclasses.replace(recipe("fpn_100ep").sample, boxes_per_image=1)
    training = dataclasses.replace(recipe("fpn_100ep").training, batch_size=4, accumulate=2)
    Recipe("two", sample=one_box, training=training)
    with pytest.raises(ValueError, match="2 or more with the loss infonce"):  # all negatives come from other images
        recipe("fpn_100ep").with_(batch_size=4, accumulate=4, loss="infonce")
    with pytest.raises(ValueError, match="batch_size / accumulate must be above 1"):
        Recipe("one", sample=one_box, training=dataclasses.replace(training, accumulate=4))
