"""SoCo against a plain reference: one box at a time, straight from Eq. 1-6 and section 3.3."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, cosine_similarity, interpolate, linear, relu
from torchvision.ops import roi_align

from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.objective import Objective, symmetric_loss
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.views.batch import ViewBatch, group_by_level

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = ModelSettings(
    architecture="fpn",
    backbone="resnet18",
    fpn_channels=8,
    head_convs=2,
    head_channels=8,
    representation_size=12,
    pooled_size=7,
    hidden_size=16,
    embedding_size=6,
)


def a_view(size: int, generator: torch.Generator, images: int = 2, boxes: int = 3) -> ViewBatch:
    """Random pixels, and boxes whose areas cover every pyramid level."""
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8)
    side = torch.rand(images, boxes, 2, generator=generator) * 0.7 * size + 0.2 * size
    corner = torch.rand(images, boxes, 2, generator=generator) * (size - side).clamp_min(1)
    xyxy = torch.cat([corner, (corner + side).clamp_max(size)], dim=-1)
    levels = torch.randint(0, 4, (images, boxes), generator=generator)
    return ViewBatch(pixels=pixels, rois=group_by_level(xyxy, levels), boxes=xyxy, levels=levels)


def plain_bn(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Batch norm with the batch's own statistics."""
    return batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)


def plain_layer(x: Tensor, state: dict[str, Tensor], layer: str, stride: int) -> Tensor:
    """Two basic residual blocks."""
    for block, step in ((0, stride), (1, 1)):
        name = f"{layer}.{block}"
        y = conv2d(x, state[f"{name}.conv1.weight"], stride=step, padding=1)
        y = conv2d(relu(plain_bn(y, state, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
        y = plain_bn(y, state, f"{name}.bn2")
        if step == 2:
            x = conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
            x = plain_bn(x, state, f"{name}.downsample.1")
        x = relu(x + y)
    return x


def plain_resnet18_stages(x: Tensor, state: dict[str, Tensor], prefix: str, last: int = 4) -> list[Tensor]:
    x = relu(plain_bn(conv2d(x, state[f"{prefix}conv1.weight"], stride=2, padding=3), state, f"{prefix}bn1"))
    x = torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    stages = []
    for layer in range(1, last + 1):
        x = plain_layer(x, state, f"{prefix}layer{layer}", stride=1 if layer == 1 else 2)
        stages.append(x)
    return stages


def plain_encoder(view: ViewBatch, state: dict[str, Tensor], architecture: str, cells: int = 7) -> Tensor:
    """Eq. 1, one box at a time; the head's batch norm is over all boxes of the view."""
    pixels, boxes, levels = view.pixels, view.boxes, view.levels
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
    inputs = (pixels.double() / 255 - mean) / std
    if architecture == "c4":
        (c4,) = plain_resnet18_stages(inputs, state, "backbone.body.", last=3)[-1:]
        block_5 = {f"layer4.{name.removeprefix('box_head.')}": value for name, value in state.items()}
        pooled = torch.stack(
            [
                roi_align(c4[image][None], [box[None]], cells, 1 / 16, sampling_ratio=-1, aligned=True)[0]
                for image in range(len(pixels))
                for box in boxes[image].double()
            ]
        )
        return plain_layer(pooled, block_5, "layer4", stride=2).mean(dim=(2, 3))
    stages = plain_resnet18_stages(inputs, state, "backbone.body.")
    if architecture == "image":
        return torch.stack([c5.mean(dim=(1, 2)) for c5 in stages[-1]])
    if architecture == "c5":
        return torch.stack(
            [
                roi_align(stages[-1][image][None], [box[None]], 7, 1 / 32, -1, True)[0].mean(dim=(1, 2))
                for image in range(len(pixels))
                for box in boxes[image].double()
            ]
        )
    laterals = [
        plain_bn(
            conv2d(c, state[f"backbone.fpn.inner_blocks.{i}.0.weight"]),
            state,
            f"backbone.fpn.inner_blocks.{i}.1",
        )
        for i, c in enumerate(stages)
    ]
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + interpolate(laterals[i + 1], size=laterals[i].shape[-2:], mode="nearest")
    pyramid = [
        plain_bn(
            conv2d(m, state[f"backbone.fpn.layer_blocks.{i}.0.weight"], padding=1),
            state,
            f"backbone.fpn.layer_blocks.{i}.1",
        )
        for i, m in enumerate(laterals)
    ]
    pooled = []
    for image in range(len(pixels)):
        for box, level in zip(boxes[image].double(), levels[image].tolist(), strict=True):
            feature = pyramid[level][image : image + 1]
            pooled.append(roi_align(feature, [box[None]], 7, 1 / 4 / 2**level, sampling_ratio=-1, aligned=True)[0])
    x = torch.stack(pooled)
    if architecture == "fpn_no_head":
        return x.mean(dim=(2, 3))
    for i in range(SMALL.head_convs):
        x = relu(plain_bn(conv2d(x, state[f"box_head.{i}.0.weight"], padding=1), state, f"box_head.{i}.1"))
    fc = SMALL.head_convs + 1
    return relu(linear(x.flatten(1), state[f"box_head.{fc}.weight"], state[f"box_head.{fc}.bias"]))


def plain_mlp(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    x = relu(plain_bn(linear(x, state["0.weight"], state["0.bias"]), state, "1"))
    return linear(x, state["3.weight"], state["3.bias"])


def part(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def plain_loss(views: list[ViewBatch], parameters: dict[str, Tensor], architecture: str, cells: int = 7) -> Tensor:
    """Eq. 4-6 with Python loops over views, images and boxes; V1 is the first view."""

    def online(view: ViewBatch) -> Tensor:
        h = plain_encoder(view, part(parameters, "online.encoder."), architecture, cells)
        return plain_mlp(plain_mlp(h, part(parameters, "online.projector.")), part(parameters, "predictor."))

    def target(view: ViewBatch) -> Tensor:
        h = plain_encoder(view, part(parameters, "target.encoder."), architecture, cells)
        return plain_mlp(h, part(parameters, "target.projector.")).detach()

    v, z = [online(view) for view in views], [target(view) for view in views]
    images, boxes = views[0].levels.shape
    total = torch.zeros((), dtype=torch.float64)
    for image in range(images):
        for k in range(boxes):
            i = image * boxes + k
            for other in range(1, len(views)):
                total = total - 2 * cosine_similarity(v[0][i], z[other][i], dim=0) / boxes
                total = total - 2 * cosine_similarity(v[other][i], z[0][i], dim=0) / boxes
    return total / images


@pytest.fixture
def float64(monkeypatch):
    """Normalises pixels in float64, so that every gradient can be compared to a relative 1e-6."""
    import socodet.models.soco as module

    normalize = module.normalize
    monkeypatch.setattr(module, "normalize", lambda pixels: normalize(pixels, torch.float64))


CASES = [
    pytest.param("fpn", (96, 96, 64), 3, 7, id="FPN, three views"),
    pytest.param("fpn", (64, 64, 48, 56), 3, 7, id="SoCo*, four views"),
    pytest.param("c4", (64, 64), 3, 7, id="C4, two views, 7x7"),
    pytest.param("c4", (64, 64), 3, 14, id="C4, two views, 14x14"),
    pytest.param("image", (64, 64), 1, 7, id="whole image"),
    pytest.param("c5", (96, 96), 3, 7, id="Table 4: no FPN, no head"),
    pytest.param("fpn_no_head", (64, 64), 3, 7, id="Table 4: FPN, no head"),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("architecture", "sizes", "boxes", "cells"), CASES)
def test_loss_and_every_gradient_match_the_reference(architecture, sizes, boxes, cells):
    settings = replace(SMALL, architecture=architecture, pooled_size=cells)
    torch.manual_seed(0)
    soco = SoCo(build_encoder(settings), settings).double()
    for parameter in soco.target.parameters():  # the target has drifted from the online network
        parameter.add_(0.05 * torch.randn_like(parameter))
    generator = torch.Generator().manual_seed(3)
    views = [a_view(size, generator, images=4 // boxes + 1, boxes=boxes) for size in sizes]
    views = [replace(v, rois=replace(v.rois, rois=v.rois.rois.double())) for v in views]
    loss = soco(views).loss
    loss.backward()
    reference = {name: p.detach().clone().requires_grad_() for name, p in soco.named_parameters()}
    expected = plain_loss(views, reference, architecture, cells)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    compared = 0
    for name, parameter in soco.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None
            continue
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        wanted = reference[name].grad if reference[name].grad is not None else torch.zeros_like(parameter)
        scale = max(float(wanted.abs().max()), 1e-8)
        assert float((gradient - wanted).abs().max()) <= 1e-6 * scale + 1e-10, name
        compared += 1
    assert compared >= 70


@pytest.mark.parametrize(("views", "bound"), [(3, -8.0), (4, -12.0), (2, -4.0)])
def test_loss_at_perfect_agreement_and_opposition(views, bound):
    unit = torch.nn.functional.normalize(torch.randn(10, 7), dim=1)
    assert float(symmetric_loss([unit] * views, [unit] * views)) == pytest.approx(bound, abs=1e-5)
    assert float(symmetric_loss([unit] * views, [-unit] * views)) == pytest.approx(-bound, abs=1e-5)


def test_random_embeddings_have_zero_loss_in_expectation():
    torch.manual_seed(0)
    draws = [[torch.nn.functional.normalize(torch.randn(500, 64), dim=1) for _ in range(3)] for _ in range(2)]
    assert abs(float(symmetric_loss(*draws))) < 5 * 2 * math.sqrt(4 / (500 * 64))


def test_target_is_an_exponential_moving_average():
    torch.manual_seed(0)
    soco = SoCo(build_encoder(SMALL), SMALL)
    for parameter in soco.online.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    before = [p.clone() for p in soco.target.parameters()]
    buffers = [b.clone() for b in soco.target.buffers()]
    soco.update_target(0.9)
    for old, new, online in zip(before, soco.target.parameters(), soco.online.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * online, rtol=1e-5, atol=1e-6)
    for old, new in zip(buffers, soco.target.buffers(), strict=True):
        assert torch.equal(old, new)


def test_target_starts_as_a_separate_copy():
    soco = SoCo(build_encoder(SMALL), SMALL)
    for online, target in zip(soco.online.parameters(), soco.target.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()
        assert online.requires_grad
        assert not target.requires_grad


@pytest.mark.parametrize("wrong", [lambda z: (z.projections[0].mean(), 1.0), lambda z: z.projections[0].mean(dim=1)])
def test_objective_that_does_not_return_a_scalar_is_named(wrong):
    class Mine(Objective):
        def __call__(self, embeddings):
            return wrong(embeddings)

        def lowest(self, views):
            return 0.0

    generator = torch.Generator().manual_seed(0)
    soco = SoCo(build_encoder(SMALL), SMALL, Mine())
    with pytest.raises(InputError, match="objective Mine: must return a scalar"):
        soco([a_view(64, generator), a_view(64, generator)])


def test_objective_without_a_gradient_is_named():
    class Mine(Objective):
        def __call__(self, embeddings):
            return embeddings.targets[0].mean()

        def lowest(self, views):
            return 0.0

    generator = torch.Generator().manual_seed(0)
    soco, views = SoCo(build_encoder(SMALL), SMALL, Mine()), [a_view(64, generator), a_view(64, generator)]
    with pytest.raises(InputError, match=r"objective Mine: .*no gradient"):
        soco(views)
    with torch.no_grad():  # as when only computing the loss
        assert soco(views).loss.ndim == 0
    assert soco.requires_grad_(False)(views).loss.ndim == 0


def test_rpn_without_proposals_names_the_missing_argument():
    generator = torch.Generator().manual_seed(0)
    settings = replace(SMALL, rpn_weight=1.0)
    soco = SoCo(build_encoder(settings), settings)
    with pytest.raises(InputError, match="shown="):
        soco([a_view(64, generator), a_view(64, generator)])
