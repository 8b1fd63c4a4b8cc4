"""--config reads what --print-config prints, for every command, and nothing is misread."""

import ast
import dataclasses
import json
import os
import subprocess
import sys

import pytest
import yaml

from socodet.cli import COMMANDS, main
from socodet.commands.config_file import with_config
from socodet.commands.flags import flags_of
from socodet.commands.parsing import parse
from socodet.commands.propose import propose
from socodet.errors import InputError
from socodet.runtime.notices import notice

LEAST = {
    "propose": "images --output p.parquet --max-scale 0.7",
    "pretrain": "images --output run --recipe tiny --views.2.size 40 --trust-clip",
    "finetune": "set --output run --init scratch --init other=scratch --fractions 0.1 1",
    "evaluate": "run --data set --bands 3 2 1",
    "predict": "detector images --output found --draw --min-score 0.25",
    "convert": "set --check",
    "export": "run --output file.pth --format timm",
    "push": "run USER/NAME",
    "probe": "run --data set --val other --max-train-images None",
    "report": "one two --device cpu",
    "ablate": "table5c --images images --output out --seeds 1 2",
    "reproduce own-data": "--data set --output out --folds 0 3 --only soco",
    "inspect": "views images --output x.png --recipe tiny",
    "inspect detections": "set --predictions found.json --output x.html",
    "recipes": "tiny",
    "demo": "--seed 3",
    "doctor": "--json",
    "pack": "images --output shards",
}


def printed(capsys, *argv):
    main([*argv, "--print-config"])
    return capsys.readouterr().out


def refusal(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, argv)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_printed_configurations_are_read_back(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    first = printed(capsys, *name.split(), *LEAST[name].split())
    (tmp_path / "whole.yaml").write_text(first)
    assert yaml.safe_load(printed(capsys, *name.split(), "--config", "whole.yaml")) == yaml.safe_load(first)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.yaml"]  # the command itself did not run


def test_names_of_any_characters_are_read_back(capsys, tmp_path):
    names = ["ims \U0001f600\\ud83d é", "\u2028\x85\U00020000", "\udcfe"]
    for name in names:
        (tmp_path / "whole.yaml").write_text(printed(capsys, "propose", name, "--output", "p.parquet"))
        positional = with_config(tmp_path / "whole.yaml", [], flags_of(propose))[0]
        assert positional == name


def test_json_is_read_as_json(capsys, tmp_path):
    asked = {
        "images": "ims \U0001f600/a\\b",
        "output": "p.parquet",
        "min-scale": 1e-1,
        "workers": None,
        "overwrite": True,
    }
    (tmp_path / "a.json").write_text(json.dumps(asked, indent="\t").replace("/", "\\/"))
    read = yaml.safe_load(printed(capsys, "propose", "--config", str(tmp_path / "a.json")))
    assert {key: read[key] for key in asked} == asked
    (tmp_path / "a.json").write_text('{"images": "a", "images": "b", "output": "p.parquet"}')
    assert "images: is set twice" in refusal(capsys, "propose", "--config", tmp_path / "a.json")


def test_tildes_that_no_shell_expands_are_the_home_directory(capsys, tmp_path, monkeypatch):
    """In a file, and after an equals sign; otherwise a folder named ~ would be created."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "b.yaml").write_text("images: ~/set")
    read = yaml.safe_load(printed(capsys, "pretrain", "--config=~/b.yaml", "--output", "run", "--recipe", "tiny"))
    assert read["images"] == str(tmp_path / "set")
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a.yaml").write_text("train: ~/set\ninit: [one=~/weights.pth, scratch]\nval: a~/b")
    asked = ["finetune", "--config", str(tmp_path / "a.yaml"), "--output=~/run"]
    read = yaml.safe_load(printed(capsys, *asked))
    assert [read[name] for name in ("train", "output", "val")] == ["/home/me/set", "/home/me/run", "a~/b"]
    assert read["init"] == ["one=/home/me/weights.pth", "scratch"]


def test_a_number_may_be_a_path_and_a_file_may_begin_with_a_byte_order_mark(capsys, tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfimages = 2024\noutput = 5\n")
    read = yaml.safe_load(printed(capsys, "propose", "--config", str(tmp_path / "a.toml")))
    assert (read["images"], read["output"]) == ("2024", "5")


@pytest.mark.parametrize("argv", [["", "--output", "o"], ["images", "--output", ""], ["images", "--output="], ["a\0b"]])
def test_an_empty_path_is_refused(capsys, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    assert "propose: " in refusal(capsys, "propose", *argv)
    assert not list(tmp_path.iterdir())


def test_flags_override_the_file(capsys, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(
        "detector: their run\nimages: theirs\noutput: found\ndraw: true\nmin_score: 1e-1\nbands: [3, 2, 1]\n"
    )
    read = yaml.safe_load(printed(capsys, "predict", "--config", str(file)))
    assert (read["detector"], read["images"], read["draw"]) == ("their run", "theirs", True)
    assert (read["min-score"], read["bands"], read["device"]) == (0.1, [3, 2, 1], "auto")
    flags = ["mine", "--no-draw", "--min-score=0.5", "--bands", "2", "--device", "cpu"]
    read = yaml.safe_load(printed(capsys, "predict", *flags[1:4], "--config", str(file), *flags[3:], flags[0]))
    assert (read["images"], read["draw"], read["min-score"], read["device"]) == ("theirs", False, 0.5, "cpu")
    file.write_text("train: set\noutput: out\ninit: [one=scratch, two=scratch]\n")
    read = yaml.safe_load(printed(capsys, "finetune", "--config", str(file), "--init", "scratch", "mine"))
    assert (read["train"], read["init"]) == ("mine", ["scratch"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nested.yaml", "recipe: tiny\noutput: run\nviews:\n  2: {size: 40, photometric: {hue: 0}}\n"),
        ("nested.toml", 'recipe = "tiny"\noutput = "run"\n[views.2]\nsize = 40\nphotometric.hue = 0.0\n'),
        ("flat.toml", 'recipe = "tiny"\noutput = "run"\n"views.2.size" = 40\n"views.2.photometric.hue" = 0\n'),
        ("flat.json", '{"recipe": "tiny", "output": "run", "views.2.size": 40, "views.2.photometric.hue": 0}'),
    ],
)
def test_nested_and_flat_files_are_equivalent(capsys, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    read = yaml.safe_load(printed(capsys, "pretrain", "images", "--config", str(tmp_path / name)))
    assert (read["views.2.size"], read["views.2.photometric.hue"], read["views.1.size"]) == (40, 0, 96)


def test_a_complete_configuration_leaves_nothing_to_plan(capsys, tmp_path):
    """With the recipe `auto`: the images, which do not exist, are not opened."""
    whole = printed(capsys, "pretrain", "nowhere", "--output", "run", "--recipe", "tiny").replace('"tiny"', "auto")
    (tmp_path / "whole.yaml").write_text(whole)
    read = yaml.safe_load(printed(capsys, "pretrain", "--config", str(tmp_path / "whole.yaml")))
    assert read == yaml.safe_load(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochz: 3", "did you mean epochs"),
        ("views: {0: {sizes: 3}}", "views.0.size"),
        ("epochs: 3\nepochs: 4", "epochs: is set twice"),
        ("warmup_epochs: 3\nwarmup-epochs: 4", "is set twice"),
        ("resume: maybe", "resume: must be true or false"),
        ("epochs: [1, 2", "cannot be read"),
        ("- epochs\n- seed", "holds no keys with values"),
        ("[epochs, seed]: 3", "line 1: a key is a list or a map"),
        ("views: {0: {? {size: 3} : 4}}", "line 1: a key is a list or a map"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nepochs: *b", "*a is an alias"),
        ("just text", "holds no keys with values"),
        ("limit: many", "--limit: takes a whole number, not 'many'"),
        ("recipe: tiny\nbatch_size: 0", "--batch-size must be at least 1"),
    ],
)
def test_a_mistake_in_a_file_is_reported_with_the_files_name(capsys, tmp_path, text, said):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    line = refusal(capsys, "pretrain", "images", "--output", "run", "--config", file)
    assert said in line
    assert "mine.yaml" in line


def test_many_aliases_of_aliases_take_no_time(capsys, tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 40))]
    (tmp_path / "grows.yaml").write_text("\n".join(lines))
    assert "alias" in refusal(capsys, "pretrain", "images", "--output", "run", "--config", tmp_path / "grows.yaml")


@dataclasses.dataclass(frozen=True)
class Side:
    flip_it: bool = True


def test_false_is_applied_to_the_view_it_is_given_for(tmp_path):
    def command(sides: tuple[Side, Side, Side] = (Side(), Side(), Side()), quick: bool = True) -> None:
        """A command with flags of several views."""

    file = tmp_path / "mine.yaml"
    file.write_text("sides: {0: {flip_it: false}, 2: {flip_it: true}}\nquick: false")
    words = with_config(file, [], flags_of(command))
    read = parse(command, "command", words, {}).keywords
    assert ([side.flip_it for side in read["sides"]], read["quick"]) == ([False, True, True], False)
    assert with_config(file, ["--sides.0.no-flip-it"], flags_of(command)).count("--sides.0.no-flip-it") == 1


def test_files_that_are_not_configurations_are_refused(capsys, tmp_path):
    asked = ["pack", "images", "--output", "shards", "--config"]
    assert "nowhere.yaml" in refusal(capsys, *asked, tmp_path / "nowhere.yaml")
    (tmp_path / "mine.ini").write_text("epochs=3")
    assert "neither .yaml nor .toml" in refusal(capsys, *asked, tmp_path / "mine.ini")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    assert "mine.toml" in refusal(capsys, *asked, tmp_path / "mine.toml")
    assert "takes one file" in refusal(capsys, *asked)
    (tmp_path / "mine.json").write_text(json.dumps({"size": "wide"}))
    assert "size" in refusal(capsys, *asked, tmp_path / "mine.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("probe run --dataset=set", "probe run --data set"),
        ("probe run --data set --val-pictures 9", "probe run --data set --max-val-images 9"),
        (
            "pretrain --probe-dataset set images --output run --recipe tiny",
            "pretrain images --output run --probe-data set --recipe tiny",
        ),
        ("ablate --images images table4 --output out --seed 3 1", "ablate table4 images --output out --seeds 3 1"),
        ("demo --seed 3 --images images", "demo images --seed 3"),
    ],
)
def test_old_flag_names_still_work_with_a_note(capsys, old, new):
    notice.cache_clear()  # printed once per process
    today = printed(capsys, *new.split())
    main([*old.split(), "--print-config"])
    found = capsys.readouterr()
    assert found.out == today
    notes = [
        word
        for word in old.replace("=", " ").split()
        if word in ("--dataset", "--probe-dataset", "--images", "--val-pictures")
    ]
    assert all(found.err.count(f"note: {name} is now ") == 1 for name in notes)


@pytest.mark.parametrize(
    ("command", "old", "today"),
    [
        ("probe run", "data: set\ntrain-pictures: 5\nval_pictures: 6\n", {"max-train-images": 5, "max-val-images": 6}),
        ("probe run", "dataset: set\n", {"data": "set"}),
        ("ablate table4", "images: them\noutput: out\nseed: [3, 1]\n", {"images": "them", "seeds": [3, 1]}),
    ],
)
def test_old_names_in_a_file_still_work_with_a_note(capsys, tmp_path, command, old, today):
    file = tmp_path / "old.yaml"
    file.write_text(old)
    main([*command.split(), "--config", str(file), "--print-config"])
    found = capsys.readouterr()
    assert yaml.safe_load(found.out).items() >= today.items()
    assert found.err.count(f"note: {file}: ") == len(today.keys() - {"images"})
    file.write_text("data: set\nmax-val-images: 5\nval-pictures: 6\n")
    with pytest.raises(SystemExit):
        main(["probe", "run", "--config", str(file)])
    assert "val-pictures: is set twice" in capsys.readouterr().err


def test_a_single_number_of_seeds_is_a_count_and_noted_as_such(capsys, tmp_path, monkeypatch):
    asked = []

    def compare(*_, seeds, **__):
        asked.append(seeds)
        raise InputError("enough")

    monkeypatch.setattr("socodet.studies.comparison.compare", compare)
    (tmp_path / "set.json").touch()
    for flags in (["3"], ["3", "--seed", "5"], ["2", "0"], ["0"]):
        with pytest.raises(SystemExit):
            main(["finetune", str(tmp_path / "set.json"), "--output", str(tmp_path / "out"), "--seeds", *flags])
    assert asked == [(0, 1, 2), (5, 6, 7), (2, 0), (0,)]
    assert capsys.readouterr().err.count("alone is read as") == 2


def test_reading_does_not_depend_on_the_locale(tmp_path):
    (tmp_path / "config.yaml").write_text("output: größe", encoding="utf-8")
    code = "import pathlib, socodet.commands.config_file as one; print(ascii(one._read(pathlib.Path('config.yaml'))))"
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | plain, check=True)
    assert ast.literal_eval(done.stdout) == {"output": "größe"}
