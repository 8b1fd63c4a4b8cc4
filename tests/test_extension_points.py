"""Every extension point, with code from outside the package: by name on the command line, as objects in Python."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from photograph_sets import coco_file
from torch import nn

import socodet
from socodet.cli import main
from socodet.images.photographs import photographs
from socodet.models.encoders import FPNEncoder, ObjectEncoder
from socodet.models.settings import ObjectiveSettings
from socodet.runtime import extensions
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

OWN = '''
from dataclasses import replace

import numpy as np
import torch
from torch import nn

import socodet
from socodet.detection.detectors.rcnn_fpn import FasterRCNNFPN
from socodet.models.encoders import FPNEncoder
from socodet.models.objective import CosineAgreement


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.stages = nn.ModuleList(nn.Conv2d(8, 8, 3, stride, 1) for stride in (1, 2, 2, 2))

    def forward(self, x):
        x = self.stem(x)
        return [x := stage(x) for stage in self.stages]


class Half(CosineAgreement):
    def __call__(self, embeddings):
        return super().__call__(embeddings) / 2

    def lowest(self, views):
        return super().lowest(views) / 2


class Encoder(FPNEncoder):
    """With layers that no detector of the package has."""

    def __init__(self, settings, norm_layer):
        super().__init__(settings, norm_layer)
        self.gate = nn.Linear(self.representation_size, self.representation_size)
        self.backbone["mix"] = nn.Conv2d(settings.fpn_channels, settings.fpn_channels, 1)

    def levels_over_views(self, pixels, rois):
        mix = self.backbone["mix"]
        views = super().levels_over_views(pixels, rois)
        return [[None if one is None else mix(one) for one in levels] for levels in views]

    def of_levels(self, levels, rois):
        return [h * self.gate(h).sigmoid() for h in super().of_levels(levels, rois)]


class Detector(FasterRCNNFPN):
    pass


class Lines:
    def __init__(self, folder):
        self.file = open(folder.parent / "lines.txt", "a")

    def write(self, step, line):
        print(step, line["loss"], file=self.file)

    def close(self):
        self.file.close()


def four_boxes(image, rng):
    height, width = image.shape[:2]
    corner = rng.uniform(0, 0.3, (4, 2))
    return np.concatenate([corner, corner + 0.5], 1) * [width, height, width, height]


def narrow():
    """A recipe of small networks."""
    tiny = socodet.recipe("tiny")
    return replace(
        tiny,
        model=replace(tiny.model, fpn_channels=16, head_convs=1, head_channels=16, representation_size=24,
                      hidden_size=8, embedding_size=4),
        training=replace(tiny.training, epochs=2, warmup_epochs=0, batch_size=2),
    )
'''
CLI = (
    *("--recipe", "own:narrow", "--loss", "own:Half", "--backbone", "own:Net", "--architecture", "own:Encoder"),
    *("--proposals.method", "own:four_boxes"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretraining run, with data workers, in which every part is the user's, and a user's detector made from it."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        (folder / "own.py").write_text(OWN)
        (folder / "images").mkdir()
        for name in ("hopper", "chelsea"):
            shutil.copy(photographs() / f"{name}.jpg", folder / "images")
        coco_file(folder / "set.json", ("hopper", "chelsea"), masks=False)
        pretrain("run", "--workers", "1", "--proposals", "online", "--sink", "own:Lines")
        argv = "finetune set.json --images images --init run --output det --detector own:Detector --size 32"
        short = "--iterations 1 --batch-size 2 --device cpu --workers 0 --precise-bn 0 --rois-per-image 8"
        main([*argv.split(), *short.split()])
        yield folder
        extensions.trust([], [])
        sys.modules.pop("own", None)


def pretrain(output, *more):
    main(["pretrain", "images", "--output", output, "--device", "cpu", *CLI, *more])


def refused(capsys, *argv):
    with pytest.raises(SystemExit):
        main([*argv])
    return capsys.readouterr().err


def test_a_run_records_the_users_parts(folder):
    recipe = json.loads((folder / "run" / "run.json").read_text())["recipe"]
    assert recipe["name"] == "own:narrow"
    assert recipe["objective"]["loss"] == "own:Half"
    assert (recipe["model"]["backbone"], recipe["model"]["architecture"]) == ("own:Net", "own:Encoder")
    assert recipe["proposals"]["method"] == "own:four_boxes"
    losses = [line["loss"] for line in RunFolder(folder / "run").log_lines()]
    assert [float(line.split()[1]) for line in (folder / "lines.txt").read_text().splitlines()] == losses


def test_a_run_does_not_resume_with_another_objective(folder, capsys):
    shutil.copytree(folder / "run", folder / "other")
    argv = ["pretrain", "images", "--output", "other", "--device", "cpu", *CLI, "--proposals", "online"]
    problem = refused(capsys, *argv, "--loss", "cosine")
    assert "loss" in problem
    assert "own:Half" in problem


def test_reading_a_run_executes_its_code_only_if_allowed(folder, capsys):
    argv = ["predict", "det", "images", "--output", "found", "--device", "cpu", "--workers", "0"]
    assert "--import own" in refused(capsys, *argv)
    assert not (folder / "found").exists()
    main([*argv, "--import", "own"])
    assert (folder / "found" / "predictions.json").exists()
    extensions.trust([], [])
    with pytest.raises(socodet.InputError, match=r"socodet\.register\(Detector\)"):
        socodet.load_detector("det")


def test_objects_in_python_give_the_same_weights_as_names(folder):
    import own

    recipe = own.narrow()
    recipe = replace(
        recipe,
        model=replace(recipe.model, backbone=socodet.register(own.Net), architecture=socodet.register(own.Encoder)),
        objective=ObjectiveSettings(loss=socodet.register(own.Half)),
        proposals=replace(recipe.proposals, method=socodet.register(own.four_boxes)),
        name="own:narrow",
    )
    execution = ExecutionSettings("cpu", workers=0, log_every=1)
    socodet.pretrain("images", recipe, "python", execution=execution)
    ours, theirs = (RunFolder(folder / name).load_checkpoint()["model"] for name in ("python", "run"))
    assert all((value == theirs[name]).all() for name, value in ours.items())

    shipped = replace(recipe, objective=ObjectiveSettings())
    socodet.pretrain("images", shipped, "shipped", execution=replace(execution, max_steps=1))
    half, whole = (next(iter(RunFolder(folder / name).log_lines()))["loss"] for name in ("python", "shipped"))
    assert half == pytest.approx(whole / 2)


def test_layers_that_only_the_users_encoder_has_are_left_over(folder):
    """Everything else is transferred, and the report and the card of an export name them."""
    import own

    for part in (own.Net, own.Encoder, own.Half, own.narrow):
        socodet.register(part)
    trained = RunFolder(folder / "run").load_checkpoint()["model"]
    detector = socodet.build_detector("run", num_classes=2, detector="faster_rcnn_fpn")
    report = socodet.load_pretrained(detector, "run")
    assert report.left_over_modules == {"gate": 2, "backbone.mix": 2}
    exported = socodet.export("run", "run.pth")
    card = exported.card.read_text()
    assert "gate" in card
    assert "backbone.mix" in card
    encoder = {name.removeprefix("online.encoder."): x for name, x in trained.items() if "online.encoder." in name}
    detectors, file = detector.state_dict(), torch.load(exported.weights)
    for name, value in encoder.items():
        if "gate" not in name and "mix" not in name:
            there = f"roi_heads.{name}" if name.startswith("box_head.") else name
            assert detectors[there].equal(value)
            assert file[there].equal(value)
    assert len(file) == len(encoder) - 4


def test_unknown_layers_of_an_encoder_in_a_file_are_refused(folder):
    checkpoint = RunFolder(folder / "run").checkpoints()[-1]
    detector = socodet.build_detector("run", num_classes=2, detector="faster_rcnn_fpn")
    with pytest.raises(socodet.InputError, match=r"online\.encoder\.(gate|backbone\.mix)"):
        socodet.load_pretrained(detector, checkpoint)


def test_a_run_without_a_backbone_is_not_exported(folder):
    """Runs of encoders that keep their backbone under another name have nothing that a detector would find."""
    import own

    socodet.register(own.Encoder)
    shutil.copytree(folder / "run", folder / "other_names")
    run = RunFolder(folder / "other_names")
    state = run.load_checkpoint()
    state["model"] = {name.replace("encoder.backbone.", "encoder.net."): x for name, x in state["model"].items()}
    run.save_checkpoint(state["step"], state)
    for form in ("timm", "torchvision"):
        with pytest.raises(socodet.InputError, match=r"other_names.* no backbone"):
            socodet.export("other_names", f"{form}.pth", format=form)
        assert not (folder / f"{form}.pth").exists()


class NoBackbone(ObjectEncoder):
    def __init__(self, settings, norm_layer):
        super().__init__()
        self.net, self.representation_size = nn.Conv2d(3, 8, 32, 32), 8

    def over_views(self, pixels, rois):
        return [self.net(view).mean(dim=(2, 3)) for view in pixels]


class OneArgument(FPNEncoder):
    def __init__(self, settings):
        super().__init__(settings)


@pytest.mark.parametrize(("encoder", "why"), [(NoBackbone, "backbone"), (OneArgument, "TypeError.*2 positional")])
def test_encoders_that_cannot_be_used_are_refused(encoder, why):
    model = replace(socodet.recipe("tiny").model, architecture=socodet.register(encoder))
    with pytest.raises(socodet.InputError, match=f":{encoder.__name__}: .*{why}"):
        socodet.build_soco(model, seed=0)
