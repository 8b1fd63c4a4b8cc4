"""Runs of every pretraining architecture into every detector: which modules are loaded, fresh, or left over."""

from dataclasses import replace

import pytest
import torch
from narrow_models import narrow_resnet18

from socodet.detection.detectors.by_name import DETECTORS, new_detector
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained

pytestmark = pytest.mark.usefixtures("narrow_networks")

TORCHVISION = [name for name, detector in DETECTORS.items() if isinstance(detector, TorchvisionDetector)]
R18 = ModelSettings(
    backbone="resnet18",
    fpn_channels=16,
    head_convs=4,
    head_channels=16,
    representation_size=24,
    hidden_size=8,
    embedding_size=4,
)
RCNN_FPN = ("mask_rcnn_fpn", "faster_rcnn_fpn")
RCNN_C4 = ("mask_rcnn_c4", "faster_rcnn_c4")
SINGLE = ("retinanet_fpn", "fcos_fpn")

BODY = {"backbone.body": 120}
C4 = {"backbone.body": 90, "roi_heads.box_head": 30}  # layer4 is the head: two blocks, one with a downsampling branch
FPN = {"backbone.fpn": 48}  # four levels of two convolutions, each with a weight and five batch-norm tensors
FPN_P3 = {"backbone.fpn": 36}
HEAD = {"roi_heads.box_head": 26}

RPN = {"rpn.head": 6}
PREDICTOR = {"roi_heads.box_predictor": 4}
MASK_FPN = {"roi_heads.mask_head": 24, "roi_heads.mask_predictor": 4}
EXTRA_NORM = {"roi_heads.box_head.norm": 5}
P6_P7 = {"backbone.fpn.extra_blocks": 4}
PYRAMID_LEFT = {f"P{level}'s {kind} convolution": 6 for level in (2, 3, 4, 5) for kind in ("lateral", "output")}
P2_LEFT = {f"P2's {kind} convolution": 6 for kind in ("lateral", "output")}
HEAD_LEFT = {"box head": 26}


def heads_of(detector):
    """Tensors that no run pretrains."""
    if detector in RCNN_FPN:
        return RPN | PREDICTOR | (MASK_FPN if detector.startswith("mask") else {})
    if detector in RCNN_C4:
        return RPN | PREDICTOR | EXTRA_NORM | ({"roi_heads.mask_predictor": 4} if detector.startswith("mask") else {})
    if detector.startswith("retinanet"):
        return P6_P7 | {"head.classification_head": 10, "head.regression_head": 10}
    return P6_P7 | {"head.classification_head": 18, "head.regression_head": 20}


def expected(kind, detector):
    """Expected numbers of tensors: loaded, fresh and left over."""
    if detector in RCNN_C4:
        left = (PYRAMID_LEFT if kind.startswith("fpn") else {}) | (HEAD_LEFT if kind == "fpn" else {})
        return C4, heads_of(detector), left
    fpn = FPN if detector in RCNN_FPN else FPN_P3
    loaded, fresh, left = dict(BODY), heads_of(detector), {}
    (loaded if kind.startswith("fpn") else fresh).update(fpn)
    if detector in RCNN_FPN:
        (loaded if kind == "fpn" else fresh).update(HEAD)
    elif kind.startswith("fpn"):
        left = P2_LEFT | (HEAD_LEFT if kind == "fpn" else {})
    return loaded, fresh, left


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each architecture with distinct weights, and its encoder."""
    made = {}
    for kind in ("fpn", "fpn_no_head", "c4", "c5", "image"):
        settings = replace(R18, architecture=kind)
        torch.manual_seed(7)
        soco = SoCo(build_encoder(settings), settings)
        with torch.no_grad():
            for name, tensor in soco.state_dict().items():
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.uniform_(0.5, 1.5)
                elif name.endswith("num_batches_tracked"):
                    tensor.fill_(5)
        run = RunFolder(tmp_path_factory.mktemp(kind))
        run.write_description({"recipe": to_json(Recipe("custom", model=settings))})
        run.save_checkpoint(1, {"step": 1, "model": soco.state_dict()})
        made[kind] = run.path, soco.online.encoder.eval()
    return made


@pytest.mark.parametrize("detector", TORCHVISION)
@pytest.mark.parametrize("kind", ["fpn", "fpn_no_head", "c4", "c5", "image"])
def test_pretrained_modules_are_loaded_and_compute_the_same(runs, kind, detector):
    run, encoder = runs[kind]
    network = new_detector(detector, R18, 4).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_pretrained(network, run, show_report=False)
    loaded, fresh, left = expected(kind, detector)
    assert report.loaded_modules == loaded
    assert report.fresh_modules == fresh
    assert report.left_over_modules == left
    assert {*report.loaded, *report.fresh} == before.keys()
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)

    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        body = encoder.backbone["body"]
        if detector in RCNN_C4:
            c4 = body(pixels)["0"] if kind == "c4" else body.layer3(body.layer2(body.layer1(stem(body, pixels))))
            torch.testing.assert_close(network.backbone(pixels)["0"], c4)
            fifth = encoder.box_head if kind == "c4" else body.layer4
            pooled = torch.randn(3, 32, 14, 14)
            torch.testing.assert_close(network.roi_heads.box_head[:-1](pooled), fifth(pooled))
            return
        stages = list(network.backbone.body(pixels).values())
        if kind == "c4":
            torch.testing.assert_close(stages[2], body(pixels)["0"])
            torch.testing.assert_close(stages[3], encoder.box_head(stages[2]))
        else:
            for ours, theirs in zip(stages, body(pixels).values(), strict=True):
                torch.testing.assert_close(ours, theirs)
        if kind.startswith("fpn"):
            levels = network.backbone(pixels)
            for level, theirs in enumerate(encoder.pyramid(pixels)):
                if level > 0 or detector in RCNN_FPN:
                    torch.testing.assert_close(levels[str(level)], theirs)
        if kind == "fpn" and detector in RCNN_FPN:
            pooled = torch.randn(3, 16, 7, 7)
            torch.testing.assert_close(network.roi_heads.box_head(pooled), encoder.box_head(pooled))


def stem(body, pixels):
    return body.maxpool(body.relu(body.bn1(body.conv1(pixels))))


@pytest.mark.parametrize("detector", SINGLE)
def test_single_stage_fpn_blocks_are_matched_by_level_and_not_by_index(runs, detector):
    run, encoder = runs["fpn"]
    network = new_detector(detector, R18, 4)
    load_pretrained(network, run, show_report=False)
    ours, theirs = network.state_dict(), encoder.state_dict()
    same_shape = 0
    for kind in ("inner_blocks", "layer_blocks"):
        for block in range(3):
            for tensor in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
                value = ours[f"backbone.fpn.{kind}.{block}.{tensor}"]
                assert torch.equal(value, theirs[f"backbone.fpn.{kind}.{block + 1}.{tensor}"])
                wrong = theirs[f"backbone.fpn.{kind}.{block}.{tensor}"]
                same_shape += wrong.shape == value.shape
                assert wrong.shape != value.shape or not torch.equal(value, wrong)
    assert same_shape == 27  # all but the lateral weights would also fit one level lower, unnoticed


@pytest.mark.parametrize("detector", ["retinanet_fpn", "mask_rcnn_c4", "mask_rcnn_fpn"])
def test_an_exported_file_loads_like_its_run(runs, tmp_path, detector):
    run, _ = runs["fpn"]
    file = export_run(run, tmp_path / "weights.safetensors").weights
    one, other = new_detector(detector, R18, 4), new_detector(detector, R18, 4)
    of_file = load_pretrained(one, file, show_report=False)
    of_run = load_pretrained(other, run, show_report=False)
    assert set(of_file.loaded) == set(of_run.loaded)
    assert of_file.left_over_modules == of_run.left_over_modules
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("detector", TORCHVISION)
def test_a_supervised_backbone_fills_only_the_backbone(tmp_path, detector, capsys):
    classifier = narrow_resnet18()
    weights = {n: v for n, v in classifier.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "resnet18.pth")  # older files lack the counters
    network = new_detector(detector, R18, 4)
    report = load_pretrained(network, tmp_path / "resnet18.pth")
    assert report.left_over_modules == {"fc": 2}
    assert "left over fc (2 tensors)" in capsys.readouterr().err
    own = network.state_dict()
    assert len(report.loaded) == 100  # 20 convolutions, and 20 norms of four tensors
    for name, value in weights.items():
        if name.startswith("fc."):
            continue
        of_head = name.startswith("layer4.") and detector in RCNN_C4
        place = name.replace("layer4.", "roi_heads.box_head.") if of_head else f"backbone.body.{name}"
        assert torch.equal(own[place], value), name


def test_weights_of_another_backbone_are_refused_and_the_detector_is_unchanged(runs):
    run, _ = runs["fpn"]
    network = new_detector("retinanet_fpn", replace(R18, backbone="resnet34"), 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"lacks 80 tensors of RetinaNet.*layer1\.2\."):
        load_pretrained(network, run)
    with pytest.raises(InputError, match=r"fpn\.inner_blocks\.1\.0\.weight is \(16, 16, 1, 1\) there and \(32,"):
        load_pretrained(new_detector("fcos_fpn", replace(R18, fpn_channels=32), 4), run)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
