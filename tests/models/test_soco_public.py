"""SoCo with objects="each_window", against the public code's masked similarity over all pairs of boxes.

In its SoCo_FPN.py, boxes carry the number of their proposal; V1 has one set of boxes for V2 and another for V3; a pair
of sets contributes -2 times the mean cosine over an image's matching pairs, in both directions.
"""

from dataclasses import replace

import pytest
import torch
from test_soco import SMALL, a_view, float64, part, plain_encoder, plain_mlp
from torch import Tensor
from torch.nn.functional import normalize as unit

from socodet.models.architectures import build_encoder
from socodet.models.objective import symmetric_loss
from socodet.models.soco import SoCo
from socodet.views.batch import ViewBatch

__all__ = ["float64"]
_IMAGES, _K = 2, 3


def masked(online: Tensor, target: Tensor, names_online: Tensor, names_target: Tensor) -> Tensor:
    """For each image, every box of one view with every box of the other, kept if both show the same proposal."""
    total = torch.zeros((), dtype=torch.float64)
    for image in range(_IMAGES):
        cosine = unit(online[image], dim=1) @ unit(target[image], dim=1).T
        mask = names_online[image][:, None] == names_target[image][None, :]
        total = total - 2 * (cosine * mask).sum() / mask.sum()
    return total / _IMAGES


def public_loss(views: list[ViewBatch], parameters: dict[str, Tensor], sets: list[int]) -> Tensor:
    """sets[v]: the set of V1's boxes that belongs to view v."""

    def embed(view: ViewBatch, network: str, *mlps: str) -> Tensor:
        z = plain_encoder(view, part(parameters, f"{network}.encoder."), "fpn")
        for mlp in mlps:
            z = plain_mlp(z, part(parameters, mlp))
        return z.reshape(_IMAGES, -1, z.shape[-1])

    online = [embed(view, "online", "online.projector.", "predictor.") for view in views]
    target = [embed(view, "target", "target.projector.").detach() for view in views]
    total = torch.zeros((), dtype=torch.float64)
    for v in range(1, len(views)):
        # A proposal's name combines image, set and number.
        names = torch.tensor([[100 * b + 10 * sets[v] + k for k in range(_K)] for b in range(_IMAGES)])
        first = slice(sets[v] * _K, (sets[v] + 1) * _K)
        total = total + masked(online[0][:, first], target[v], names, names)
        total = total + masked(online[v], target[0][:, first], names, names)
    return total


CASES = [
    pytest.param((96, 96, 64), [0, 0, 1], id="fpn_public"),
    pytest.param((64, 64, 48, 56), [0, 0, 0, 1], id="fpn_star_public"),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("sizes", "sets"), CASES)
def test_loss_and_every_gradient_match_the_public_code(sizes: tuple[int, ...], sets: list[int]) -> None:
    torch.manual_seed(0)
    soco = SoCo(build_encoder(SMALL), SMALL).double()
    for parameter in soco.target.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    generator = torch.Generator().manual_seed(3)
    counts = [(max(sets) + 1) * _K, *[_K] * (len(sizes) - 1)]
    views = [
        replace(a_view(size, generator, _IMAGES, count), partner=number * _K)
        for size, count, number in zip(sizes, counts, sets, strict=True)
    ]
    views = [replace(v, rois=replace(v.rois, rois=v.rois.rois.double())) for v in views]
    output = soco(views)
    output.loss.backward()
    assert output.embeddings.shape == (_IMAGES * counts[0], SMALL.embedding_size)
    reference = {name: p.detach().clone().requires_grad_() for name, p in soco.named_parameters()}
    expected = public_loss(views, reference, sets)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(output.loss, expected, rtol=1e-9, atol=1e-9)
    for name, parameter in soco.named_parameters():
        if name.startswith("target."):
            continue
        gradient, wanted = (p.grad if p.grad is not None else torch.zeros_like(p) for p in (parameter, reference[name]))
        scale = max(float(wanted.abs().max()), 1e-8)
        assert float((gradient - wanted).abs().max()) <= 1e-6 * scale + 1e-10, name


def test_each_set_is_compared_with_its_own_view() -> None:
    """V2 shows V1's first three objects, V3 its last three: only the right partners agree perfectly."""
    torch.manual_seed(0)
    first = unit(torch.randn(5, 6, 8), dim=-1)
    views = [first, first[:, :3], first[:, 3:]]
    assert float(symmetric_loss(views, views, [0, 0, 3])) == pytest.approx(-8, abs=1e-5)
    assert float(symmetric_loss(views, views, [0, 3, 0])) > -4
