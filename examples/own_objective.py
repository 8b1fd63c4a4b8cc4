"""An objective of your own: what the two networks are asked to agree about.

    python examples/own_objective.py

On the command line, in this folder:

    socodet pretrain IMAGES --output runs/own_objective --loss own_objective:Margin
"""

import torch

import socodet


class Margin(socodet.Objective):
    """The mean shortfall of the cosines of the same object below 0.9; pairs that agree better are left alone."""

    margin = 0.9

    def __call__(self, embeddings):
        """Of `predictions` and `targets`, unit vectors (B*K, D) per view; `Embeddings` says what else there is."""

        def by_image(view):
            return view.reshape(embeddings.images, -1, view.shape[1])  # (B, K, D)

        predictions, targets = map(by_image, embeddings.predictions), map(by_image, embeddings.targets)
        (first, *others), (first_target, *other_targets) = predictions, targets
        losses = []
        for online, target, start in zip(others, other_targets, embeddings.partners[1:], strict=True):
            same = slice(start, start + target.shape[1])  # the first view may have more boxes than this one
            losses += [self._shortfall(first[:, same], target), self._shortfall(online, first_target[:, same])]
        return torch.stack(losses).sum()

    def lowest(self, views):
        """The value at perfect agreement, which reports show beside the loss."""
        return 0.0

    def _shortfall(self, online, target):
        return (self.margin - (online * target).sum(dim=-1)).clamp_min(0).mean()


if __name__ == "__main__":
    # The run's folder says `own_objective:Margin`, and is not resumed with another objective.
    recipe = socodet.recipe("tiny").with_(loss=socodet.register(Margin), epochs=2, batch_size=4)
    print(socodet.pretrain(socodet.photographs(), recipe, "runs/own_objective", overwrite=True))
