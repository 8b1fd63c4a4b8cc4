"""Model folders for transformers: `from_pretrained` reads them, and the models compute what was pretrained."""

import json
import shutil
import sys

import pytest
import torch
import transformers
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection
from transformers.utils.logging import is_progress_bar_enabled

from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.exporting.modules import pretrained_modules
from socodet.exporting.statistics import backbone_statistics
from socodet.models.backbones import stage_outputs
from socodet.models.settings import ModelSettings
from socodet.pretraining.preparation import reopen_images
from socodet.pretraining.recipes import Recipe
from socodet.runtime.extensions import register
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder

SMALL = {"fpn_channels": 16, "head_channels": 16, "representation_size": 24}
EVERY = ["detr", "conditional_detr", "deformable_detr", "rt_detr_v2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, shape in (("a", (40, 64)), ("b", (64, 40)), ("c", (32, 32))):
        pixels = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{name}.png")
    return folder


def test_transformers_own_progress_bars_are_hidden(exportable_run, tmp_path, capfd):
    export_run(exportable_run(**SMALL).path, tmp_path / "model", format="transformers", model="detr", bn_images=0)
    assert "shards" not in capfd.readouterr().err
    assert is_progress_bar_enabled()


@pytest.mark.parametrize("model", EVERY)
def test_from_pretrained_reads_the_folder(exportable_run, tmp_path, model):
    run = exportable_run(backbone="timm/resnet18d" if model == "rt_detr_v2" else "resnet18", **SMALL)
    folder = export_run(run.path, tmp_path / "model", format="transformers", model=model, bn_images=0).weights
    network, info = AutoModelForObjectDetection.from_pretrained(
        folder, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert network.config.model_type == model
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = network.eval().model.backbone.model(pixels)
        theirs = theirs if isinstance(theirs, list | tuple) else theirs.feature_maps
        ours = stage_outputs(run.encoder.backbone["body"], pixels)
    for our, their in zip(reversed(ours), reversed(theirs)):  # noqa: B905
        assert (our - their).abs().max() <= 1e-4 * our.abs().max().clamp(min=1)
    processor = AutoImageProcessor.from_pretrained(folder)
    white = processor(Image.new("RGB", (64, 64), "white"), return_tensors="pt")["pixel_values"]
    assert torch.allclose(white[0, :, 5, 5], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-3)
    card = (folder / "README.md").read_text()
    assert "from_pretrained" in card
    assert "They are those of pretraining" in card


def test_statistics_are_computed_over_all_images(exportable_run, tmp_path, photos):
    """Checked for the first norm, from the first convolution's outputs over all images."""
    run = exportable_run(backbone="resnet18", **SMALL)
    statistics, _ = backbone_statistics(pretrained_modules(run.path), photos, 10, side=64)
    outputs = []
    for file in sorted(photos.iterdir()):
        scaled = Image.open(file).resize((64, 64), Image.Resampling.BILINEAR)
        pixels = transformers.ViTImageProcessor(
            do_resize=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
        )(scaled, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            outputs.append(run.encoder.backbone["body"].conv1(pixels))
    values = torch.cat(outputs)
    mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    assert torch.allclose(statistics["body.bn1.running_mean"], mean, atol=0.01)
    assert torch.allclose(statistics["body.bn1.running_var"], variance, rtol=0.02)
    names = {name for name in statistics if "running_" in name}
    norms = [module for module in run.encoder.backbone["body"].modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(names) == 2 * len(norms)


def test_the_model_has_the_statistics_and_the_card_says_so(exportable_run, tmp_path, photos):
    run = exportable_run(backbone="timm/resnet18d", **SMALL)
    folder = export_run(
        run.path, tmp_path / "model", format="transformers", model="rt_detr_v2", images=photos, bn_images=1
    ).weights
    expected, _ = backbone_statistics(pretrained_modules(run.path), photos, 1)
    network = AutoModelForObjectDetection.from_pretrained(folder)
    norm = network.model.backbone.model.encoder.stages[2].layers[1].layer[0].normalization
    assert torch.allclose(norm.running_var, expected["body.layer3.1.bn1.running_var"])
    assert bool(
        (network.model.encoder.pan_blocks[0].conv1.norm.weight == 1).all()
    )  # transformers initialises it near 0
    assert not torch.allclose(norm.running_var, run.tensors["backbone.body.layer3.1.bn1.running_var"])
    assert "re-estimated on 1 images" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["model_type"] == "rt_detr_v2"


@pytest.mark.parametrize(("model", "levels"), [("detr", 4), ("deformable_detr", 3)])
def test_a_timm_network_without_a_stride_2_map_is_exported(exportable_run, tmp_path, model, levels):
    """Its feature maps are numbered from another stride than a ResNet's; its layer norms need no statistics."""
    run = exportable_run(backbone="timm/test_convnext", architecture="c5")
    folder = export_run(run.path, tmp_path / "model", format="transformers", model=model).weights
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = network.model.backbone.model(pixels)
        theirs = theirs if isinstance(theirs, list | tuple) else theirs.feature_maps
        ours = stage_outputs(run.encoder.backbone["body"], pixels)
    assert len(theirs) == levels
    for our, their in zip(ours[-levels:], theirs, strict=True):
        assert (our - their).abs().max() <= 1e-4 * our.abs().max()
    assert "batch norm" not in (folder / "README.md").read_text()


class OwnBackbone(nn.Module):
    """A backbone with four maps of one channel."""

    def forward(self, pixels):
        return [nn.functional.avg_pool2d(pixels[:, :1], stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize(("framework", "output", "model"), [("transformers", "model", "detr"), ("timm", "b.pth", None)])
def test_a_users_own_backbone_cannot_be_exported_to_other_frameworks(tmp_path, framework, output, model):
    settings = ModelSettings(backbone=register(OwnBackbone), architecture="c5")
    run = RunFolder(tmp_path / "run")
    run.write_description({"recipe": to_json(Recipe("custom", model=settings))})
    run.save_checkpoint(1, {"step": 1, "model": {"online.encoder.backbone.body.weight": torch.ones(1)}})
    with pytest.raises(InputError, match=f"OwnBackbone, which {framework} does not have"):
        export_run(run.path, tmp_path / output, format=framework, model=model)


def test_impossible_exports_are_refused_before_anything_is_written(exportable_run, tmp_path):
    run = exportable_run(backbone="resnet18", **SMALL)
    with pytest.raises(InputError, match="--model detr"):
        export_run(run.path, tmp_path / "model", format="transformers")
    with pytest.raises(InputError, match="--backbone timm/resnet50d"):
        export_run(run.path, tmp_path / "model", format="transformers", model="rt_detr_v2")
    with pytest.raises(InputError, match="for --format transformers"):
        export_run(run.path, tmp_path / "soco.pth", model="detr")
    with pytest.raises(InputError, match="no such file or folder"):
        export_run(run.path, tmp_path / "model", format="transformers", model="detr", images=tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_images_are_refused_where_they_would_not_be_used(exportable_run, tmp_path, photos):
    without_norms = exportable_run(backbone="timm/test_convnext", architecture="c5")
    with pytest.raises(InputError, match=r"--images.*test_convnext"):
        export_run(without_norms.path, tmp_path / "model", format="transformers", model="detr", images=photos)
    run = exportable_run(backbone="resnet18", **SMALL)
    with pytest.raises(InputError, match=r"--images.*--bn-images 0"):
        export_run(run.path, tmp_path / "model", format="transformers", model="detr", images=photos, bn_images=0)
    assert list(tmp_path.iterdir()) == []


def test_a_local_folder_is_not_mistaken_for_the_images_of_a_run_from_the_hub(
    exportable_run, tmp_path, photos, monkeypatch
):
    """Such a run records only the last part of their path, which a local folder may share."""
    run = RunFolder(shutil.copytree(exportable_run(backbone="resnet18", **SMALL).path, tmp_path / "run"))
    described = run.describe() | {"location": photos.name}
    run.write_description(described)
    monkeypatch.chdir(photos.parent)
    with pytest.raises(InputError, match=r"another machine.*--images"):
        export_run(run.path, tmp_path / "model", format="transformers", model="detr")
    with pytest.raises(InputError, match="another machine"):
        reopen_images(described)
    assert len(reopen_images(described | {"location": str(photos)})) == 3


def test_a_missing_transformers_is_one_line_that_says_how_to_install_it(exportable_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'socodet\[transformers\]'"):
        export_run(exportable_run(backbone="resnet18", **SMALL).path, tmp_path, format="transformers", model="detr")
