"""The two classifiers, against plain loops and scipy's optimiser."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from socodet.probing import classifiers
from socodet.probing.classifiers import accuracies, logistic_regression, nearest_neighbours
from socodet.training.learner import StoppedEarlyError


def clouds(seed, classes=4, each=30, dimensions=12, spread=0.3):
    """Objects scattered around one point per class: features, and labels from 1."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (classes, dimensions))
    labels = generator.permutation(np.repeat(np.arange(1, classes + 1), each))
    features = centres[labels - 1] + generator.normal(0, spread, (len(labels), dimensions))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def answers_of_both(train, labels, asked):
    return nearest_neighbours(train, labels, asked), logistic_regression(train, labels).predict(asked)


def test_separate_classes_are_predicted_and_shuffled_labels_are_not():
    train, labels = clouds(0, each=100)
    asked, right = clouds(1, each=100)
    for answers in answers_of_both(train, labels, asked):
        assert accuracies(answers, right) == (1.0, 1.0)
    shuffled = labels[torch.from_numpy(np.random.default_rng(2).permutation(len(labels)))]
    for answers in answers_of_both(train, shuffled, torch.randn(2000, 12, generator=torch.manual_seed(0))):
        by_chance = torch.randint(1, 5, (2000,), generator=torch.manual_seed(1))
        assert accuracies(answers, by_chance)[0] == pytest.approx(0.25, abs=0.05)  # five standard deviations


def test_nearest_neighbours_match_a_plain_loop():
    train, labels = clouds(3, spread=2.0)
    asked, _ = clouds(4, spread=2.0, each=300)  # more rows than one chunk
    expected = []
    for query in asked.double().numpy():
        cosines = [float(row @ query / math.sqrt((row @ row) * (query @ query))) for row in train.double().numpy()]
        votes = np.zeros(5)
        for place in sorted(range(len(cosines)), key=lambda place: -cosines[place])[:20]:
            votes[labels[place]] += math.exp(cosines[place] / 0.07)
        expected.append(int(votes.argmax()))
    assert nearest_neighbours(train, labels, asked).tolist() == expected
    # fewer objects than neighbours: all vote, and the nearer class wins
    two = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert nearest_neighbours(two, torch.tensor([3, 7]), torch.tensor([[0.1, 5.0]])).tolist() == [7]


def test_logistic_regression_can_be_stopped(monkeypatch):
    """It takes minutes with many objects and classes."""
    asked, calls, loss = [], [], classifiers.cross_entropy

    def stopped_at_the_third(*some):
        calls.append(some)
        asked.extend(["SIGTERM"] * (len(calls) == 3))
        return loss(*some)

    monkeypatch.setattr(classifiers, "cross_entropy", stopped_at_the_third)
    with pytest.raises(StoppedEarlyError):
        logistic_regression(*clouds(5, spread=1.5), stop=asked)
    assert len(calls) == 3


def test_logistic_regression_matches_scipy():
    train, labels = clouds(5, spread=1.5)
    train[:, 3] = 4.0  # a constant feature, with no deviation to divide by
    train[:, 5] *= 1000
    labels[labels == 2] = 9  # labels need not be consecutive
    x = train.double().numpy()
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation > 0, deviation, np.inf)
    classes, targets = np.unique(labels.numpy(), return_inverse=True)

    def objective(parameters):
        weight, bias = parameters[: 4 * 12].reshape(4, 12), parameters[4 * 12 :]
        scores = x @ weight.T + bias
        log_sum = np.log(np.exp(scores).sum(1))
        return (log_sum - scores[np.arange(len(x)), targets]).mean() + 0.01 / 2 * (weight**2).sum()

    best = minimize(objective, np.zeros(4 * 13), method="BFGS", options={"gtol": 1e-7}).x
    found = logistic_regression(train, labels)
    np.testing.assert_allclose(found.weight.numpy(), best[:48].reshape(4, 12), atol=1e-4)
    np.testing.assert_allclose(found.bias - found.bias.mean(), best[48:] - best[48:].mean(), atol=1e-4)
    assert found.classes.tolist() == [1, 3, 4, 9]
    asked, _ = clouds(6, spread=1.5)
    standardised = (asked.double().numpy() - train.double().numpy().mean(0)) / np.where(
        deviation > 0, deviation, np.inf
    )
    expected = classes[(standardised @ best[:48].reshape(4, 12).T + best[48:]).argmax(1)]
    assert found.predict(asked).tolist() == expected.tolist()
    assert torch.equal(logistic_regression(train, labels).weight, found.weight)


def test_accuracies_match_a_count_by_hand():
    labels = torch.tensor([1, 1, 1, 1, 2, 2, 5])
    assert accuracies(torch.tensor([1, 1, 1, 2, 2, 1, 1]), labels) == (
        pytest.approx(4 / 7),
        pytest.approx((3 / 4 + 1 / 2 + 0) / 3),
    )
