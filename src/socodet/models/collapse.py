"""Measures of collapse: the standard deviation and the effective rank of embeddings."""

import torch
from torch import Tensor


@torch.no_grad()
def embedding_std(embeddings_nd: Tensor) -> float:
    """Mean over dimensions of the standard deviation over N unit-length embeddings (N, D).

    About 1/√D when they are uniform on the sphere, 0 when all are the same point.
    """
    return float(embeddings_nd.float().std(dim=0, correction=0).mean())


@torch.no_grad()
def effective_rank(embeddings_nd: Tensor) -> float:
    """Exp of the entropy of the centred embeddings' normalised singular values (Roy & Vetterli 2007).

    Between 1 and min(N - 1, D): how many directions the N embeddings (N, D) really use.
    """
    centred = embeddings_nd.float() - embeddings_nd.float().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
