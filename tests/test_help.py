"""--help fits on one screen; --help-all shows everything, in groups."""

import re

import pytest

from socodet.cli import COMMANDS, main
from socodet.pretraining.recipes import recipe, recipes


def help_of(capsys, *argv):
    main([*argv])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_on_a_screen(capsys, monkeypatch, name):
    for columns in (80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        brief, full = (help_of(capsys, *name.split(), flag) for flag in ("--help", "--help-all"))
        assert len(brief.splitlines()) <= 58
        for text in (brief, full):
            assert max(map(len, text.splitlines())) <= min(columns, 100)
            assert "{None}" not in text
        assert set(re.findall(r"^  --\S+", brief, re.M)) <= set(re.findall(r"^  --\S+", full, re.M))


def test_the_list_of_commands_fits_into_80_columns(capsys):
    assert max(map(len, help_of(capsys, "--help").splitlines())) <= 80


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_list_of_recipes_is_wrapped_to_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["recipes"])
    listed = capsys.readouterr().out
    assert max(map(len, listed.splitlines())) <= columns
    assert listed.split() == str(recipes()).split()
    assert [line.split()[0] for line in listed.splitlines() if not line.startswith(" ")] == list(recipes())


def test_every_pretraining_flag_is_in_a_group(capsys):
    full = help_of(capsys, "pretrain", "--recipe", "tiny", "--help-all")
    groups = re.split(r"^(\w+)(?: \(.*\))?:\n", full, flags=re.M)
    flags = dict(zip(groups[1::2], (re.findall(r"^  --(\S+)", text, re.M) for text in groups[2::2]), strict=True))
    assert list(flags) == ["data", "training", "views", "model", "execution", "advanced"]
    assert "max-pixels" in flags["data"]
    assert "base-lr" in flags["training"]
    assert "views.N.photometric.hue" in flags["views"]
    assert "fpn-channels" in flags["model"]
    assert "on-nan" in flags["execution"]
    assert "probe-every" in flags["advanced"]


def test_defaults_name_the_recipe_they_come_from(capsys):
    tiny = recipe("tiny")
    words = " ".join(help_of(capsys, "pretrain", "--recipe", "tiny", "--help-all").split())
    sizes = ", ".join(str(view.size) for view in tiny.sample.views)
    assert f"[tiny: {tiny.training.epochs:g}]" in words
    assert f"[tiny: {sizes}]" in words
    assert "Where the networks run; auto takes a CUDA device if there is one. [auto]" in words  # not from a recipe
    planned = help_of(capsys, "pretrain", "--help-all")
    assert "[100]" not in planned  # planned values are not known yet
    assert "[tiny" not in planned


@pytest.mark.parametrize("name", ["predict", "evaluate"])
def test_commands_that_do_not_train_have_no_training_flags(capsys, name):
    text = help_of(capsys, name, "--help-all")
    assert "--device" in text
    for flag in ("--on-nan", "--max-skipped", "--max-steps", "--checkpoint-every", "--keep-every", "--log-every"):
        assert flag not in text


def test_a_switch_can_be_undone_by_its_negation(capsys):
    """So a flag set by a file or a script can be overridden."""
    with pytest.raises(SystemExit):
        main(["predict", "nowhere", "nothing", "--output", "x", "--draw", "--no-draw"])
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "trains"), [("propose", False), ("pack", False), ("probe", False), ("finetune", True)]
)
def test_only_commands_that_train_have_a_training_group(capsys, name, trains):
    groups = re.findall(r"^(\w+)(?: \(.*\))?:$", help_of(capsys, name, "--help-all"), re.M)
    assert ("training" in groups, "settings" in groups) == (trains, not trains)
