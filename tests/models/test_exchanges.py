"""How often a step's synchronised norms exchange statistics, counted in a single process."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import socodet.models.soco as soco_module
from socodet.models.architectures import build_encoder
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.training.distributed import synchronize_batch_norm
from socodet.views.batch import ViewBatch, group_by_level

pytestmark = pytest.mark.usefixtures("narrow_networks")
VIEWS = ((64, (0, 1, 2, 3)), (64, (3, 3, 2, 3)), (32, (1, 1, 1, 1)))
"""A view's side and the levels of its boxes: all levels, the coarse ones, a single one."""


def a_view(size: int, levels: tuple[int, ...]) -> ViewBatch:
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0.0, size / 2, size], [3.0, 5.0, size, size], [1, 1, 20, 25], [4, 0, 16, 16]])
    boxes, on = boxes.double().repeat(3, 1, 1), torch.tensor([levels] * 3)
    return ViewBatch(pixels, group_by_level(boxes, on), boxes, on)


def outcome(soco: SoCo, views: list[ViewBatch]) -> dict[str, torch.Tensor]:
    loss = soco(views).loss
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in soco.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(soco.named_buffers())}


@pytest.mark.parametrize(
    ("architecture", "depth", "exchanges"),
    [
        # One per norm and pass; the passes are forward in both networks and backward in the online one. ResNet-50 has
        # 53 norms, the head 4, the projector 1, the online network's predictor 1. The pyramid's 4 lateral norms share
        # an exchange, as do its 4 output norms.
        ("fpn", 50, 2 * (53 + 2 + 4 + 1 + 1) + (53 + 2 + 4 + 1)),
        ("c4", 50, 2 * (53 + 1 + 1) + (53 + 1)),
        ("c5", 18, 2 * (20 + 1 + 1) + (20 + 1)),
    ],
)
def test_views_and_levels_share_exchanges_without_changing_results(architecture, depth, exchanges, monkeypatch):
    monkeypatch.setattr(soco_module, "normalize", lambda pixels: normalize(pixels, torch.float64))
    settings = ModelSettings(architecture, f"resnet{depth}", 8, 4, 8, 16, 7, 16, 8)
    torch.manual_seed(0)
    soco = SoCo(build_encoder(settings, FusedBatchNorm2d), settings).double()
    for block in soco.modules():  # otherwise 50 layers of 8 channels amplify rounding by 10⁷
        if isinstance(block, BasicBlock | Bottleneck):
            nn.init.constant_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight, 0.2)
    views = [a_view(size, levels) for size, levels in VIEWS]
    alone = outcome(copy.deepcopy(soco), views)
    calls = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, group=None: calls.append(len(tensor)))
    synchronize_batch_norm(soco)
    together = outcome(soco, views)
    assert len(calls) == exchanges <= 200
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-9, atol=1e-9, msg=name)
