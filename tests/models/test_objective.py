"""Objectives against plain loops and numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_soco import SMALL, a_view

from socodet.models.architectures import build_encoder
from socodet.models.objective import (
    CosineAgreement,
    Embeddings,
    InfoNCE,
    Objective,
    build_objective,
    symmetric_loss,
    unit_vectors,
    variance_covariance,
)
from socodet.models.settings import ObjectiveSettings
from socodet.models.soco import SoCo


def embeddings(partners: tuple[int, ...] = (0, 0, 0), images: int = 3, boxes: int = 2) -> Embeddings:
    """Random embeddings; the first view has enough boxes for the largest partner."""
    torch.manual_seed(0)
    rows = [images * (boxes + (max(partners) if v == 0 else 0)) for v in range(len(partners))]
    h, z, q, t = ([torch.randn(n, 5, dtype=torch.float64) for n in rows] for _ in range(4))
    return Embeddings(h, z, [unit_vectors(x) for x in q], [unit_vectors(x) for x in t], partners, images)


def test_default_objective_is_socos_loss_with_its_lower_bound():
    given = embeddings()
    by_image = [[z.reshape(3, 2, 5) for z in side] for side in (given.predictions, given.targets)]
    assert float(build_objective(ObjectiveSettings())(given)) == float(symmetric_loss(*by_image))
    perfect = Embeddings(
        given.representations, given.projections, [given.targets[0]] * 3, [given.targets[0]] * 3, (0, 0, 0), 3
    )
    assert float(CosineAgreement()(perfect)) == pytest.approx(CosineAgreement().lowest(3)) == -8


@pytest.mark.parametrize("partners", [(0, 0), (0, 0, 0), (0, 0, 2)])
def test_infonce_is_a_softmax_over_boxes_of_other_images(partners):
    given, temperature, boxes = embeddings(partners), 0.3, 2
    total = 0.0
    for v in range(1, len(partners)):
        in_first = len(given.targets[0]) // 3
        for one, other in ((0, v), (v, 0)):
            terms = []
            for image in range(3):
                for k in range(boxes):

                    def row(view: int, at: int, box: int, v: int = v, width: int = in_first) -> int:
                        return at * width + partners[v] + box if view == 0 else at * boxes + box

                    q = given.predictions[one][row(one, image, k)]
                    same = math.exp(float(q @ given.targets[other][row(other, image, k)]) / temperature)
                    others = sum(
                        math.exp(float(q @ given.targets[other][row(other, there, box)]) / temperature)
                        for there in range(3)
                        if there != image
                        for box in range(boxes)
                    )
                    terms.append(-math.log(same / (same + others)))
            total += 2 * temperature * sum(terms) / len(terms)
    objective = build_objective(ObjectiveSettings(loss="infonce", temperature=temperature))
    assert float(objective(given)) == pytest.approx(total)
    assert objective.lowest(len(partners)) == 0


def test_variance_and_covariance_match_numpy():
    outputs = torch.randn(40, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) * 0.4
    variance, covariance = variance_covariance(outputs)
    c = np.cov(outputs.numpy(), rowvar=False)
    assert float(variance) == pytest.approx(np.maximum(0, 1 - np.sqrt(np.diag(c) + 1e-4)).mean())
    assert float(covariance) == pytest.approx((c**2).sum() / 6 - (np.diag(c) ** 2).sum() / 6)
    assert 0 < float(variance) < 1


def test_collapsed_outputs_cost_the_full_variance_term_and_whitened_ones_nothing():
    variance, covariance = variance_covariance(torch.full((8, 4), 3.0))
    assert (float(variance), float(covariance)) == (pytest.approx(1 - 0.01), 0.0)
    corners = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    variance, covariance = variance_covariance(corners)
    assert (float(variance), float(covariance)) == (0.0, 0.0)


def test_weighted_terms_are_summed_over_views():
    given = embeddings()
    for where, one, other in (("projections", 4, 0.2), ("representations", 4, 0.2), ("projections", 0, 0.2)):
        settings = ObjectiveSettings(variance_weight=one, covariance_weight=other, decorrelate=where)
        terms = [variance_covariance(view) for view in getattr(given, where)]
        expected = CosineAgreement()(given) + sum(one * v + other * c for v, c in terms)
        assert float(build_objective(settings)(given)) == pytest.approx(float(expected))
        assert build_objective(settings).lowest(3) == -8


def test_terms_of_half_precision_outputs_are_computed_in_float32():
    outputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        low = variance_covariance(outputs)
    for ours, exact in zip(low, variance_covariance(outputs.double()), strict=True):
        assert ours.dtype is torch.float32
        assert float(ours) == pytest.approx(float(exact), rel=1e-5)
    given = embeddings()
    predictions, targets = ([unit_vectors(z.bfloat16()) for z in side] for side in (given.predictions, given.targets))
    assert predictions[0].dtype is torch.float32
    half = replace(given, predictions=predictions, targets=targets)
    exact = replace(given, predictions=[z.double() for z in predictions], targets=[z.double() for z in targets])
    with torch.autocast("cpu", torch.bfloat16):
        low = InfoNCE(0.1)(half)
    assert float(low) == pytest.approx(float(InfoNCE(0.1)(exact)), rel=1e-5)


class CustomObjective(Objective):
    """An objective written outside the package."""

    def __call__(self, embeddings: Embeddings) -> torch.Tensor:
        return embeddings.projections[0].square().mean() + embeddings.representations[0].square().mean()

    def lowest(self, views: int) -> float:
        return 0.0


def test_custom_objective_is_one_class():
    torch.manual_seed(0)
    soco = SoCo(build_encoder(SMALL), SMALL, CustomObjective())
    output = soco([a_view(64, torch.Generator().manual_seed(0)), a_view(48, torch.Generator().manual_seed(1))])
    output.loss.backward()
    assert float(output.loss) > 0
    assert soco.online.projector[0].weight.grad.norm() > 0
    assert all(p.grad is None for p in soco.predictor.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "nonsense"),
        ("temperature", 0),
        ("variance_weight", -1),
        ("covariance_weight", math.nan),
        ("decorrelate", "h"),
    ],
)
def test_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        ObjectiveSettings(**{field: value})
