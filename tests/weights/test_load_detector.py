"""Exported weights in torchvision's own detectors: everything arrives, and nothing is lost silently."""

from dataclasses import replace

import pytest
import timm
import torch
from torchvision.models import resnet18
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn_v2,
)

from socodet.detection.build import build_detector
from socodet.detection.detectors import new_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.models.encoders import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained

R50 = ModelSettings(hidden_size=8, embedding_size=4)
R18 = ModelSettings(
    backbone="resnet18",
    fpn_channels=16,
    head_channels=16,
    representation_size=24,
    hidden_size=8,
    embedding_size=4,
)


def a_run(path, settings):
    """A run folder with one checkpoint whose every tensor is distinguishable from a fresh one."""
    torch.manual_seed(7)
    soco = SoCo(build_encoder(settings), settings)
    with torch.no_grad():
        for tensor in soco.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) if tensor.is_floating_point() else torch.tensor(5))
        for name, tensor in soco.state_dict().items():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    run = RunFolder(path)
    run.write_description({"recipe": to_json(Recipe("custom", model=settings))})
    run.save_checkpoint(1, {"step": 1, "model": soco.state_dict()})
    return soco


@pytest.fixture(scope="module")
def run_50(tmp_path_factory):
    """A run of torchvision's sizes, its network, and the file exported from it."""
    folder = tmp_path_factory.mktemp("r50")
    soco = a_run(folder / "run", R50)
    return folder / "run", soco, export_run(folder / "run", folder / "weights.pth").weights


def assert_filled(detector, file, soco):
    """Backbone, pyramid and box head are the online network's, the rest what it was."""
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_pretrained(detector, file)
    after = detector.state_dict()
    pretrained = [n for n in before if n.startswith(("backbone.body.", "backbone.fpn.", "roi_heads.box_head."))]
    assert set(report.loaded) == set(pretrained)
    assert report.fresh_modules.keys() == {
        *("rpn.head", "roi_heads.box_predictor"),
        *("roi_heads.mask_head", "roi_heads.mask_predictor"),
    }
    online = soco.online.encoder.state_dict()
    for name in pretrained:
        assert torch.equal(after[name], online[name.removeprefix("roi_heads.")]), name
    for name in report.fresh:
        assert torch.equal(after[name], before[name]), name


def test_a_file_fills_torchvisions_mask_rcnn(run_50):
    _, soco, file = run_50
    assert_filled(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None), file, soco)


def test_a_safetensors_file_fills_a_narrow_mask_rcnn(tmp_path):
    soco = a_run(tmp_path / "run", R18)
    file = export_run(tmp_path / "run", tmp_path / "weights.safetensors").weights
    assert_filled(new_detector("mask_rcnn_fpn", R18, 4), file, soco)


def test_the_file_is_a_plain_state_dict_for_torch_alone(run_50):
    with torch.device("meta"):
        detector = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    weights = torch.load(run_50[2], weights_only=True)
    missing, unexpected = detector.load_state_dict(weights, strict=False, assign=True)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"rpn", "roi_heads"}
    assert not any(name.startswith("roi_heads.box_head") for name in missing)


def test_our_default_mask_rcnn_is_torchvisions_but_for_a_second_convolution_of_proposals():
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        ours = new_detector("mask_rcnn_fpn", ModelSettings(), 91)
    shapes, expected = ({name: value.shape for name, value in net.state_dict().items()} for net in (ours, theirs))
    second = {"rpn.head.conv.1.0.weight", "rpn.head.conv.1.0.bias"}  # Detectron2 has one
    assert shapes == {name: shape for name, shape in expected.items() if name not in second}


def test_build_detector_fits_a_small_run_and_computes_what_was_pretrained(tmp_path):
    soco = a_run(tmp_path, R18)
    detector = build_detector(tmp_path, num_classes=4).eval()
    encoder = soco.online.encoder.eval()
    pixels, pooled = torch.randn(1, 3, 64, 96), torch.randn(5, 16, 7, 7)
    with torch.no_grad():
        for ours, theirs in zip(encoder.pyramid(pixels), list(detector.backbone(pixels).values())[:4], strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(encoder.box_head(pooled), detector.roi_heads.box_head(pooled))
        scores = detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))[0]
    assert scores.shape == (5, 4)
    detector.train()
    target = {
        "boxes": torch.tensor([[5.0, 5.0, 60.0, 50.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 64, 96, dtype=torch.uint8),
    }
    losses = detector([torch.rand(3, 64, 96), torch.rand(3, 64, 96)], [target, target])
    assert set(losses) == {
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
        "loss_objectness",
        "loss_rpn_box_reg",
    }


def test_another_shape_is_refused_and_the_detector_left_alone(tmp_path):
    a_run(tmp_path, R18)
    wider = new_detector("mask_rcnn_fpn", replace(R18, representation_size=32), 91)
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(
        InputError, match=r"box_head\.5\.weight is \(24, 784\) there and \(32, 784\) in MaskRCNN; .*build_detector"
    ):
        load_pretrained(wider, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (maskrcnn_resnet50_fpn, r"build_detector.*_fpn_v2"),
        (retinanet_resnet50_fpn_v2, r'build_detector\(RUN, detector="retinanet_fpn"\).*--format timm'),
    ],
)
def test_a_detector_without_batch_norm_in_its_pyramid_is_refused_with_what_fits(run_50, build, advice):
    with torch.device("meta"):
        detector = build(weights=None, weights_backbone=None)
    with pytest.raises(InputError, match=rf"backbone\.fpn\..* has no place in \w+; .*{advice}") as caught:
        load_pretrained(detector, run_50[0])
    assert "\n" not in str(caught.value)
    assert build.__name__ not in str(caught.value)


def test_the_backbone_alone_fits_torchvisions_retinanet(run_50, tmp_path):
    run, soco, _ = run_50
    file = export_run(run, tmp_path / "backbone.pth", format="timm").weights
    detector = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    report = load_pretrained(detector, file, show_report=False)
    assert report.loaded_modules == {"backbone.body": 318}
    body = soco.online.encoder.backbone["body"].state_dict()
    assert all(torch.equal(value, body[name]) for name, value in detector.backbone.body.state_dict().items())


def test_a_deeper_backbone_is_not_half_loaded(tmp_path):
    a_run(tmp_path, R18)
    deeper = new_detector("mask_rcnn_fpn", replace(R18, backbone="resnet34"), 91)
    with pytest.raises(InputError, match=r"lacks 80 tensors of MaskRCNN, first backbone\.body\.layer1\.2\."):
        load_pretrained(deeper, tmp_path)
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="none of its 0 tensors has a place"):
        load_pretrained(deeper, tmp_path / "empty.pth")


MOBILE = replace(R18, backbone="timm/mobilenetv3_small_050")
WRAPPED = {
    "DataParallel": (R18, lambda whole: under("module.", whole), {"fc": 2}),
    "torch.compile": (R18, lambda whole: under("_orig_mod.", whole), {"fc": 2}),
    "Lightning": (R18, lambda whole: {"state_dict": under("model.", whole), "epoch": 1}, {"fc": 2}),
    "OpenMMLab": (
        R18,
        lambda whole: {"state_dict": under("backbone.", body_of(whole)) | {"head.fc.weight": torch.zeros(10, 512)}},
        {"head": 1},
    ),
    "MoCo": (
        R18,
        lambda whole: {
            "state_dict": under("module.encoder_q.", body_of(whole))
            | {name: -value for name, value in under("module.encoder_k.", body_of(whole)).items()}
        },
        {"encoder_k": 120},
    ),
    "DINO": (
        R18,
        lambda whole: {"teacher": under("backbone.", body_of(whole)), "student": under("module.", whole)},
        {},
    ),
    "timm's classifier": (MOBILE, lambda whole: whole, {"conv_head": 2, "classifier": 2}),
    "timm's in a wrapper": (MOBILE, lambda whole: under("module.", whole), {"conv_head": 2, "classifier": 2}),
}


def under(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def body_of(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_classifier_in_a_wrapper_fills_the_backbone_alone(tmp_path, wrapper, capsys):
    settings, wrap, left_over = WRAPPED[wrapper]
    torch.manual_seed(3)
    network = resnet18() if settings is R18 else timm.create_model(settings.backbone.removeprefix("timm/"))
    whole = network.state_dict()
    torch.save(wrap(whole), tmp_path / "weights.pth")
    detector = new_detector("faster_rcnn_fpn", settings, 3)
    report = load_pretrained(detector, tmp_path / "weights.pth")
    assert report.loaded_modules.keys() == {"backbone.body"}
    assert report.left_over_modules == left_over
    assert ("fc (2 tensors)" in capsys.readouterr().err) is ("fc" in left_over)
    ours = detector.backbone.body.state_dict()
    assert len(report.loaded) == len(ours)
    for name, value in ours.items():
        assert torch.equal(value, whole[name.replace("blocks_", "blocks.")]), name


def test_weights_that_diverged_are_not_loaded(tmp_path):
    weights = resnet18().state_dict()
    weights["layer3.0.bn1.weight"][7] = float("nan")
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: layer3\.0\.bn1\.weight holds NaN"):
        load_pretrained(new_detector("faster_rcnn_fpn", R18, 3), tmp_path / "weights.pth")


def test_the_report_names_every_module(tmp_path, capsys):
    a_run(tmp_path, R18)
    report = load_pretrained(build_detector(tmp_path, num_classes=2, show_report=False), tmp_path)
    text = capsys.readouterr().err
    assert text == f"{report}\n"
    assert len(repr(report)) < 100 + len(str(tmp_path))
    assert "backbone.fpn (48 tensors)" in report._repr_html_()
    assert "loaded  backbone.body (120 tensors), backbone.fpn (48 tensors), roi_heads.box_head (26 tensors)" in text
    assert "fresh   rpn.head" in text
    assert "roi_heads.mask_predictor" in text


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (None, "absent.pth", "no such file"),
        (b"not weights", "w.pth", "not a file of weights"),
        (b"not weights", "w.safetensors", "not a file of weights"),
    ],
)
def test_a_bad_file_is_reported_in_one_line(tmp_path, content, name, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        load_pretrained(new_detector("mask_rcnn_fpn", R18, 91), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_export_refuses_what_it_cannot_do(tmp_path):
    a_run(tmp_path / "run", R18)
    (tmp_path / "there.pth").write_bytes(b"precious")
    with pytest.raises(InputError, match="exists"):
        export_run(tmp_path / "run", tmp_path / "there.pth")
    assert (tmp_path / "there.pth").read_bytes() == b"precious"
    with pytest.raises(InputError, match=r"unknown suffix '\.onnx'"):
        export_run(tmp_path / "run", tmp_path / "x.onnx")
    with pytest.raises(InputError, match="not a run"):
        export_run(tmp_path, tmp_path / "x.pth")
    empty = RunFolder(tmp_path / "empty")
    empty.write_description({"recipe": to_json(Recipe("custom", model=R18))})
    with pytest.raises(InputError, match="no checkpoint yet"):
        export_run(tmp_path / "empty", tmp_path / "x.pth")
