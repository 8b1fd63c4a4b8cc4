"""Code from outside the package is found by `module:name`, and never run merely because a file names it."""

import re
import sys

import numpy as np
import pytest
import torch

from socodet.cli import main
from socodet.detection.detectors.by_name import detector_named
from socodet.errors import InputError, SettingError
from socodet.models.architectures import encoder_class
from socodet.models.backbones import build_backbone
from socodet.models.objective import CosineAgreement, Objective, build_objective
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.recipes import recipe
from socodet.proposals.image_boxes import propose_boxes
from socodet.proposals.settings import ProposalSettings
from socodet.runtime import extensions
from socodet.runtime.serialization import from_json, to_json


class Same(CosineAgreement):
    pass


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module in the working directory that leaves a trace when it is imported."""
    (tmp_path / "planted.py").write_text(
        "import pathlib\npathlib.Path('mark').touch()\n"
        "from socodet.models.objective import CosineAgreement\nclass Loss(CosineAgreement): pass\nnumber = 3\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    extensions.trust([], [])
    sys.modules.pop("planted", None)


def was_run(folder):
    return (folder / "mark").exists()


def test_registered_objects_are_found_under_the_name_in_a_run():
    name = extensions.register(Same)
    assert name == f"{__name__}:Same"
    settings = from_json(ObjectiveSettings, to_json(ObjectiveSettings(loss=name)), "run.json")
    assert type(build_objective(settings)) is Same


def test_a_script_is_known_by_its_file_name(monkeypatch):
    monkeypatch.setattr(Same, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/somewhere/train_birds.py", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert extensions.register(Same) == "train_birds:Same"
    monkeypatch.delattr(sys.modules["__main__"], "__file__")  # as in a notebook
    assert extensions.register(Same) == "__main__:Same"


class Wordy(Same):
    def __repr__(self):
        return "one\ntwo"


@pytest.mark.parametrize("nameless", [lambda: None, Same(), Wordy()])
def test_objects_without_a_name_are_refused(nameless):
    with pytest.raises(SettingError, match="no name") as refused:
        extensions.register(nameless)
    assert "\n" not in str(refused.value)


class Unfinished(Objective):
    """An objective without `lowest`."""

    def __call__(self, embeddings):
        return embeddings.predictions[0].sum()


def not_a_class(embeddings):
    return embeddings.predictions[0].sum()


@pytest.mark.parametrize(
    ("own", "wanted", "said"),
    [(Unfinished, Objective, "lowest"), (not_a_class, Objective, "embeddings"), (Same, torch.nn.Module, "Module")],
)
def test_objects_that_cannot_be_built_are_one_line_that_names_them(own, wanted, said, monkeypatch):
    monkeypatch.setattr(extensions, "_REGISTERED", {})
    with pytest.raises(SettingError, match=f"{own.__name__}: .*{said}") as refused:
        extensions.resolve_extension(extensions.register(own), wanted)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["planted:Loss", "os:system", "subprocess:Popen"])
def test_a_name_in_a_file_runs_nothing_even_from_imported_modules(planted, name):
    found = from_json(ObjectiveSettings, {"loss": name}, "run.json")
    with pytest.raises(InputError, match=f"--import {name.partition(':')[0]}"):
        build_objective(found)
    backbone = from_json(ModelSettings, {"backbone": name, "architecture": name}, "run.json")
    boxes = from_json(ProposalSettings, {"method": name}, "run.json")
    for use in (
        lambda: build_backbone(backbone.backbone),
        lambda: encoder_class(backbone),
        lambda: propose_boxes(np.zeros((9, 9, 3), np.uint8), boxes),
        lambda: detector_named(name),
        lambda: recipe(name),
    ):
        with pytest.raises(InputError, match="--import"):
            use()
    assert not was_run(planted)


def test_only_modules_named_on_the_command_line_are_trusted(planted):
    extensions.trust([], ["--output", "x", "--loss=planted:Loss"])
    assert not was_run(planted)  # naming it imports nothing yet
    assert type(build_objective(ObjectiveSettings("planted:Loss"))).__name__ == "Loss"
    with pytest.raises(SettingError, match="did you mean Loss"):
        ObjectiveSettings("planted:Lost")  # checked before it is used
    with pytest.raises(SettingError, match=r"planted:number: .*\bint; .*CosineAgreement"):
        extensions.resolve_extension("planted:number", CosineAgreement)
    extensions.trust([], [])
    with pytest.raises(SettingError, match="--import planted"):
        build_objective(ObjectiveSettings("planted:Loss"))


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--loss", "missing_module:Loss"], "missing_module: cannot be imported .*No module named"),
        (["--import", "broken"], "broken: cannot be imported .*division by zero"),
        (["--loss", "broken:Loss"], "broken: cannot be imported .*division by zero"),
        (["--loss", "planted:Los"], "did you mean Loss"),
        (["--loss", "cosin"], "did you mean cosine"),
        (["--loss", "planted.Loss"], "loss"),
        (["--schedule", "planted:Loss"], "--schedule"),
        (["--recipe", "planted:Recipe"], "planted has no Recipe"),
        (["--import"], "--import"),
    ],
)
def test_a_wrong_name_is_one_line_before_any_input_is_read(planted, capsys, argv, problem):
    with pytest.raises(SystemExit):
        main(["pretrain", "no_images", "--output", "x", "--recipe", "tiny", *argv])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("socodet: error: ")
    assert re.search(problem, line)


@pytest.mark.parametrize("key", ["loss: planted:Loss", "recipe: planted:Loss", "sink: [planted:Loss]"])
def test_a_configuration_file_runs_no_code(planted, capsys, key):
    (planted / "config.yaml").write_text(key)
    with pytest.raises(SystemExit):
        main(["pretrain", "no_images", "--output", "x", "--config", "config.yaml"])
    assert not was_run(planted)
    assert "no_images" in (line := capsys.readouterr().err) or "--import planted" in line
