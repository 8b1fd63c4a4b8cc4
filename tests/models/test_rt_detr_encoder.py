"""RT-DETR's encoder in pretraining is that of transformers' detector; boxes are pooled from their levels' maps."""

import sys
from dataclasses import replace

import pytest
import torch
from torchvision.ops import roi_align

from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError, SettingError
from socodet.models.architectures import build_encoder, encoder_class
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe, recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.views.batch import ViewBatch, group_by_level
from socodet.weights.load import load_pretrained, load_starting_point

pytestmark = pytest.mark.usefixtures("narrow_networks")

SETTINGS = ModelSettings(
    architecture="rt_detr",
    backbone="timm/resnet18d",
    fpn_channels=16,
    head_convs=1,
    head_channels=8,
    representation_size=12,
    pooled_size=3,
    hidden_size=8,
    embedding_size=4,
)
SMALL = InferenceSettings(short_side=64, max_side=64)


@pytest.fixture(scope="module")
def soco():
    torch.manual_seed(5)
    network = SoCo(build_encoder(SETTINGS), SETTINGS)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
                tensor.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def run(soco, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_description({"recipe": to_json(Recipe("custom", model=SETTINGS))})
    folder.save_checkpoint(1, {"step": 1, "model": soco.state_dict()})
    return folder.path


def test_detector_loads_backbone_projections_and_encoder_and_computes_the_same_maps(soco, run):
    detector = new_detector("rt_detr", SETTINGS, 4, inference=SMALL).eval()
    report = load_pretrained(detector, run, show_report=False)
    assert report.loaded_modules.keys() == {"model.backbone", "model.encoder_input_proj", "model.encoder"}
    assert not report.loaded_modules.keys() & report.fresh_modules.keys()
    assert report.left_over_modules.keys() == {"box head"}
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    model, ours = detector.detr.model, soco.online.encoder.eval()
    with torch.no_grad():
        stages = model.backbone.model(pixels).feature_maps
        projected = [projection(stage) for projection, stage in zip(model.encoder_input_proj, stages, strict=True)]
        theirs = model.encoder(projected).last_hidden_state
        for one, other in zip(ours.maps(pixels), theirs, strict=True):
            assert (one - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.parametrize(("level", "stride", "index"), [(0, 8, 0), (1, 8, 0), (2, 16, 1), (3, 32, 2)])
def test_boxes_are_pooled_from_the_map_of_their_level_and_p2_from_the_first(soco, level, stride, index):
    encoder = soco.online.encoder.eval()
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[5.0, 10, 60, 40], [3, 3, 17, 30]]])
    with torch.no_grad():
        maps = encoder.maps(pixels)
        assert [tuple(one.shape[-2:]) for one in maps] == [(16, 16), (8, 8), (4, 4)]  # 112 padded to 128
        ours = encoder(pixels, group_by_level(boxes, torch.full((1, 2), level)))
        pooled = roi_align(maps[index], [boxes[0]], 3, 1 / stride, sampling_ratio=0, aligned=True)
        theirs = encoder.box_head(pooled)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient(soco):
    generator = torch.Generator().manual_seed(0)
    views = []
    for side in (64, 48):
        boxes = torch.tensor([[[4.0, 4, 30, 30], [10, 2, 44, 40]]]).repeat(2, 1, 1)
        levels = torch.tensor([[0, 3], [1, 2]])
        pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator)
        views.append(ViewBatch(pixels, group_by_level(boxes, levels), boxes, levels))
    soco.train()
    output = soco(views)
    assert -4 <= output.loss.item() <= 4
    output.loss.backward()
    lacking = [name for name, p in soco.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []
    soco.zero_grad()


def test_projections_start_from_a_pyramids_convolutions(soco, tmp_path):
    fpn = replace(SETTINGS, architecture="fpn")
    other = SoCo(build_encoder(fpn), fpn)
    folder = RunFolder(tmp_path / "run")
    folder.write_description({"recipe": to_json(Recipe("custom", model=fpn))})
    folder.save_checkpoint(1, {"step": 1, "model": other.state_dict()})
    network = SoCo(build_encoder(SETTINGS), SETTINGS)
    load_starting_point(network, folder.path)
    pyramid = other.online.encoder.backbone["fpn"].inner_blocks[2][0].weight
    assert torch.equal(network.online.encoder.backbone["input_proj"][1][0].weight, pyramid)
    assert torch.equal(network.target.encoder.backbone["input_proj"][1][0].weight, pyramid)


def test_fpn_detector_loads_the_backbone_of_an_rt_detr_run(run):
    network = new_detector("retinanet_fpn", replace(SETTINGS, architecture="fpn"), 4)
    report = load_pretrained(network, run, show_report=False)
    assert report.loaded_modules.keys() == {"backbone.body"}
    assert report.left_over_modules.keys() == {"input projections", "hybrid encoder", "box head"}


def test_recipe_of_rt_detr_and_its_requirements(monkeypatch):
    chosen = recipe("rt_detr_100ep")
    assert (chosen.model.architecture, chosen.model.backbone) == ("rt_detr", "timm/resnet50d")
    assert encoder_class(chosen.model).has_box_head
    with pytest.raises(SettingError, match="--backbone timm/resnet50d"):
        ModelSettings(architecture="rt_detr")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="needs transformers"):
        build_encoder(SETTINGS)
