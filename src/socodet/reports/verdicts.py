"""Did it learn? The few figures a report opens with, each with what it must be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from socodet.reports.page import Verdict


def loss_verdict(lines: Sequence[Mapping[str, Any]]) -> Verdict:
    """Whether the loss fell: the mean of the first tenth of the log against that of the last."""
    losses = [line["loss"] for line in lines if "loss" in line]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return Verdict(
        "Loss",
        f"{_signed(first)} → {_signed(last)}",
        last < first,
        "Mean of the first tenth of the log and of the last; must fall.",
    )


def spread_verdict(embedding_std: float, embedding_size: int) -> Verdict:
    """Whether the embeddings spread: their standard deviation at least half of 1/√D."""
    least = 0.5 / math.sqrt(embedding_size)
    passed = embedding_std >= least
    explanation = f"Standard deviation; must be at least {least:.4f}, half of 1/√{embedding_size}."
    return Verdict("Embeddings", f"{embedding_std:.4f}", passed, f"{explanation}{'' if passed else ' Collapsed.'}")


def recall_verdict(trained: float, untrained: float) -> Verdict:
    """Whether training made it likelier that an object is found in another view (recall@1)."""
    return Verdict(
        "Same object found",
        f"{trained:.0%} vs {untrained:.0%}",
        trained > untrained,
        "Recall@1 from V1 to V2 among all boxes of these pictures, those trained on; must be above untrained.",
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
