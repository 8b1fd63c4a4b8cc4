"""The sizes of a network's modules are read from the shapes of the tensors in a file."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from distinct_weights import R18, a_run, assert_filled
from torchvision.models import resnet34
from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

from socodet.detection.build import build_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.models.settings import ModelSettings
from socodet.studies.inits import named_inits, shared_model
from socodet.training.run_folder import RunFolder
from socodet.weights.sizes import settings_of

COUNTERS = Path("/proc/self/io")
NARROW = replace(R18, head_convs=2, pooled_size=5)
ENCODER = ("backbone", "fpn_channels", "head_convs", "head_channels", "representation_size", "pooled_size")


def of_encoder(settings):
    return {name: getattr(settings, name) for name in ENCODER}


@pytest.mark.parametrize("format", ["torchvision", "mmdetection"])
def test_an_exported_file_shows_the_sizes_of_its_run(tmp_path, format):
    a_run(tmp_path / "run", NARROW)
    export_run(tmp_path / "run", tmp_path / "file.pth", format=format)
    assert of_encoder(settings_of(tmp_path / "file.pth")) == of_encoder(NARROW)


def test_a_checkpoint_shows_the_sizes_of_its_run(tmp_path):
    a_run(tmp_path, NARROW)
    (checkpoint,) = RunFolder(tmp_path).checkpoints()
    assert of_encoder(settings_of(checkpoint)) == of_encoder(NARROW)


def test_a_backbone_shows_which_resnet_it_is_and_nothing_else(tmp_path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in resnet34().state_dict().items()}}, tmp_path / "34.pth")
    assert settings_of(tmp_path / "34.pth") == ModelSettings(backbone="resnet34")


def test_a_detector_of_torchvisions_has_the_papers_sizes(tmp_path):
    torch.save(fasterrcnn_resnet50_fpn_v2(weights_backbone=None).state_dict(), tmp_path / "v2.pth")
    assert settings_of(tmp_path / "v2.pth") == ModelSettings()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no weights",
        {"stem.weight": torch.zeros(1)},
        {"backbone.body.a.weight": torch.full((1,), torch.nan)},
        {
            "backbone.body.layer1.0.conv1.weight": torch.zeros(1),
            "backbone.fpn.inner_blocks.3.0.weight": torch.zeros(()),
            "roi_heads.box_head.0.0.weight": torch.zeros(0, 1, 3, 3),
            "roi_heads.box_head.5.weight": torch.zeros(1),
        },
    ],
)
def test_a_file_that_shows_nothing_gives_the_defaults(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "file.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "file.pth")
    assert settings_of(tmp_path / "file.pth") == ModelSettings()


def test_a_detector_is_built_for_an_exported_file(tmp_path):
    soco = a_run(tmp_path / "run", NARROW)
    export_run(tmp_path / "run", tmp_path / "file.pth")
    built = build_detector(tmp_path / "file.pth", num_classes=4, show_report=False)
    for name, tensor in soco.online.encoder.state_dict().items():
        there = name if name.startswith("backbone.") else f"roi_heads.{name}"
        assert torch.equal(built.state_dict()[there], tensor)
    assert_filled(build_detector(tmp_path / "run", num_classes=4, show_report=False), tmp_path / "file.pth", soco)


def test_fine_tuning_takes_the_sizes_of_the_first_run_otherwise_of_the_first_file(tmp_path):
    a_run(tmp_path / "narrow", NARROW)
    a_run(tmp_path / "run", replace(NARROW, fpn_channels=24))
    export_run(tmp_path / "narrow", tmp_path / "file.pth")
    file, run = (str(tmp_path / name) for name in ("file.pth", "run"))
    assert of_encoder(shared_model(named_inits(["scratch", file]))) == of_encoder(NARROW)
    assert shared_model(named_inits([file, run])).fpn_channels == 24
    assert shared_model(named_inits(["scratch"])) == ModelSettings()


@pytest.mark.skipif(not COUNTERS.exists(), reason="bytes read are counted on Linux")
def test_numbers_are_not_read_for_the_sizes(tmp_path):
    torch.save(resnet34().state_dict(), tmp_path / "34.pth")

    def bytes_read():
        return int(COUNTERS.read_text().split()[1])

    before = bytes_read()
    assert settings_of(tmp_path / "34.pth").backbone == "resnet34"
    assert bytes_read() - before < (tmp_path / "34.pth").stat().st_size / 20


def test_a_damaged_file_is_refused_although_its_sizes_were_read(tmp_path):
    torch.save({**resnet34().state_dict(), "fc.weight": torch.full((1000, 512), 7.0)}, tmp_path / "34.pth")
    content = (tmp_path / "34.pth").read_bytes()
    (tmp_path / "34.pth").write_bytes(content.replace(torch.full((9,), 7.0).numpy().tobytes(), bytes(36), 1))
    with pytest.raises(InputError, match="damaged"):
        build_detector(tmp_path / "34.pth", num_classes=4)


def save_with_the_shapes_of(name, file):
    """Saves a network of torchvision's with all its tensors, of which only the first convolutions have their size."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)().state_dict()
    kept = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight")
    torch.save({one: torch.zeros(value.shape if one in kept else 1) for one, value in shapes.items()}, file)


@pytest.mark.parametrize("name", ["wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_64x4d"])
def test_torchvisions_wider_resnets_are_timms_of_that_name(tmp_path, name):
    pytest.importorskip("timm")
    save_with_the_shapes_of(name, tmp_path / "file.pth")
    assert settings_of(tmp_path / "file.pth") == ModelSettings(backbone=f"timm/{name}")


def test_a_wider_resnet_needs_timm(tmp_path, monkeypatch):
    save_with_the_shapes_of("wide_resnet50_2", tmp_path / "file.pth")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        InputError, match=r"file\.pth: backbone timm/wide_resnet50_2: needs timm, which is not installed"
    ):
        settings_of(tmp_path / "file.pth")
