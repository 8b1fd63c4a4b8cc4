"""Did it learn? The few numbers at the top of a report. A tick needs a justified threshold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from socodet.pretraining.watch import COLLAPSED_RANK
from socodet.probing.probe import STANDARD_ERRORS, difference_error
from socodet.reports.page import Verdict
from socodet.runtime.counted import rounded


def log_verdicts(
    lines: Sequence[Mapping[str, Any]], embedding_size: int, lowest_loss: float, rank_bound: int | None = None
) -> list[Verdict]:
    """The verdicts on a pretraining run's log. embedding_size: D. lowest_loss: the loss at perfect agreement."""
    verdicts = []
    if any("loss" in line for line in lines):
        verdicts.append(loss_verdict(lines, lowest_loss))
    stds, ranks = (
        [line[name] for line in lines if line.get(name) is not None] for name in ("embedding_std", "effective_rank")
    )
    if stds:
        verdicts.append(spread_verdict(stds, embedding_size))
    if ranks:
        verdicts.append(rank_verdict(ranks, embedding_size, rank_bound))
    return verdicts


def loss_verdict(lines: Sequence[Mapping[str, Any]], lowest: float) -> Verdict:
    """Whether the loss fell: its mean over the last tenth of the log, compared with the first tenth.

    A falling loss earns no tick, since the loss of a collapsing network falls, too.
    """
    losses = [line["loss"] for line in lines if "loss" in line]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return Verdict(
        "Loss",
        f"{_signed(first)} → {_signed(last)}",
        None if last < first or len(losses) < 2 else False,
        good=f"falls towards {_signed(lowest, 0)}, where all views agree, and stays above it",
        poor="stays level, or rises",
        explanation="Mean over the first and over the last tenth of the log. No tick for falling: a collapsing "
        "network's loss falls too.",
    )


def spread_verdict(stds: Sequence[float], embedding_size: int) -> Verdict:
    """Whether the embeddings still differ: their standard deviation must be at least half of 1/√D.

    The variances of unit vectors with mean m add up to 1 - |m|², so with a mean standard deviation of at least half of
    1/√D, |m|², which is the mean cosine of two embeddings, is at most 1 - 1/4.
    """
    share = stds[-1] * math.sqrt(embedding_size)
    return Verdict(
        "Spread of the embeddings",
        f"{share:.0%} of an even spread",
        share >= 0.5,
        good=f"near 100%: spread evenly over {embedding_size} dimensions",
        poor="below 50%; 0% is collapse: all objects look the same",
        explanation="Standard deviation at the end of the log. At 50% or more, the mean cosine of two embeddings is "
        "at most 0.75.",
    )


def rank_verdict(ranks: Sequence[float], embedding_size: int, bound: int | None = None) -> Verdict:
    """How many dimensions the embeddings use; no tick, because it is not known which value makes a detector better."""
    return Verdict(
        "Effective rank",
        f"{rounded(ranks[0])} → {rounded(ranks[-1])}" + ("" if bound is None else f" of at most {bound}"),
        False if ranks[-1] < COLLAPSED_RANK else None,
        good=f"stays level or rises; at most {embedding_size}, or one less than the objects in a batch",
        poor="drops to a few; near 1 is collapse",
        explanation="Dimensions that the embeddings of a batch use, in the first and the last line of the log. No "
        "tick, because it is not known which value makes a detector better.",
    )


def recall_verdict(trained: float, untrained: float, objects: int) -> Verdict:
    """Whether training improved recall@1 of an object in another view beyond chance; over `objects` objects."""
    least = STANDARD_ERRORS * difference_error(trained, untrained, objects)
    higher = trained - untrained
    room = untrained + least < 1  # otherwise no network could be better
    return Verdict(
        "Same object found in another view",
        f"{trained:.0%} vs {untrained:.0%}",
        True if higher > least else False if higher < -least or (higher <= 0 and room) else None,
        good=f"above untrained by more than {100 * least:.0f} points, {STANDARD_ERRORS:g} standard errors"
        + ("" if room else "; with so few objects, or an untrained network so good, none could be"),
        poor="no better than untrained",
        explanation=f"Trained vs untrained: recall@1 from V1 to V2 of {objects:,} objects, among all boxes of these "
        "images. They are training images, so this says that something was learned, not that it helps a detector.",
    )


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")
