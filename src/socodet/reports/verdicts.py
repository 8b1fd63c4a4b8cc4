"""Did it learn? The few numbers that a report opens with, each with the value it must reach."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from socodet.reports.page import Verdict


def log_verdicts(lines: Sequence[Mapping[str, Any]], embedding_size: int) -> list[Verdict]:
    """The verdicts on a pretraining run's log; D is the `embedding_size`."""
    verdicts = []
    if any("loss" in line for line in lines):
        verdicts.append(loss_verdict(lines))
    stds = [line["embedding_std"] for line in lines if "embedding_std" in line]
    if stds:
        verdicts.append(embedding_verdict(stds[-1], embedding_size))
    return verdicts


def loss_verdict(lines: Sequence[Mapping[str, Any]]) -> Verdict:
    """Whether the loss fell: its mean over the last tenth of the log against that over the first tenth."""
    losses = [line["loss"] for line in lines if "loss" in line]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return Verdict(
        "Loss",
        f"{_signed(first)} → {_signed(last)}",
        last < first,
        "Mean over the first and over the last tenth of the log; must fall.",
    )


def embedding_verdict(embedding_std: float, embedding_size: int) -> Verdict:
    """Whether the embeddings have not collapsed: their standard deviation must be at least half of 1/√D."""
    least = 0.5 / math.sqrt(embedding_size)
    passed = embedding_std >= least
    explanation = f"Standard deviation; must be at least {least:.4f}, half of 1/√{embedding_size}."
    return Verdict("Embeddings", f"{embedding_std:.4f}", passed, f"{explanation}{'' if passed else ' Collapsed.'}")


def recall_verdict(trained: float, untrained: float) -> Verdict:
    """Whether training improved finding an object in another view (recall@1)."""
    return Verdict(
        "Same object found",
        f"{trained:.0%} vs {untrained:.0%}",
        trained > untrained,
        "Recall@1 from V1 to V2 over all boxes of these images, some of the training images; must beat untrained.",
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
