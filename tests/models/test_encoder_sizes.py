"""Parameters of the paper's two encoders layer by layer, and FLOPs of a step, worked out from kernel sizes."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

from socodet.models import pyramid
from socodet.models.architectures import build_encoder
from socodet.models.roi_align import roi_align
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.views.batch import ViewBatch, group_by_level

META = torch.device("meta")
"""Networks without memory, which compute shapes alone."""
NORM = 2
"""Scale and shift of a channel."""


def bottleneck(inputs: int, width: int, with_shortcut: bool) -> int:
    """1x1, 3x3 and 1x1 convolutions with batch norm, and a 1x1 shortcut with batch norm if the shape changes."""
    block = 1 * 1 * inputs * width + 3 * 3 * width * width + 1 * 1 * width * 4 * width
    block += NORM * (width + width + 4 * width)
    return block + (1 * 1 * inputs * 4 * width + NORM * 4 * width if with_shortcut else 0)


def stage(inputs: int, width: int, blocks: int) -> int:
    return bottleneck(inputs, width, True) + (blocks - 1) * bottleneck(4 * width, width, False)


RESNET50 = {
    "conv1": 7 * 7 * 3 * 64,
    "bn1": NORM * 64,
    "layer1": stage(64, 64, 3),
    "layer2": stage(256, 128, 4),
    "layer3": stage(512, 256, 6),
    "layer4": stage(1024, 512, 3),
}
FPN_AND_HEAD = {
    **{f"backbone.fpn.inner_blocks.{i}": 1 * 1 * c * 256 + NORM * 256 for i, c in enumerate((256, 512, 1024, 2048))},
    **{f"backbone.fpn.layer_blocks.{i}": 3 * 3 * 256 * 256 + NORM * 256 for i in range(4)},
    **{f"box_head.{i}": 3 * 3 * 256 * 256 + NORM * 256 for i in range(4)},
    "box_head.5": 7 * 7 * 256 * 1024 + 1024,
}
R50_FPN = {f"backbone.body.{layer}": count for layer, count in RESNET50.items()} | FPN_AND_HEAD
R50_C4 = {("box_head" if n == "layer4" else f"backbone.body.{n}"): count for n, count in RESNET50.items()}


@pytest.mark.parametrize(("architecture", "table"), [("fpn", R50_FPN), ("c4", R50_C4)])
def test_parameters_match_layer_by_layer(architecture, table):
    with META:
        encoder = build_encoder(ModelSettings(architecture=architecture))
    found: Counter[str] = Counter()
    for name, parameter in encoder.named_parameters():
        (layer,) = [layer for layer in table if name.startswith(f"{layer}.")]
        found[layer] += parameter.numel()
    assert found == table


def test_totals_are_the_published_ones():
    classifier = 2048 * 1000 + 1000
    resnet50 = ResNet50_Weights.IMAGENET1K_V1.meta["num_params"] - classifier
    assert sum(RESNET50.values()) == sum(R50_C4.values()) == resnet50 == 23_508_032
    # torchvision's Faster R-CNN v2 has our modules, an RPN of two 3x3 convolutions and three anchors, a predictor
    rpn = 2 * (3 * 3 * 256 * 256 + 256) + (256 * 3 + 3) + (256 * 12 + 12)
    predictor = (1024 * 91 + 91) + (1024 * 4 * 91 + 4 * 91)
    detector = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["num_params"]
    assert sum(R50_FPN.values()) == detector - rpn - predictor == 42_061_888


@pytest.mark.parametrize(
    ("architecture", "strides"),
    [
        ("fpn", {"P3": 8, "P4": 16, "P5": 32}),
        ("c5", {"C3": 8, "C4": 16, "C5": 32}),
        ("c4", {"C4": 16}),
    ],
)
def test_feature_maps_are_named_by_their_strides_from_8_on(architecture, strides):
    with META:
        maps = build_encoder(ModelSettings(architecture=architecture)).feature_maps(torch.zeros(1, 3, 64, 96))
    found = {name: tuple(one.shape[2:]) for name, one in maps.items()}
    assert found == {name: (64 // stride, 96 // stride) for name, stride in strides.items()}


IMAGES, BOXES = 2, 3
VIEWS = ((64, (1, 2, 3)), (64, (2, 3, 3)), (32, (0, 1, 3)))
"""Side of a view, and the levels of its three boxes; V1 and V2 have none on P2, V2 none on P3."""


def conv(kernel: int, inputs: int, outputs: int, side: int) -> int:
    """FLOPs of a convolution with a square output, counting multiplications and additions."""
    return 2 * kernel**2 * inputs * outputs * side**2


def body_flops(size: int) -> int:
    """ResNet-50 on one image."""
    side = size // 4
    total, inputs = conv(7, 3, 64, size // 2), 64
    for level, blocks in enumerate((3, 4, 6, 3)):
        width, before, side = 64 * 2**level, side, side // (2 if level else 1)
        for block in range(blocks):
            total += conv(1, inputs, width, before if block == 0 else side)
            total += conv(3, width, width, side) + conv(1, width, 4 * width, side)
            total += conv(1, inputs, 4 * width, side) if block == 0 else 0
            inputs = 4 * width
    return total


def fpn_flops(size: int, levels: set[int]) -> int:
    """Output convolutions of the levels with boxes, and laterals down to the finest of these."""
    sides = [size // stride for stride in (4, 8, 16, 32)]
    laterals = sum(conv(1, 256 * 2**level, 256, sides[level]) for level in range(min(levels), 4))
    return laterals + sum(conv(3, 256, 256, sides[level]) for level in levels)


HEAD_FLOPS_PER_BOX = 4 * conv(3, 256, 256, 7) + 2 * 7 * 7 * 256 * 1024
PROJECTOR_FLOPS_PER_BOX = 2 * (1024 * 4096 + 4096 * 256)
PREDICTOR_FLOPS_PER_BOX = 2 * (256 * 4096 + 4096 * 256)


def a_view(size: int, levels: tuple[int, ...]) -> ViewBatch:
    boxes = torch.tensor([[0.0, 0.0, size / 2, size], [3.0, 5.0, size, size], [1.0, 1.0, 20.0, 25.0]]).repeat(2, 1, 1)
    on = torch.tensor([levels] * IMAGES)
    pixels = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
    return ViewBatch(pixels=pixels, rois=group_by_level(boxes, on), boxes=boxes, levels=on)


def test_each_box_passes_roialign_and_head_once_per_network_and_view(monkeypatch):
    settings = ModelSettings()
    with META:
        soco = SoCo(build_encoder(settings), settings)
    pooled = []

    def counted(features, rois, *args, **keywords):
        pooled.append(len(rois))
        return roi_align(features, rois, *args, **keywords)

    monkeypatch.setattr(pyramid, "roi_align", counted)
    counter = FlopCounterMode(display=False, depth=4)
    with counter:
        soco([a_view(size, levels).to(META) for size, levels in VIEWS]).loss.backward()
    counts = counter.get_flop_counts()
    boxes, passes = len(VIEWS) * IMAGES * BOXES, 3  # backward costs two forward passes, for inputs and weights

    def flops_of(module: str) -> int:
        return sum(counts[module].values())

    head = soco.online.encoder.box_head
    layers = [name for name, module in head.named_children() if not isinstance(module, nn.ReLU | nn.Flatten)]

    def head_flops(network: str) -> int:  # its layers are called one by one
        return sum(flops_of(f"SoCo.{network}.encoder.box_head.{layer}") for layer in layers)

    assert sum(pooled) == 2 * boxes  # RoIs pooled in both networks, all views and levels
    assert head_flops("target") == boxes * HEAD_FLOPS_PER_BOX
    assert head_flops("online") == passes * boxes * HEAD_FLOPS_PER_BOX
    forward_flops = sum(IMAGES * (body_flops(size) + fpn_flops(size, set(levels))) for size, levels in VIEWS)
    forward_flops += boxes * (HEAD_FLOPS_PER_BOX + PROJECTOR_FLOPS_PER_BOX)
    no_gradient_for_pixels = sum(IMAGES * conv(7, 3, 64, size // 2) for size, _ in VIEWS)
    expected = (1 + passes) * forward_flops + passes * boxes * PREDICTOR_FLOPS_PER_BOX - no_gradient_for_pixels
    assert flops_of("Global") == expected


def test_linear_layers_run_once_for_all_views():
    settings = ModelSettings(backbone="resnet18", fpn_channels=8, head_channels=8, head_convs=1)
    soco = SoCo(build_encoder(settings), settings)
    rows = Counter()
    for name, module in soco.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, __, name=name: rows.update({name: len(inputs[0])}))
    calls = Counter()
    for name, module in soco.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    soco([a_view(size, levels) for size, levels in VIEWS])
    assert len(calls) == 8  # two of the head and two of the projector in both networks, two of the predictor
    assert set(calls.values()) == {1}
    assert set(rows.values()) == {len(VIEWS) * IMAGES * BOXES}
