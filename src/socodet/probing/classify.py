"""What features tell of the kind of an object, by two fixed protocols, and whether they tell one object from others.

N training objects, M objects asked about, D features, C kinds. Everything is deterministic, on the CPU.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as unit

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""A neighbour's vote weighs exp(cosine / TEMPERATURE), as Wu et al. (2018) weigh it."""
L2 = 0.01
"""Strength of the linear probe's regularisation; fixed, not tuned to any set."""
ITERATIONS = 500
"""Of L-BFGS, at most; it ends where no entry of the gradient exceeds `GRADIENT`."""
GRADIENT = 1e-6
_ROWS = 1024  # of a table of cosines at once


def nearest_neighbours(train_nd: Tensor, labels_n: Tensor, asked_md: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """(M,) labels by a vote of the nearest training objects by cosine, as many as there are where there are fewer.

    Features need no unit length. Labels are whole numbers from 0; at a tie the smallest wins.
    """
    train, classes = unit(train_nd, dim=1), int(labels_n.max()) + 1
    answers = []
    for rows in torch.split(unit(asked_md, dim=1), _ROWS):
        cosine, nearest = (rows @ train.T).topk(min(neighbours, len(train)), dim=1)
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels_n[nearest], (cosine / TEMPERATURE).exp())
        answers.append(votes.argmax(dim=1))
    return torch.cat(answers)


@dataclass(frozen=True)
class LinearClassifier:
    """Logistic regression on standardised features."""

    kinds: Tensor
    """(C,) the labels of the training objects, rising."""
    mean: Tensor
    """(D,) of the training features."""
    scale: Tensor
    """(D,) one over their standard deviation; 0 for a feature that never changes."""
    weight: Tensor
    """(C, D)."""
    bias: Tensor
    """(C,)."""

    def predict(self, features_md: Tensor) -> Tensor:
        """(M,) labels."""
        standardised = (features_md.double() - self.mean) * self.scale
        return self.kinds[(standardised @ self.weight.T + self.bias).argmax(dim=1)]


def logistic_regression(train_nd: Tensor, labels_n: Tensor, strength: float = L2) -> LinearClassifier:
    """The minimum of mean cross-entropy + strength / 2 · ‖W‖², the bias left free, from zero by L-BFGS in float64.

    With scikit-learn's C that is C = 1 / (N · strength).
    """
    features = train_nd.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(deviation > 1e-9 * deviation.max(), 1 / deviation, 0.0)
    x_nd = (features - mean) * scale
    kinds, targets = torch.unique(labels_n, return_inverse=True)
    weight = torch.zeros(len(kinds), x_nd.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(kinds), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x_nd @ weight.T + bias, targets) + strength / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[arg-type, no-untyped-call]
    return LinearClassifier(kinds, mean, scale, weight.detach(), bias.detach())


def accuracies(answers_m: Tensor, labels_m: Tensor) -> tuple[float, float]:
    """Share of right answers: among all objects, and the mean over kinds of the share among each kind's objects."""
    right = (answers_m == labels_m).double()
    of_kind = [right[labels_m == kind].mean() for kind in torch.unique(labels_m)]
    return float(right.mean()), float(torch.stack(of_kind).mean())


def recall_of_rows(queries_md: Tensor, gallery_md: Tensor) -> float:
    """Share of queries whose most similar row of the gallery by cosine is that of their own place."""
    gallery = unit(gallery_md, dim=1)
    nearest = torch.cat([(rows @ gallery.T).argmax(dim=1) for rows in torch.split(unit(queries_md, dim=1), _ROWS)])
    return float((nearest == torch.arange(len(nearest))).double().mean())


def mean_cosines(one_nd: Tensor, other_nd: Tensor) -> tuple[float, float | None]:
    """Mean cosine of rows of the same place, and of rows of two different places; None where there is one row only."""
    one, other = unit(one_nd.double(), dim=1), unit(other_nd.double(), dim=1)
    same, count = float((one * other).sum()), len(one)
    if count < 2:
        return same / count, None
    return same / count, (float(one.sum(dim=0) @ other.sum(dim=0)) - same) / (count * (count - 1))
