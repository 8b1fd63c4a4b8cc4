"""Learning rate and target momentum as closed formulas of the optimiser step."""

import math


def learning_rate(step: int, *, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up to `peak`, then half a cosine to 0 (section 4.1; Loshchilov & Hutter 2016).

    Step k of `total`, counted from 0: peak · (k+1)/warmup while k < warmup, then
    peak · (1 + cos(π (k - warmup)/(total - warmup))) / 2.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def target_momentum(step: int, *, total: int, base: float, final: float = 1.0) -> float:
    """τ = τ₁ - (τ₁ - τ₀)(cos(πk/K) + 1)/2 at step k of K, counted from 0: from τ₀ (base) towards τ₁ (BYOL: 1)."""
    return final - (final - base) * (math.cos(math.pi * step / total) + 1) / 2
