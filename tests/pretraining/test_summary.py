"""The summary of a named recipe's run before its first step, against numbers worked out by hand."""

import dataclasses

import pytest

import socodet
from socodet.images.photographs import photographs
from socodet.pretraining.recipes import RECIPES, recipe
from socodet.pretraining.summary import summary_lines
from socodet.runtime.world import World
from socodet.training.settings import ExecutionSettings

IMAGENET = 1_281_167
ALONE = World()


def summary_of(chosen, images=IMAGENET, world=ALONE):
    return "\n".join(summary_lines(chosen, images, world))


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("fpn_100ep", ("62,556 steps of 2,048 images", "100 epochs", "  8 after 6,255 steps", "from 0.99 to 1")),
        ("fpn_400ep", ("250,227 steps of 2,048 images", "400 epochs", "  8 after 6,255 steps", "from 0.99 to 1")),
        ("table5b_512", ("250,227 steps of 512 images", "100 epochs", "  2 after 25,022 steps", "from 0.99 to 1")),
        ("table5d_0993", ("62,556 steps of 2,048 images", "100 epochs", "  8 after 6,255 steps", "from 0.993 to 1")),
    ],
)
def test_papers_runs_on_imagenet(name, figures):
    for figure in figures:
        assert figure in summary_of(recipe(name))


def test_lr_follows_the_batch_and_changed_settings_are_named():
    changed = recipe("fpn_100ep").with_(batch_size=256, epochs=20, views={2: {"size": 96}})
    text = summary_of(changed)
    assert "100,091 steps of 256 images" in text
    assert "  1 after 10,009 steps" in text  # warm-up takes a tenth of 20 epochs
    for flag in ("--batch-size 256 (not 2048)", "--epochs 20 (not 100)", "--warmup-epochs 2 (not 10)"):
        assert flag in text
    assert "--views.2.size 96 (not 112)" in text
    assert text.count("(not ") == 4


def test_unchanged_recipes_name_no_changes():
    assert not [name for name in RECIPES if "(not " in summary_of(recipe(name)) or "no --" in summary_of(recipe(name))]


def test_settings_that_only_one_recipe_has_are_named():
    three, four = recipe("fpn_400ep"), recipe("fpn_star_400ep")
    assert "--views.3.window crop (new)" in summary_of(three.with_(views=four.sample.views))
    assert "no --views.3.window" in summary_of(four.with_(views=three.sample.views))


def mine():
    return socodet.recipe("tiny").with_(batch_size=4)


def test_changes_of_a_recipe_of_ones_own_are_named():
    own = recipe(socodet.register(mine))
    assert "(not " not in summary_of(own)
    assert "--boxes-per-image 3 (not 4)" in summary_of(own.with_(boxes_per_image=3))
    assert "(not " not in summary_of(dataclasses.replace(own, name="nowhere:mine"))


def test_batch_is_split_into_processes_and_micro_batches():
    split = recipe("fpn_100ep").with_(accumulate=4)
    assert "16 processes of 4 micro-batches of 32" in summary_of(split, world=World(0, 16))
    assert "16 processes of 128" in summary_of(recipe("fpn_100ep"), world=World(0, 16))
    assert "4 micro-batches of 512" in summary_of(split)


@pytest.mark.usefixtures("narrow_networks")
def test_run_prints_its_summary_once(tmp_path, capsys):
    socodet.propose(photographs(), tmp_path / "table", show_progress=False)
    for step, begins in ((1, True), (2, False)):
        result = socodet.pretrain(
            photographs(),
            recipe("tiny").with_(batch_size=4, epochs=1, backbone="resnet18"),
            tmp_path / "run",
            proposals=tmp_path / "table",
            execution=ExecutionSettings(device="cpu", workers=0, max_steps=1),
        )
        assert result.steps == step
        text = capsys.readouterr().err
        assert ("3 steps of 4 images" in text and "4 (not 12)" in text) == begins
