"""Exported weights, and classifiers' weights, in detectors: everything is loaded, and nothing is lost silently."""

import re
from dataclasses import replace

import pytest
import timm
import torch
from distinct_weights import R18, a_run, assert_filled
from narrow_models import narrow_resnet18
from torchvision.ops import FeaturePyramidNetwork

import socodet
from socodet.detection.build import build_detector
from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained

pytestmark = pytest.mark.usefixtures("narrow_networks")


def test_a_safetensors_file_fills_a_narrow_mask_rcnn(tmp_path):
    soco = a_run(tmp_path / "run", R18)
    file = export_run(tmp_path / "run", tmp_path / "weights.safetensors").weights
    assert_filled(new_detector("mask_rcnn_fpn", R18, 4), file, soco)


@pytest.mark.parametrize(
    ("architecture", "detector", "file"),
    [
        ("fpn", "mask_rcnn_fpn", "mm.pth"),
        ("fpn", "retinanet_fpn", "mm.single_stage.pth"),
        ("c4", "faster_rcnn_c4", "mm.pth"),
        ("c5", "faster_rcnn_fpn", "mm.pth"),
    ],
)
def test_an_export_for_mmdetection_is_read_back_completely(tmp_path, architecture, detector, file):
    settings = replace(R18, architecture=architecture)
    a_run(tmp_path / "run", settings)
    export_run(tmp_path / "run", tmp_path / "mm.pth", format="mmdetection")
    of_run, of_file = new_detector(detector, settings, 4, seed=0), new_detector(detector, settings, 4, seed=0)
    there = load_pretrained(of_run, tmp_path / "run")
    report = load_pretrained(of_file, tmp_path / file)
    assert report.loaded_modules == there.loaded_modules
    assert report.left_over == {}
    for name, value in of_file.state_dict().items():
        assert torch.equal(value, of_run.state_dict()[name]), name


@pytest.mark.parametrize("detector", ["mask_rcnn_fpn", "retinanet_fpn"])
def test_loading_only_the_backbone_changes_nothing_else(tmp_path, detector):
    soco = a_run(tmp_path / "run", R18)
    network = new_detector(detector, R18, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_pretrained(network, tmp_path / "run", backbone_only=True)
    body = soco.online.encoder.backbone.body.state_dict()
    for name, value in network.state_dict().items():
        own = name.removeprefix("backbone.body.")
        assert torch.equal(value, before[name] if own == name else body[own]), name
    assert [*report.loaded_modules] == ["backbone.body"]
    assert {*report.left_over_modules} == {"pyramid", "box head"}
    assert "left over" not in str(report)  # the user asked for it
    assert re.search(r"left out, as .*: pyramid \(48 tensors\), box head \(\d+ tensors\)", str(report))


def test_an_export_for_timm_loads_like_the_backbone_alone_of_its_run(tmp_path):
    """So a comparison can include both a run's modules and its backbone alone."""
    a_run(tmp_path / "run", R18)
    file = export_run(tmp_path / "run", tmp_path / "backbone.pth", format="timm").weights
    of_file, of_run = (new_detector("faster_rcnn_fpn", R18, 4, seed=3) for _ in range(2))
    loaded = load_pretrained(of_file, file).loaded
    assert loaded == load_pretrained(of_run, tmp_path / "run", backbone_only=True).loaded
    for name, value in of_file.state_dict().items():
        assert torch.equal(value, of_run.state_dict()[name]), name


def test_a_checkpoint_in_memory_is_read_like_its_file(tmp_path):
    """In any wrapper around the state dict."""
    checkpoint = {"model": a_run(tmp_path / "run", R18).state_dict(), "optimizer": {"lr": 1}, "step": 3}
    torch.save(checkpoint, tmp_path / "all.pth")
    of_file, in_memory = new_detector("mask_rcnn_fpn", R18, 4, seed=0), new_detector("mask_rcnn_fpn", R18, 4, seed=0)
    assert load_pretrained(in_memory, checkpoint).loaded == load_pretrained(of_file, tmp_path / "all.pth").loaded
    for name, value in in_memory.state_dict().items():
        assert torch.equal(value, of_file.state_dict()[name]), name


def test_loading_into_a_bare_backbone_is_refused_with_advice(tmp_path):
    soco = a_run(tmp_path / "run", R18)
    alone = narrow_resnet18()
    with pytest.raises(InputError, match="timm"):
        load_pretrained(alone, tmp_path / "run")
    weights = torch.load(export_run(tmp_path / "run", tmp_path / "timm.pth", format="timm").weights)
    assert alone.load_state_dict(weights, strict=False).unexpected_keys == []
    assert torch.equal(alone.conv1.weight, soco.online.encoder.backbone.body.conv1.weight)


def test_an_object_without_a_state_dict_is_one_line(tmp_path):
    detector = new_detector("mask_rcnn_fpn", R18, 4)
    for wrong, said in (({"step": 3}, "no state dict"), (torch.nn.Linear(1, 1), r"Linear; give its state_dict\(\)")):
        with pytest.raises(InputError, match=said) as refused:
            socodet.load_pretrained(detector, wrong)
        assert "\n" not in str(refused.value)


def test_the_backbone_of_a_complete_mmdetection_detector_is_loaded(tmp_path):
    a_run(tmp_path / "run", R18)
    weights = torch.load(export_run(tmp_path / "run", tmp_path / "mm.pth", format="mmdetection").weights)
    torch.save({"state_dict": weights | {"roi_head.bbox_head.fc_cls.weight": torch.ones(4, 24)}}, tmp_path / "all.pth")
    report = load_pretrained(new_detector("mask_rcnn_fpn", R18, 4), tmp_path / "all.pth")
    assert report.loaded_modules == {"backbone.body": 120}
    assert report.left_over_modules == {"neck": 48, "roi_head": 27}


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


def test_another_shape_is_refused_and_the_detector_is_unchanged(tmp_path):
    a_run(tmp_path, R18)
    wider = new_detector("mask_rcnn_fpn", replace(R18, representation_size=32), 91)
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(
        InputError, match=r"box_head\.5\.weight is \(24, 784\) there and \(32, 784\) in MaskRCNN; .*build_detector"
    ):
        load_pretrained(wider, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())


class Holder(torch.nn.Module):
    """Holds a detector like a LightningModule or DistributedDataParallel does, beside tensors of its own."""

    def __init__(self, detector, name):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        setattr(self, name, detector)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda detector: Holder(detector, "module"),
        lambda detector: Holder(Holder(detector, "net"), "model"),
        torch.compile,
        lambda detector: Holder(torch.compile(detector), "model"),
        lambda detector: torch.compile(Holder(detector, "module")),
    ],
    ids=["DistributedDataParallel", "Lightning", "torch.compile", "compiled within", "compiled around"],
)
@pytest.mark.parametrize("name", ["faster_rcnn_fpn", "retinanet_fpn", "faster_rcnn_c4"])
def test_a_detector_in_a_wrapper_is_filled(tmp_path, name, wrap):
    settings = replace(R18, architecture="c4" if name.endswith("c4") else "fpn")
    a_run(tmp_path, settings)
    plain, wrapped = new_detector(name, settings, 3), new_detector(name, settings, 3)
    expected = load_pretrained(plain, tmp_path)
    report = load_pretrained(wrap(wrapped), tmp_path)
    assert (report.loaded, report.fresh) == (expected.loaded, expected.fresh)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in wrapped.state_dict().items())


def test_a_partly_compiled_detector_is_filled(tmp_path):
    a_run(tmp_path, R18)
    detector = new_detector("faster_rcnn_fpn", R18, 3)
    detector.backbone.body = torch.compile(detector.backbone.body)
    assert load_pretrained(detector, tmp_path).loaded_modules["backbone.body"] == 120


def test_a_wrapper_with_two_detectors_is_ambiguous_and_refused(tmp_path):
    a_run(tmp_path, R18)
    two = Holder(Holder(new_detector("faster_rcnn_fpn", R18, 3), "student"), "model")
    two.teacher = new_detector("faster_rcnn_fpn", R18, 3)
    before = {name: value.clone() for name, value in two.state_dict().items()}
    with pytest.raises(InputError, match=r"model\.student\. and teacher\."):
        load_pretrained(two, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in two.state_dict().items())


def test_loading_into_meta_tensors_is_refused(tmp_path):
    a_run(tmp_path, R18)
    with torch.device("meta"):
        detector = new_detector("faster_rcnn_fpn", R18, 3)
    with pytest.raises(InputError, match=r"FasterRCNN: backbone\.body\.\S+ is on the meta device"):
        load_pretrained(detector, tmp_path)


def test_the_advice_is_for_the_command_line_too(tmp_path):
    torch.save(narrow_resnet18().state_dict(), tmp_path / "resnet18.pth")
    with torch.device("meta"):
        detector = new_detector("faster_rcnn_fpn", ModelSettings(), 3)
    with pytest.raises(InputError, match=r"build_detector.*--backbone and --fpn-channels") as caught:
        load_pretrained(detector, tmp_path / "resnet18.pth")
    assert "\n" not in str(caught.value)


def test_weights_are_not_loaded_into_half_of_a_deeper_backbone(tmp_path):
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
    "the layers in a Sequential, as in Lightly's examples": (
        R18,
        lambda whole: {
            "state_dict": under("backbone.", numbered(whole))
            | {name: -value for name, value in under("backbone_momentum.", numbered(whole)).items()}
            | {"projection_head.layers.0.weight": torch.zeros(8, 64)}
        },
        {"backbone_momentum": 120, "projection_head": 1},
    ),
    "the layers in a Sequential, in three entries, as in a BYOL of many copies": (
        R18,
        lambda whole: {
            "online_network_state_dict": under("encoder.", numbered(whole)) | {"projection.net.0.bias": torch.zeros(4)},
            "encoder_state_dict": numbered(whole),
            "target_network_state_dict": {name: -value for name, value in under("encoder.", numbered(whole)).items()},
            "optimizer_state_dict": {"state": {}, "param_groups": []},
        },
        {"online_network_state_dict": 1, "encoder_state_dict": 120, "target_network_state_dict": 120},
    ),
    "VISSL": (
        R18,
        lambda whole: {
            "classy_state_dict": {
                "base_model": {"model": {"trunk": under("_feature_blocks.", body_of(whole)), "heads": {}}},
            }
        },
        {},
    ),
    "the layers in a Sequential alone": (R18, lambda whole: numbered(whole), {}),
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


def numbered(tensors):
    """Numbers the network's children like a Sequential does, without the classifier."""
    network = narrow_resnet18()
    network.load_state_dict(tensors)
    return torch.nn.Sequential(*list(network.children())[:-1]).state_dict()


def body_of(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_classifier_in_a_wrapper_fills_only_the_backbone(tmp_path, wrapper, capsys):
    settings, wrap, left_over = WRAPPED[wrapper]
    torch.manual_seed(3)
    network = narrow_resnet18() if settings is R18 else timm.create_model(settings.backbone.removeprefix("timm/"))
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
    weights = narrow_resnet18().state_dict()
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


def test_export_refuses_existing_files_wrong_suffixes_and_unfinished_runs(tmp_path):
    a_run(tmp_path / "run", R18)
    (tmp_path / "there.pth").write_bytes(b"precious")
    with pytest.raises(InputError, match="exists"):
        export_run(tmp_path / "run", tmp_path / "there.pth")
    assert (tmp_path / "there.pth").read_bytes() == b"precious"
    with pytest.raises(InputError, match=r"ends in \.pth"):
        export_run(tmp_path / "run", tmp_path / "x.onnx")
    with pytest.raises(InputError, match="not a run"):
        export_run(tmp_path, tmp_path / "x.pth")
    empty = RunFolder(tmp_path / "empty")
    empty.write_description({"recipe": to_json(Recipe("custom", model=R18))})
    with pytest.raises(InputError, match="no checkpoint yet"):
        export_run(tmp_path / "empty", tmp_path / "x.pth")


def test_resnet_50_detectors_are_not_suggested_for_another_backbone(tmp_path):
    """torchvision's ..._resnet50_fpn_v2 have batch norm in the FPN, but a ResNet-18 does not fit them."""
    a_run(tmp_path / "run", R18)
    detector = new_detector("faster_rcnn_fpn", R18, 4)
    detector.backbone.fpn = FeaturePyramidNetwork([8, 16, 32, 64], R18.fpn_channels)  # its convolutions have no norms
    with pytest.raises(InputError, match=r"has no place in .*build_detector") as caught:
        load_pretrained(detector, tmp_path / "run")
    assert "resnet50" not in str(caught.value)


def test_a_classifier_is_filled_by_following_the_message(tmp_path):
    soco = a_run(tmp_path / "run", R18)
    classifier = narrow_resnet18()
    with pytest.raises(InputError, match=r"--format timm.*load_state_dict with strict=False"):
        load_pretrained(classifier, tmp_path / "run")
    file = export_run(tmp_path / "run", tmp_path / "backbone.pth", format="timm").weights
    keys = classifier.load_state_dict(torch.load(file, weights_only=True), strict=False)
    assert (set(keys.missing_keys), keys.unexpected_keys) == ({"fc.weight", "fc.bias"}, [])
    body = soco.online.encoder.backbone.body.state_dict()
    assert all(torch.equal(value, classifier.state_dict()[name]) for name, value in body.items())
