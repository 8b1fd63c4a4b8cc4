"""Compares our networks and loss with those of the method's public code, run side by side; prints one JSON object.

    git clone https://github.com/hologerry/SoCo && git -C SoCo checkout 2be1229
    python benchmarks/public_code.py --code SoCo

Both get the same weights, images and boxes, in float64. For SoCo, SoCo* and SoCo-C4, with the script's seed:

- `all_levels`: ours and theirs, the loss of networks that normalise with running statistics, and the boxes of ours on
  each level. In training the two differ by design: the public code pools every box from all four levels, and the
  batch norms of its head see them all.
- `training`: the loss, and the largest relative difference of a parameter's gradient, where the two are alike: all
  boxes are on P3, and those that V1 shares with V2 are those that it shares with V3.

The public code adds 1e-6 to the number of pairs that it divides by, here 4, in float32: a relative 2.4e-7. P5 of a
112-pixel view has other coordinates there, so V3 has 128 pixels. mmcv and several processes are not needed: its one
module used, ConvModule, is stood in for, and batch norm is not synchronised.
"""

import argparse
import importlib
import json
import sys
import tempfile
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import socodet.models.soco as soco_module
from machine import machine
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo, build_soco
from socodet.views.batch import ViewBatch, group_by_level
from socodet.views.sample import box_levels
from socodet.views.settings import SampleSettings
from socodet.weights.formats import public_code, run_of
from socodet.weights.load import load_starting_point

IMAGES, K = 2, 4
SIZES = {"SoCo": (224, 224, 128), "SoCo*": (224, 224, 192, 128), "SoCo-C4": (224, 224)}
CLASSES = {"SoCo": "SoCo_FPN", "SoCo*": "SoCo_FPN_Star", "SoCo-C4": "SoCo_C4"}
SETS = {"SoCo": (0, 0, 1), "SoCo*": (0, 0, 1, 0), "SoCo-C4": (0, 0)}
"""Which K of V1's boxes each view has."""
OPTIONS = {
    "contrast_num_negative": 8,
    "contrast_momentum": 0.99,
    "contrast_temperature": 0.07,
    "feature_dim": 128,
    "output_size": 7,
    "aligned": True,
    "head_type": "mlp_head",
    "in_channels": [64, 128, 256, 512],
    "out_channels": 256,
    "num_outs": 4,
    "start_level": 0,
    "end_level": -1,
    "add_extra_convs": False,
    "extra_convs_on_inputs": False,
    "relu_before_extra_convs": False,
    "num_instances": 1000,
    "batch_size": IMAGES,
    "epochs": 10,
    "start_epoch": 1,
}
"""The public code's command line."""
Boxes = NDArray[np.float64]


class ConvModule(nn.Module):
    """mmcv's, with the options that the public code's pyramid gives."""

    def __init__(self, inputs: int, outputs: int, side: int, padding: int = 0, **other: Any) -> None:
        super().__init__()
        assert other["norm_cfg"]["type"] == "BN"
        assert other["act_cfg"] is None
        self.conv = nn.Conv2d(inputs, outputs, side, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D, H, W)."""
        out: Tensor = self.bn(self.conv(x))
        return out


def their_network(kind: str, backbone: str) -> Any:
    """The public code's network with random norms, its target another network than the online one."""
    module = importlib.import_module(f"contrast.models.{CLASSES[kind]}")
    module.get_world_size = lambda: 1  # type: ignore[attr-defined]
    network = getattr(module, CLASSES[kind])(
        getattr(importlib.import_module("contrast.resnet"), backbone), argparse.Namespace(**OPTIONS)
    )
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                *((norm.weight, 0.5, 1.5), (norm.bias, -0.3, 0.3)),
                *((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 1.5)),
            ):
                nn.init.uniform_(tensor, low, high)  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if "_k." in name:
            parameter.data.mul_(1.05)
    network._momentum_update_key_encoder = lambda: None
    return network


def our_network(kind: str, backbone: str, theirs: nn.Module, folder: Path) -> SoCo:
    """Ours with the same weights, read from a checkpoint as the public code writes it."""
    settings = ModelSettings(backbone=backbone)
    if kind == "SoCo-C4":
        settings = replace(settings, architecture="c4", pooled_size=14)
    ours, target = build_soco(settings, 0), build_soco(settings, 1)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"model": state}, folder / "online.pth")
    report = load_starting_point(ours, folder / "online.pth")
    assert not report.fresh
    swapped = {name.replace("_k.", ".", 1): value for name, value in state.items() if "_k." in name}
    swapped |= {name: value for name, value in state.items() if "_k." in name or ".predictor." in name}
    torch.save({"model": swapped}, folder / "target.pth")
    load_starting_point(target, folder / "target.pth")
    ours.target.load_state_dict(target.online.state_dict())
    return ours


def draw_boxes(size: int, rng: np.random.Generator, *, one_level: bool) -> Boxes:
    """(IMAGES, K, 4) xyxy in a view; all on P3, or of any size, the first of each image large."""
    sides = rng.uniform(55, 90, (IMAGES, K, 2))
    if not one_level:
        sides = rng.uniform(0.15, 0.95, (IMAGES, K, 2)) * size
        sides[:, 0] = rng.uniform(0.9, 0.98, (IMAGES, 2)) * size
    corner = rng.uniform(size=(IMAGES, K, 2)) * (size - sides)
    return np.concatenate([corner, corner + sides], axis=2).astype(np.float32).astype(np.float64)


def matching(one: Boxes, other: Boxes) -> Tensor:
    """(IMAGES, 4 K, 4 K) which pairs of level and box show the same object, each on its own level."""
    first, second = (
        np.eye(4)[box_levels(boxes, SampleSettings())].transpose(0, 2, 1).reshape(IMAGES, 4 * K)
        for boxes in (one, other)
    )
    same = np.tile(np.eye(K), (4, 4))
    return torch.from_numpy(first[:, :, None] * second[:, None, :] * same).float()


def their_loss(kind: str, network: Any, pixels: list[Tensor], sets: list[Boxes], others: list[Boxes]) -> Tensor:
    """The public code's loss. sets: V1's boxes, K for each set; others: those of the other views."""

    def relative(boxes: Boxes, size: int) -> Tensor:
        return torch.from_numpy(np.concatenate([boxes / size, np.ones((IMAGES, K, 1))], axis=2))

    inputs = [normalize(view, torch.float64) for view in pixels]
    firsts = [sets[number] for number in SETS[kind][1:]]
    own = [relative(boxes, size) for boxes, size in zip(others, SIZES[kind][1:], strict=True)]
    pairs = [matching(one, other) for one, other in zip(firsts, others, strict=True)]
    if kind == "SoCo-C4":
        pairs = [torch.eye(K).expand(IMAGES, K, K)]
    loss: Tensor = network(*inputs, *(relative(boxes, SIZES[kind][0]) for boxes in firsts), *own, *pairs)
    return loss


def our_views(kind: str, pixels: list[Tensor], sets: list[Boxes], others: list[Boxes]) -> list[ViewBatch]:
    """The same images and boxes."""
    rule = SampleSettings(level_rule="single" if kind == "SoCo-C4" else "scale_aware")
    views = []
    for view, boxes, number in zip(pixels, [np.concatenate(sets, axis=1), *others], SETS[kind], strict=True):
        levels = torch.from_numpy(box_levels(boxes, rule))
        rois = group_by_level(torch.from_numpy(boxes).float(), levels)
        rois = replace(rois, rois=rois.rois.double())
        views.append(ViewBatch(view, rois, torch.from_numpy(boxes), levels, number * K))
    return views


def compare(kind: str, seed: int) -> dict[str, Any]:
    """The figures of one network."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    backbone = "resnet50" if kind == "SoCo-C4" else "resnet18"
    theirs = their_network(kind, backbone)
    with tempfile.TemporaryDirectory() as folder:
        ours = our_network(kind, backbone, theirs, Path(folder))
    ours.double()
    theirs.double()
    pixels = [torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8) for size in SIZES[kind]]
    found: dict[str, Any] = {}
    for what in ("all_levels", "training"):
        for network in (ours, theirs):
            network.train(what == "training")
        draw = {"one_level": what == "training"}
        sets = [draw_boxes(SIZES[kind][0], rng, **draw) for _ in range(max(SETS[kind]) + 1)]
        if what == "training":
            sets = [sets[0]] * len(sets)
        others = [draw_boxes(size, rng, **draw) for size in SIZES[kind][1:]]
        views = our_views(kind, pixels, sets, others)
        mine, public = ours(views).loss, their_loss(kind, theirs, pixels, sets, others)
        found[what] = {"ours": mine.item(), "theirs": public.item()}
        if what == "training":
            torch.autograd.backward([mine, public])
            found[what]["gradients"] = gradient_difference(ours, theirs)
        else:
            counts = torch.tensor([view.rois.counts for view in views]).sum(dim=0)
            found[what]["boxes_on_levels"] = counts.tolist()
    return found


def gradient_difference(ours: SoCo, theirs: nn.Module) -> dict[str, float]:
    """The largest relative difference over parameters whose gradient is not 0, as it is for biases before a norm."""
    names, public = run_of(list(ours.state_dict())), public_code()
    mine = {names.to_plain(name): p.grad for name, p in ours.named_parameters() if p.grad is not None}
    differences = []
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None and parameter.grad.norm() > 1e-10:
            difference = mine[public.to_plain(name)] - parameter.grad  # type: ignore[operator]
            differences.append((difference.norm() / parameter.grad.norm()).item())
    return {"parameters": len(differences), "largest_difference": max(differences)}


def main() -> None:
    """Compares the three networks and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="a checkout of github.com/hologerry/SoCo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.code))
    mmcv = types.ModuleType("mmcv.cnn")
    mmcv.ConvModule, mmcv.xavier_init = ConvModule, None  # type: ignore[attr-defined]
    sys.modules |= {"mmcv": types.ModuleType("mmcv"), "mmcv.cnn": mmcv}
    nn.SyncBatchNorm.convert_sync_batchnorm = classmethod(lambda _cls, module: module)  # type: ignore[method-assign, assignment]
    vars(soco_module)["normalize"] = lambda pixels: normalize(pixels, torch.float64)
    print(json.dumps({**{kind: compare(kind, arguments.seed) for kind in SIZES}, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
