"""Pretrained runs loaded into real classes of Hugging Face transformers, built from small configurations."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import ResNetConfig, RTDetrResNetConfig, TimmBackboneConfig

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.backbones import stage_outputs
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile
from socodet.weights.load import load_pretrained
from socodet.weights.pretrained_run import model_settings
from socodet.weights.transformers_folder import read_transformers_folder

SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "d_model": 32,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 5,
}
RT_DETR = {"d_model": 16, "encoder_hidden_dim": 16, "decoder_in_channels": [16] * 3, "num_denoising": 0}
RESNET18 = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}


def detector(name, backbone_config, **fields):
    """A real model of the given name, such as `Detr`."""
    sizes = {**SMALL, **fields}
    if name == "DabDetr":
        sizes["hidden_size"] = sizes.pop("d_model")
    config = getattr(transformers, f"{name}Config")(backbone_config=backbone_config, **sizes)
    return getattr(transformers, f"{name}ForObjectDetection")(config).eval()


def rt_detr(name="RTDetrV2", backbone=RESNET18, **fields):
    channels = backbone["hidden_sizes"][1:]
    config = RTDetrResNetConfig(**backbone, out_indices=[2, 3, 4])
    return detector(name, config, **{"encoder_in_channels": channels, **RT_DETR, **fields})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(backbone)` makes a run with distinct weights and statistics; returns its folder and its encoder."""
    made = {}

    def make(backbone, **fields):
        settings = ModelSettings(
            backbone=backbone,
            fpn_channels=16,
            head_channels=8,
            representation_size=8,
            head_convs=1,
            pooled_size=2,
            hidden_size=8,
            embedding_size=4,
            **fields,
        )
        if settings in made:
            return made[settings]
        torch.manual_seed(7)
        soco = SoCo(build_encoder(settings), settings)
        with torch.no_grad():
            for name, tensor in soco.state_dict().items():
                if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
                    tensor.uniform_(0.5, 1.5)
                elif tensor.ndim == 1:
                    tensor.normal_(0, 0.1)
        folder = RunFolder(tmp_path_factory.mktemp("run"))
        folder.write_description({"recipe": to_json(Recipe("custom", model=settings))})
        folder.save_checkpoint(5, {"step": 5, "total_steps": 5, "model": soco.state_dict()})
        made[settings] = folder.path, soco.online.encoder.eval()
        return made[settings]

    return make


def assert_same_maps(encoder, backbone):
    """Asserts that C3 to C5 of an image are the same from both."""
    pixels = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = backbone.eval()(pixels)
        theirs = list(theirs if isinstance(theirs, list | tuple) else theirs.feature_maps)
        ours = stage_outputs(encoder.backbone["body"], pixels)[-len(theirs) :]
    for our, their in zip(ours, theirs, strict=True):
        assert our.abs().mean() > 0.01
        assert (our - their).abs().max() <= 1e-4 * our.abs().max().clamp(min=1)


def body_of(model):
    """The backbone as called by the model."""
    backbone = model.model.backbone
    return getattr(backbone, "conv_encoder", backbone).model


TIMM18 = TimmBackboneConfig(backbone="resnet18", out_indices=[2, 3, 4])
HF18 = ResNetConfig(**RESNET18, out_features=["stage2", "stage3", "stage4"])


@pytest.mark.parametrize("backbone_config", [TIMM18, HF18], ids=["timm", "resnet"])
@pytest.mark.parametrize("name", ["Detr", "ConditionalDetr", "DeformableDetr", "DabDetr"])
def test_the_detr_family_takes_every_tensor_of_the_backbone(run, name, backbone_config):
    folder, encoder = run("resnet18")
    model = detector(name, backbone_config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_pretrained(model, folder, show_report=False)
    backbone = {key for key in before if ".backbone." in f".{key}" and "position" not in key}
    counters = {key for key in backbone if key.endswith("num_batches_tracked")}
    assert backbone - counters <= {*report.loaded} <= backbone
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items() if key in report.fresh)
    assert report.left_over_modules["box head"]
    assert not set(report.left_over_modules) & {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert_same_maps(encoder, body_of(model))


@pytest.mark.parametrize("name", ["RTDetr", "RTDetrV2"])
@pytest.mark.parametrize("frozen", [True, False])
def test_rt_detr_takes_backbone_and_input_projections(run, name, frozen):
    folder, encoder = run("timm/resnet18d")
    model = rt_detr(name, freeze_backbone_batch_norms=frozen)
    report = load_pretrained(model, folder, show_report=False)
    names = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    filled = {key for key in names if key.startswith(("model.backbone.", "model.encoder_input_proj."))}
    assert {key for key in report.loaded if not key.endswith("num_batches_tracked")} == filled
    assert_same_maps(encoder, body_of(model))
    c4 = torch.randn(1, 256, 3, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.model.encoder_input_proj[1](c4), encoder.backbone["fpn"].inner_blocks[2](c4))


def test_d_fine_with_a_timm_backbone_is_filled(run):
    """Its own HGNet-V2 has other tensor names and cannot be filled."""
    folder, encoder = run("timm/hgnetv2_b0", architecture="c5")
    sizes = {**RT_DETR, "encoder_in_channels": [256, 512, 1024], "decoder_n_points": [1, 1, 1]}
    model = detector("DFine", TimmBackboneConfig(backbone="hgnetv2_b0", out_indices=[1, 2, 3]), **sizes)
    report = load_pretrained(model, folder, show_report=False)
    assert report.fresh_modules.keys() & {"model.backbone"} == set()
    assert_same_maps(encoder, body_of(model)._backbone)
    with pytest.raises(InputError, match="build the model with it"):
        load_pretrained(detector("DFine", None, **sizes), folder, show_report=False)


def test_other_channels_leave_the_input_projections_fresh(run):
    folder, encoder = run("timm/resnet18d")
    model = rt_detr(encoder_hidden_dim=32, d_model=32, decoder_in_channels=[32] * 3)
    report = load_pretrained(model, folder, show_report=False)
    assert report.fresh_modules["model.encoder_input_proj"] == 3 * 6
    assert report.left_over_modules["input projections"] == 3 * 6
    assert_same_maps(encoder, body_of(model))


def test_full_width_resnet50_and_resnet50d_are_filled(run):
    folder, encoder = run("timm/resnet50d", architecture="c5")
    model = rt_detr(backbone={"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]})
    report = load_pretrained(model, folder, show_report=False)
    assert report.fresh_modules.keys() & {"model.backbone"} == set()
    assert_same_maps(encoder, body_of(model))
    folder, encoder = run("resnet50", architecture="c5")
    model = detector("Detr", None)  # transformers' default is timm's resnet50
    report = load_pretrained(model, folder, show_report=False)
    assert report.fresh_modules.keys() & {"model.backbone"} == set()
    assert_same_maps(encoder, body_of(model))


def test_a_c4_runs_fifth_stage_is_the_backbones_last(run):
    folder, encoder = run("resnet18", architecture="c4")
    model = detector("Detr", TIMM18)
    load_pretrained(model, folder, show_report=False)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder.box_head(encoder.stages(pixels)[0])
        assert (body_of(model)(pixels)[-1] - ours).abs().max() <= 1e-4 * ours.abs().max()


def test_another_backbone_is_refused_and_nothing_changes(run):
    folder, _ = run("resnet18")
    model = rt_detr()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"--backbone timm/resnet50d"):
        load_pretrained(model, folder, show_report=False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(InputError, match="another backbone"):
        load_pretrained(detector("Detr", TimmBackboneConfig(backbone="resnet50", out_indices=[4])), folder)
    strided = ResNetConfig(**RESNET18, out_features=["stage4"], downsample_in_bottleneck=True)
    for wrap in (torch.nn.Sequential, lambda model: model):
        with pytest.raises(InputError, match="downsample_in_bottleneck=False"):
            load_pretrained(wrap(detector("Detr", strided)), folder, show_report=False)


def test_a_backbone_whose_activations_transformers_drops_is_refused(run):
    """Its frozen norms replace timm's, which contain the activation; yet the weights would fit."""
    folder, _ = run("timm/test_efficientnet", architecture="c5")
    model = detector("Detr", TimmBackboneConfig(backbone="test_efficientnet", out_indices=[1, 2, 3, 4]))
    with pytest.raises(InputError, match="in test_efficientnet these contain the activations"):
        load_pretrained(model, folder, show_report=False)
    sizes = {**RT_DETR, "encoder_in_channels": [32, 48, 64], "decoder_n_points": [1, 1, 1]}
    config = TimmBackboneConfig(backbone="test_efficientnet", out_indices=[2, 3, 4])
    kept = detector("DFine", config, freeze_backbone_batch_norms=False, **sizes)
    encoder = run("timm/test_efficientnet", architecture="c5")[1]
    load_pretrained(kept, folder, show_report=False)
    assert_same_maps(encoder, body_of(kept)._backbone)


def test_a_backbone_whose_epsilons_transformers_changes_is_refused(run):
    folder, _ = run("timm/test_resnet", architecture="c5")
    with torch.device("meta"):
        config = TimmBackboneConfig(backbone="pnasnet5large", out_indices=[1, 2, 3, 4])
        with pytest.raises(InputError, match="another epsilon than those of pnasnet5large"):
            load_pretrained(detector("Detr", config), folder, show_report=False)


def test_a_model_folder_with_other_strides_is_refused(tmp_path):
    strided = ResNetConfig(**RESNET18, out_features=["stage4"], downsample_in_bottleneck=True)
    detector("Detr", strided).save_pretrained(tmp_path / "model")
    transformers.ResNetForImageClassification(strided).save_pretrained(tmp_path / "classifier")
    for place in ("model", "classifier", "model/model.safetensors", "classifier/model.safetensors"):
        with pytest.raises(InputError, match="downsample_in_bottleneck"):
            WeightsFile.find(tmp_path / place).read()
    (tmp_path / "model" / "config.json").write_text("of another program")
    assert WeightsFile.find(tmp_path / "model" / "model.safetensors").read()


@pytest.mark.parametrize("place", ["model", "model/model.safetensors"])
def test_a_resnet_alone_gives_the_same_maps(tmp_path, place):
    """As a classifier on the Hub, in its folder or its file without the configuration."""
    torch.manual_seed(3)
    model = transformers.ResNetForImageClassification(ResNetConfig(**RESNET18)).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "normalization.weight")):
                tensor.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path / "model")
    ours = new_detector("faster_rcnn_fpn", ModelSettings(backbone="resnet18"), 3)
    report = load_pretrained(ours, tmp_path / place, show_report=False)
    assert (report.format, report.loaded_modules) == ("transformers' ResNet", {"backbone.body": 120})
    assert report.left_over_modules == ({"classifier": 2} if place.endswith("safetensors") else {})
    pixels = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model.resnet(pixels, output_hidden_states=True).hidden_states[1:]
        for one, other in zip(stage_outputs(ours.eval().backbone.body, pixels), theirs, strict=True):
            torch.testing.assert_close(one, other)
    if place == "model":
        assert model_settings(tmp_path / place).backbone == "resnet18"


def test_a_model_folder_with_an_unsupported_backbone_is_refused(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.YolosConfig(**sizes, image_size=[32, 32], num_detection_tokens=4)
    transformers.YolosForObjectDetection(config).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="none of its"):
        load_pretrained(detector("Detr", ResNetConfig(**RESNET18, out_features=["stage4"])), tmp_path / "model")


def test_an_extra_shortcut_is_an_identity(run):
    """RT-DETR's ResNet-18 has a shortcut convolution in its first block, unlike timm's resnet18d."""
    folder, _ = run("timm/resnet18d")
    model = rt_detr()
    load_pretrained(model, folder, show_report=False)
    x = torch.randn(1, 64, 5, 7)
    shortcut = body_of(model).encoder.stages[0].layers[0].shortcut
    assert torch.allclose(shortcut(x), x, atol=1e-6)


def test_code_in_a_model_folder_is_not_run(tmp_path):
    folder, sentinel = tmp_path / "model", tmp_path / "sentinel"
    folder.mkdir()
    (folder / "code.py").write_text(f"import pathlib; pathlib.Path({str(sentinel)!r}).touch()")
    config = {"model_type": "odd", "auto_map": {"AutoConfig": "code.C", "AutoModelForObjectDetection": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="no detector"):
        read_transformers_folder(folder)
    assert not sentinel.exists()
