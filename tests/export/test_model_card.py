"""The card beside exported weights agrees with the run's records."""

import ast
import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from socodet.exporting import export_run
from socodet.exporting.card import reading_lines
from socodet.images.reading import PLAIN, PixelReading
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder

SMALL = {"backbone": "resnet18", "fpn_channels": 16, "head_channels": 16, "representation_size": 24}
SUFFIXES = {"torchvision": ".pth", "detectron2": ".pkl", "mmdetection": ".pth", "timm": ".safetensors"}

STRANGE = os.fsdecode(b"\xfe")


@pytest.mark.parametrize("framework", SUFFIXES)
def test_the_card_of_an_unfinished_run_states_its_facts(exportable_run, tmp_path, framework):
    run = exportable_run(**SMALL)
    file = export_run(run.path, tmp_path / f"first{SUFFIXES[framework]}", format=framework).weights
    card = (tmp_path / f"first-{framework}.md").read_text()
    assert "Recipe: custom; architecture fpn, backbone resnet18" in card
    assert f"1,234; sha256 of their names `{'ab' * 32}`" in card
    assert "UNFINISHED: 30 of 100 steps, 30 epochs; the recipe asks for 100 epochs with batches of 2048" in card
    assert "At step 30, as logged: loss -2.25, effective rank of the embeddings 17.5" in card
    assert "socodet 0.1.0, torch 2.11.0" in card
    assert f"sha256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`" in card
    assert "licence of the images" in card
    assert "Began from" not in card
    recipe = json.loads(card.split("```json\n")[1].split("```")[0])
    assert recipe == RunFolder(run.path).describe()["recipe"]
    for written in tmp_path.rglob("*"):
        if written.is_file() and written.suffix != ".md":
            assert written.name in card
    assert str(run.path) not in card  # paths on the author's disk are private


def test_a_card_does_not_call_whole_images_soco(exportable_run, tmp_path):
    """The architecture `image` is the baseline that SoCo is compared with."""
    run = exportable_run(backbone="resnet18", architecture="image")
    export_run(run.path, tmp_path / "first.pth", format="timm")
    title, _, method, *_ = (tmp_path / "first-timm.md").read_text().splitlines()
    assert title == "# resnet18 pretrained on whole images, for timm"
    assert "by SoCo" not in method
    assert "image-level baseline" in method


def test_a_card_says_how_images_other_than_8_bit_rgb_were_read(exportable_run, tmp_path):
    run = RunFolder(shutil.copytree(exportable_run(**SMALL).path, tmp_path / "run"))
    reading = PixelReading(white=4095, floats=(-1.0, 2.5), bands=(5, 3, 1))
    run.write_description(run.describe() | {"reading": to_json(reading)})
    export_run(run.path, tmp_path / "first.pth")
    (line,) = (line for line in (tmp_path / "first-torchvision.md").read_text().splitlines() if "8-bit RGB" in line)
    for said in ("5, 3, 1", "4095", "-1 (black) to 2.5 (white)"):
        assert said in line
    assert list(reading_lines(PLAIN)) == list(reading_lines(PixelReading(max_pixels=7))) == []


@pytest.mark.parametrize("fields", [{}, SMALL, SMALL | {"rpn_weight": 1.0}], ids=["torchvision's", "other", "RPN"])
def test_code_in_the_torchvision_card_loads_everything_in_the_file(exportable_run, tmp_path, monkeypatch, fields):
    run = exportable_run(architecture="fpn", **fields)
    file = export_run(run.path, tmp_path / "first.safetensors").weights
    code = (tmp_path / "first-torchvision.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    here = {}
    exec(code, here)
    loaded = here["detector"].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in safetensors.torch.load_file(file).items())


def strings(code):
    return {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("name", ["it's", 'a "b"', "both ' and \"", "back\\slash", STRANGE])
def test_code_in_cards_and_configs_works_with_any_file_name(exportable_run, tmp_path, name, request):
    """Only a shell command cannot contain a name that is not UTF-8; it shows the name with backslashes."""
    if name == STRANGE:
        request.getfixturevalue("any_bytes_in_names")
    run = exportable_run(**SMALL)
    for framework, suffix in SUFFIXES.items():
        file = export_run(run.path, tmp_path / f"{name}{suffix}", format=framework, overwrite=True).weights
        language, code = (tmp_path / f"{name}-{framework}.md").read_text().split("```")[1].split("\n", 1)
        if language == "python":
            assert file.name in strings(code)
        else:
            shown = shlex.split(code, comments=True)[-1]
            if name == STRANGE:
                assert shown.startswith("\\udcfe-")
                shown = shown.replace("\\udcfe", STRANGE)
            assert (tmp_path / shown).is_file()
    for config in (tmp_path / f"{name}-mmdetection").iterdir():
        (weights,) = (text for text in strings(config.read_text()) if str(text).startswith("{{ fileDirname }}/../"))
        assert (tmp_path / weights.removeprefix("{{ fileDirname }}/../")).is_file()
    for config in (tmp_path / f"{name}-detectron2").iterdir():
        assert Path(yaml.safe_load(config.read_text())["MODEL"]["WEIGHTS"]).is_file()


def test_the_card_of_a_finished_run_names_its_initial_weights(exportable_run, tmp_path):
    run = exportable_run(**SMALL)
    folder = RunFolder(tmp_path / "run")
    state = RunFolder(run.path).load_checkpoint()
    start = {"start": {"from": "/home/somebody/r18.pth", "file": "r18.pth", "sha256": "cd" * 32}}
    folder.write_description(RunFolder(run.path).describe() | start)
    folder.save_checkpoint(100, {**state, "step": 100})
    export_run(folder.path, tmp_path / "first.pth", format="timm")
    card = (tmp_path / "first-timm.md").read_text()
    assert "Training finished: all 100 steps, 100 epochs" in card
    assert f"Began from `r18.pth`, sha256 `{'cd' * 32}`" in card
    assert "somebody" not in card


@pytest.mark.parametrize("framework", ["timm", "mmdetection"])
def test_names_derived_from_a_file_do_not_repeat_the_format(exportable_run, tmp_path, framework):
    run = exportable_run(**SMALL)
    exported = export_run(run.path, tmp_path / f"first-{framework}.pth", format=framework)
    assert exported.card.name == f"first-{framework}.md"
    folders = [path.name for path in tmp_path.iterdir() if path.is_dir() and path != run.path]
    assert folders == ([f"first-{framework}"] if framework == "mmdetection" else [])
    assert f"`first-{framework}.pth`" in exported.card.read_text()
