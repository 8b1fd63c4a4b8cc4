"""The class of an object from its features, by two fixed protocols: nearest neighbours and logistic regression.

N training objects, M queries, D features, C classes. Everything is deterministic, on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.functional import normalize as unit

from socodet.training.learner import StoppedEarlyError

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""A neighbour's vote has the weight exp(cosine / TEMPERATURE), as in Wu et al. (2018)."""
L2 = 0.01
"""Strength of the linear probe's L2 regularisation; fixed, not tuned on any dataset."""
ITERATIONS = 500
"""Maximum number of L-BFGS iterations; it stops earlier when no entry of the gradient exceeds `GRADIENT`."""
GRADIENT = 1e-6
_ROWS = 1024  # queries at once


def nearest_neighbours(train_nd: Tensor, labels_n: Tensor, queries_md: Tensor) -> Tensor:
    """(M,) labels by a vote of the `NEIGHBOURS` nearest training objects (all, if there are fewer) by cosine.

    Features need not be of unit length. Labels are integers from 0; on a tie the smallest wins.
    """
    train, classes = unit(train_nd, dim=1), int(labels_n.max()) + 1
    predicted = []
    for rows in torch.split(unit(queries_md, dim=1), _ROWS):
        cosine, nearest = (rows @ train.T).topk(min(NEIGHBOURS, len(train)), dim=1)
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels_n[nearest], (cosine / TEMPERATURE).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


@dataclass(frozen=True)
class LinearClassifier:
    """Logistic regression on standardised features."""

    classes: Tensor
    """(C,) the labels of the training objects, ascending."""
    mean: Tensor
    """(D,) mean of the training features."""
    scale: Tensor
    """(D,) reciprocal of their standard deviation; 0 for a constant feature."""
    weight: Tensor
    """(C, D)."""
    bias: Tensor
    """(C,)."""

    def predict(self, features_md: Tensor) -> Tensor:
        """(M,) labels."""
        standardised = (features_md.double() - self.mean) * self.scale
        return self.classes[(standardised @ self.weight.T + self.bias).argmax(dim=1)]


def logistic_regression(train_nd: Tensor, labels_n: Tensor, *, stop: Sequence[str] = ()) -> LinearClassifier:
    """Minimises mean cross-entropy + L2 / 2 · ‖W‖² by L-BFGS in float64, from zero; the bias is not regularised.

    In scikit-learn's terms, C = 1 / (N · L2). Raises StoppedEarlyError once the list `stop` has an element.
    """
    features = train_nd.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(deviation > 1e-9 * deviation.max(), 1 / deviation, 0.0)
    x_nd = (features - mean) * scale
    classes, targets = torch.unique(labels_n, return_inverse=True)
    weight = torch.zeros(len(classes), x_nd.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
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
        if stop:
            raise StoppedEarlyError
        optimizer.zero_grad()
        value = cross_entropy(x_nd @ weight.T + bias, targets) + L2 / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[arg-type, no-untyped-call]
    return LinearClassifier(classes, mean, scale, weight.detach(), bias.detach())


def accuracies(predicted_m: Tensor, labels_m: Tensor) -> tuple[float, float]:
    """Accuracy over all objects, and the mean of the classes' accuracies."""
    right = (predicted_m == labels_m).double()
    of_class = [right[labels_m == label].mean() for label in torch.unique(labels_m)]
    return float(right.mean()), float(torch.stack(of_class).mean())
