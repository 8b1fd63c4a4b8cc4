"""Initial weights for pretraining: every tensor is loaded under its name into both networks, or reported."""

from dataclasses import replace

import pytest
import timm
import torch
from narrow_models import narrow_resnet18
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from torchvision.models import resnet34
from torchvision.ops import roi_align

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.views.batch import group_by_level
from socodet.weights.load import load_starting_point

pytestmark = pytest.mark.usefixtures("narrow_networks")
R18 = ModelSettings(
    backbone="resnet18",
    fpn_channels=8,
    head_channels=8,
    representation_size=12,
    hidden_size=16,
    embedding_size=6,
)
C4 = replace(R18, architecture="c4")


def a_soco(settings: ModelSettings, seed: int = 0) -> SoCo:
    torch.manual_seed(seed)
    return SoCo(build_encoder(settings), settings)


def shaken(network: nn.Module) -> nn.Module:
    """Gives every tensor distinct values; no batch norm keeps its ones and zeros."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) + 0.1 if tensor.is_floating_point() else torch.tensor(5))
    return network


def copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@pytest.fixture
def start(tmp_path):
    """`start(soco, weights)` saves the weights and starts `soco` from the file."""

    def load(soco, weights, name="file.pth"):
        torch.save(weights, tmp_path / name)
        return load_starting_point(soco, tmp_path / name)

    return load


def assert_target_is_the_online_networks_copy(soco: SoCo) -> None:
    for name, value in soco.online.state_dict().items():
        target = soco.target.state_dict()[name]
        assert torch.equal(target, value), name
        assert target.data_ptr() != value.data_ptr()
    assert not any(p.requires_grad for p in soco.target.parameters())


def test_torchvisions_classifier_fills_both_networks_without_its_last_layer(start):
    weights, soco = shaken(narrow_resnet18()).state_dict(), a_soco(R18)
    before = copies(soco.state_dict())
    report = start(soco, weights, "resnet18.pth")
    for network in (soco.online, soco.target):
        body = network.encoder.backbone["body"].state_dict()
        assert body.keys() == weights.keys() - {"fc.weight", "fc.bias"}
        assert all(torch.equal(value, weights[name]) for name, value in body.items())
    for name, value in soco.state_dict().items():
        if ".backbone.body." not in name:
            assert torch.equal(value, before[name]), name
    assert report.left_over_modules == {"fc": 2}
    assert len(report.loaded) == 120
    fresh = [
        "online.encoder.backbone.fpn.inner_blocks.0.0.weight",
        "online.encoder.box_head.5.bias",
        "predictor.3.weight",
    ]
    assert set(fresh) < set(report.fresh)
    assert str(report).splitlines()[0].endswith("resnet18.pth (a backbone):")
    assert "loaded  backbone.body (120 tensors)" in str(report)
    assert "left over fc (2 tensors)" in str(report)
    assert_target_is_the_online_networks_copy(soco)


def test_c4_takes_the_fifth_stage_as_its_head(start):
    weights, soco = shaken(narrow_resnet18()).state_dict(), a_soco(C4)
    report = start(soco, weights)
    for name, value in soco.target.encoder.box_head.state_dict().items():
        assert torch.equal(value, weights[f"layer4.{name}"]), name
    assert len(report.loaded) == 120
    assert report.left_over_modules == {"fc": 2}


def test_files_without_batch_counters_are_complete(start):
    weights = shaken(narrow_resnet18()).state_dict()
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    report = start(a_soco(R18), old)
    assert len(report.loaded) == 100
    assert not any("body" in name for name in report.fresh)


@pytest.mark.parametrize(
    ("network", "behind"),
    [("convnext_atto", {"head": 4}), ("mobilenetv3_small_050", {"conv_head": 2, "classifier": 2})],
)
def test_timms_classifier_gives_timms_features(start, network, behind):
    classifier, soco = timm.create_model(network).eval(), a_soco(replace(R18, backbone=f"timm/{network}"))
    report = start(soco, classifier.state_dict())
    assert report.left_over_modules == behind
    assert not any("body" in name for name in report.fresh)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = classifier.forward_intermediates(pixels, intermediates_only=True, norm=False)
        for network in (soco.online, soco.target):
            for ours, theirs in zip(network.encoder.eval().stages(pixels), wanted[-4:], strict=True):
                torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("settings", [R18, C4], ids=["FPN", "C4"])
def test_another_runs_online_network_and_predictor_are_loaded(settings, start):
    other, soco = shaken(a_soco(settings, 1)), a_soco(settings)
    report = start(soco, copies(other.state_dict()))
    for name, value in other.state_dict().items():
        if not name.startswith("target."):
            assert torch.equal(soco.state_dict()[name], value), name
    assert report.fresh == ()
    assert report.left_over_modules.keys() == {"target"}
    assert_target_is_the_online_networks_copy(soco)


def test_a_c4_runs_fifth_stage_fills_the_backbone_of_another_architecture(start):
    other, soco = shaken(a_soco(C4, 1)), a_soco(replace(R18, architecture="c5"))
    report = start(soco, other.state_dict())
    head = other.online.encoder.box_head.state_dict()
    assert all(torch.equal(soco.online.encoder.backbone["body"].layer4.state_dict()[n], v) for n, v in head.items())
    assert not any("encoder." in name for name in report.fresh)


def test_a_detectors_backbone_pyramid_and_box_head_are_loaded(start):
    detector, soco = shaken(new_detector("mask_rcnn_fpn", R18, 3)), a_soco(R18)
    report = start(soco, detector.state_dict())
    for name, value in soco.target.encoder.state_dict().items():
        theirs = f"roi_heads.{name}" if name.startswith("box_head.") else name
        assert torch.equal(value, detector.state_dict()[theirs]), name
    assert report.fresh_modules.keys() == {"projector", "predictor"}
    assert {module.split(".")[0] for module in report.left_over_modules} == {"rpn", "roi_heads"}


class ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class TheirPerceptron(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear1, self.bn1 = nn.Linear(inputs, R18.hidden_size), nn.BatchNorm1d(R18.hidden_size)
        self.linear2 = nn.Linear(R18.hidden_size, R18.embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(relu(self.bn1(self.linear1(x))))


class TheirHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for i in (1, 2, 3, 4):
            setattr(self, f"conv{i}", nn.Conv2d(8, 8, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(8))
        self.fc1 = nn.Linear(8 * 7 * 7, R18.representation_size)

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3, 4):
            x = relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        return relu(self.fc1(x.flatten(1)))


class TheirFPN(nn.Module):
    """The public code's FPN model, with the names in its checkpoints and an independent forward pass."""

    def __init__(self) -> None:
        super().__init__()
        for suffix in ("", "_k"):
            encoder, neck = narrow_resnet18(), nn.Module()
            del encoder.fc
            neck.lateral_convs = nn.ModuleList(ConvNorm(c, 8, 1) for c in (8, 16, 32, 64))
            neck.fpn_convs = nn.ModuleList(ConvNorm(8, 8, 3) for _ in range(4))
            for name, module in (("encoder", encoder), ("neck", neck), ("head", TheirHead())):
                setattr(self, name + suffix, module)
            setattr(self, "projector" + suffix, TheirPerceptron(R18.representation_size))
        self.predictor = TheirPerceptron(R18.embedding_size)

    def predict(self, pixels: Tensor, box: Tensor, level: int) -> Tensor:
        e = self.encoder
        x, stages = e.maxpool(relu(e.bn1(e.conv1(pixels)))), []
        for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
            x = layer(x)
            stages.append(x)
        merged = self.neck.lateral_convs[3](stages[3])
        for i in range(2, level - 1, -1):
            lateral = self.neck.lateral_convs[i](stages[i])
            merged = lateral + interpolate(merged, size=lateral.shape[-2:], mode="nearest")
        pooled = roi_align(self.neck.fpn_convs[level](merged), [box[None]], 7, 1 / 4 / 2**level, -1, True)
        return self.predictor(self.projector(self.head(pooled)))


def test_the_public_codes_fpn_checkpoint_computes_the_same_here(start):
    torch.manual_seed(1)
    theirs, soco = TheirFPN(), a_soco(R18)
    with torch.no_grad():
        for name, buffer in theirs.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    checkpoint = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    report = start(soco, checkpoint)
    assert report.format == "the public code"
    assert report.fresh == ()
    assert report.left_over_modules.keys() == {"encoder_k", "neck_k", "head_k", "projector_k"}
    assert_target_is_the_online_networks_copy(soco)
    theirs.eval()
    soco.eval()
    pixels, box = torch.randn(1, 3, 96, 96), torch.tensor([10.0, 20.0, 70.0, 90.0])
    with torch.no_grad():
        for level in range(4):
            rois = group_by_level(box[None, None], torch.tensor([[level]]))
            ours = soco.predictor(soco.online([pixels], [rois])[1][0])
            torch.testing.assert_close(ours, theirs.predict(pixels, box, level))


def test_the_public_codes_c4_checkpoint_is_loaded(start):
    torch.manual_seed(1)
    encoder = shaken(narrow_resnet18())
    del encoder.fc
    parts = {"projector": shaken(TheirPerceptron(64)), "predictor": shaken(TheirPerceptron(6))}
    checkpoint = {f"module.{kind}.{n}": v for kind in ("encoder", "encoder_k") for n, v in encoder.state_dict().items()}
    checkpoint |= {f"module.{part}.{n}": v for part, module in parts.items() for n, v in module.state_dict().items()}
    checkpoint |= {"module.queue": torch.zeros(6, 10), "module.queue_ptr": torch.zeros(1)}
    soco = a_soco(C4)
    report = start(soco, checkpoint)
    assert report.fresh == ()
    assert report.left_over_modules == {"encoder_k": 120, "queue": 1, "queue_ptr": 1}
    fifth = soco.online.encoder.box_head.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[f"layer4.{name}"]) for name, value in fifth.items())
    assert torch.equal(soco.online.projector[3].weight, parts["projector"].linear2.weight)
    assert torch.equal(soco.predictor[0].weight, parts["predictor"].linear1.weight)


@pytest.mark.parametrize("of_instances", [False, True])
def test_pixpros_backbone_is_loaded_without_its_convolutional_mlps(start, of_instances):
    """It has the same names as SoCo's public code, which is based on PixPro's."""
    encoder, soco = shaken(narrow_resnet18()), a_soco(C4)
    del encoder.fc
    parts = {"encoder": encoder, "encoder_k": shaken(narrow_resnet18())}
    del parts["encoder_k"].fc
    names = ["projector", "projector_k"]
    names += ["projector_instance", "projector_instance_k", "predictor"] if of_instances else []
    for name in names:
        mlp = parts[name] = nn.Module()
        mlp.linear1, mlp.bn1, mlp.linear2 = nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16), nn.Conv2d(16, 6, 1)
    parts["value_transform"] = nn.Conv2d(6, 6, 1)
    model = {f"module.{part}.{n}": value for part, one in parts.items() for n, value in one.state_dict().items()}
    report = start(soco, {"model": model})
    assert len(report.loaded) == 120
    assert report.left_over_modules == {"encoder_k": 120, "value_transform": 2, **dict.fromkeys(names, 9)}
    fifth = soco.online.encoder.box_head.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[f"layer4.{name}"]) for name, value in fifth.items())


def test_the_public_codes_fpn_checkpoint_fills_the_backbone_of_a_c4_network(start):
    theirs, soco = shaken(TheirFPN()), a_soco(C4)
    before = copies(soco.state_dict())
    report = start(soco, {f"module.{name}": value for name, value in theirs.state_dict().items()})
    for name, value in theirs.encoder.state_dict().items():
        ours = f"box_head.{name[7:]}" if name.startswith("layer4.") else f"backbone.body.{name}"
        assert torch.equal(soco.target.encoder.state_dict()[ours], value), name
    for module in ("projector", "predictor"):
        assert all(name in report.fresh for name in before if name.startswith((module, f"online.{module}")))
    assert all(torch.equal(soco.state_dict()[name], before[name]) for name in report.fresh)
    left = report.left_over_modules
    assert (left["projector"], left["predictor"], left["box head"], left["P2's lateral convolution"]) == (9, 9, 26, 6)
    assert "left over P2's lateral convolution (6 tensors)" in str(report)


SHAPES = r"layer1\.0\.conv1\.weight is \(8, 8, 3, 3\) there and \(8, 8, 1, 1\)"
REFUSED = {
    "shape": (replace(R18, backbone="resnet50"), lambda: narrow_resnet18().state_dict(), SHAPES + ".*--backbone"),
    "deeper file": (R18, lambda: resnet34().state_dict(), r"layer1\.2\.conv1\.weight has no place.*--backbone"),
    "deeper network": (
        replace(R18, backbone="resnet34"),
        lambda: narrow_resnet18().state_dict(),
        r"lacks 80 tensors .* first .*layer1\.2\..*--backbone",
    ),
    "nothing fits": (R18, lambda: {"stem.weight": torch.zeros(3)}, "none of its 1 tensors.*give the state dict"),
    "empty": (R18, dict, "none of its 0 tensors.*give the state dict"),
    "other projector": (
        R18,
        lambda: a_soco(replace(R18, hidden_size=20)).state_dict(),
        r"online\.projector\.0\.weight is \(20, 12\).*--hidden-size.*socodet export",
    ),
    "FPN without batch norm": (
        R18,
        lambda: {
            **new_detector("mask_rcnn_fpn", R18, 2).state_dict(),
            "backbone.fpn.inner_blocks.0.0.bias": torch.zeros(8),
        },
        r"inner_blocks\.0\.0\.bias has no place.*batch norm and no bias",
    ),
    "a longer box head": (
        R18,
        lambda: new_detector("mask_rcnn_fpn", replace(R18, head_convs=5), 2).state_dict(),
        r"box_head\.4\.0\.weight has no place.*--head-convs",
    ),
    "a box head that pools otherwise": (
        R18,
        lambda: new_detector("mask_rcnn_fpn", replace(R18, pooled_size=5), 2).state_dict(),
        r"box_head\.5\.weight is \(12, 200\) there.*--pooled-size",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit_are_refused_and_the_networks_are_unchanged(case, start):
    settings, weights, problem = REFUSED[case]
    soco = a_soco(settings)
    before = copies(soco.state_dict())
    with pytest.raises(InputError, match=r"file\.pth: .*" + problem) as caught:
        start(soco, weights())
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in soco.state_dict().items())
