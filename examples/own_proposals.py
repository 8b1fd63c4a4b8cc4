"""Proposals of your own: a function from an image to boxes, in place of selective search.

    python examples/own_proposals.py

On the command line, in this folder:

    socodet propose IMAGES --output runs/edges.parquet --method own_proposals:where_edges_are
    socodet pretrain IMAGES --output runs/edges --proposals.method own_proposals:where_edges_are
"""

import numpy as np

import socodet


def where_edges_are(image, rng):
    """Boxes (N, 4), xyxy in pixels, of an image (H, W, 3), uint8 RGB: squares about points with strong edges.

    `rng` is a random generator whose seed depends on the image, so that the same image has the same boxes in every run.
    Called from several threads at once. What reaches outside the image is clipped, and the filters for size, aspect
    ratio and overlap apply to your boxes too (--max-aspect, --min-scale, --max-scale, --max-overlap).
    """
    edges = np.hypot(*np.gradient(image.mean(axis=2))) + 1e-6
    height, width = edges.shape
    y, x = np.divmod(rng.choice(edges.size, 100, p=(edges / edges.sum()).ravel()), width)
    half = rng.uniform(0.15, 0.4, 100) * min(height, width)
    return np.stack([x - half, y - half, x + half, y + half], axis=1)


if __name__ == "__main__":
    # `register` gives the name that settings take: "own_proposals:where_edges_are".
    method = socodet.register(where_edges_are)
    settings = socodet.ProposalSettings(method=method, max_overlap=0.7)
    print(socodet.propose(socodet.photographs(), "runs/edges.parquet", settings=settings, overwrite=True))
    print(
        socodet.inspect(
            "proposals", socodet.photographs(), "runs/edges.html", table="runs/edges.parquet", overwrite=True
        )
    )
