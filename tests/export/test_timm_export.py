"""The backbone in timm's real models: loaded by timm's own loader, they compute what was pretrained."""

import pytest
import timm
import torch

from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.exporting.timm import _as_full_model
from socodet.models.backbones import stage_outputs
from socodet.weights.formats import backbone
from socodet.weights.match import Advice, Network
from socodet.weights.recognition import recognize

ADVICE = Advice({}, {}, "")
SMALL = {"fpn_channels": 16, "head_channels": 16, "representation_size": 24}


@pytest.mark.parametrize(
    ("network", "architecture", "suffix"),
    [("resnet50", "fpn", ".pth"), ("resnet50", "c4", ".safetensors"), ("resnet18", "fpn", ".safetensors")],
)
def test_timms_model_computes_the_pretrained_features(exportable_run, tmp_path, network, architecture, suffix):
    small = SMALL if network == "resnet18" else {}
    run = exportable_run(backbone=network, architecture=architecture, **small)
    file = export_run(run.path, tmp_path / f"soco{suffix}", format="timm").weights
    model = timm.create_model(network, checkpoint_path=str(file), num_classes=0).eval()
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = list(run.encoder.backbone["body"](pixels).values())[-1]
        if architecture == "c4":
            ours = run.encoder.box_head(ours)
        theirs = model.forward_features(pixels)
    assert ours.abs().mean() > 0.01
    assert (theirs - ours).abs().max() <= 1e-6 * ours.abs().max()
    if architecture == "fpn":
        card = (tmp_path / "soco-timm.md").read_text()
        assert "pretrained, but not in it: pyramid, box head\n" in card


def test_networks_that_timm_does_not_split_keep_timms_names():
    with torch.device("meta"):
        features = timm.create_model("twins_svt_small", features_only=True).state_dict()
        whole = timm.create_model("twins_svt_small").state_dict()
        there, fresh = _as_full_model(features, "twins_svt_small")
    assert there.keys() == {name for name in whole if not name.startswith("head.")}
    assert len(fresh) == len(there) - len(features)
    renaming = backbone("backbone.body.")
    network = Network("it", {f"backbone.body.{name}": value for name, value in features.items()}, renaming, ADVICE)
    found = recognize(whole, network.is_body)
    assert (found.is_backbone, found.prefix) == (True, "")
    assert {network.find(f"body.{name}") for name in whole} - {None} == {f"body.{name}" for name in features}
    assert recognize([f"model.{name}" for name in whole], network.is_body).prefix == "model."
    assert network.find("body.model.norm.weight") == network.find("body.norm.weight")
    assert network.can_do_without("body.head.weight", is_backbone=True)
    assert not network.can_do_without("body.blocks.9.0.norm1.weight", is_backbone=True)


def test_a_timm_network_is_exported_under_the_complete_models_names(exportable_run, tmp_path):
    run = exportable_run(backbone="timm/convnext_atto", **SMALL)
    file = export_run(run.path, tmp_path / "soco.pth", format="timm").weights
    model = timm.create_model("convnext_atto", checkpoint_path=str(file), num_classes=0).eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = stage_outputs(run.encoder.backbone["body"], pixels)[-1]
        theirs = model.forward_features(pixels)
    assert (theirs - ours).abs().max() <= 1e-6 * ours.abs().max()
    card = (tmp_path / "soco-timm.md").read_text()
    assert 'timm.create_model("convnext_atto", checkpoint_path="soco.pth", num_classes=0)' in card
    assert "Not pretrained, as timm initialises it: head.norm.weight, head.norm.bias." in card
    with pytest.raises(InputError, match=r"timm/convnext_atto, but --format detectron2 supports only ResNets"):
        export_run(run.path, tmp_path / "soco.pkl", format="detectron2")
