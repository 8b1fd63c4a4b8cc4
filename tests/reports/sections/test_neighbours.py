import numpy as np
import pytest

from socodet.reports.images import ShownImage
from socodet.reports.sections.neighbours import nearest_elsewhere, neighbour_section


def slow_twin(features: np.ndarray, image_of: np.ndarray, query: int, count: int) -> list[int]:
    """The most similar object of each other image; of these, the `count` most similar."""
    best: dict[int, tuple[float, int]] = {}
    for row in range(len(features)):
        if image_of[row] == image_of[query]:
            continue
        cosine = sum(a * b for a, b in zip(features[row].tolist(), features[query].tolist(), strict=True))
        if image_of[row] not in best or cosine > best[image_of[row]][0]:
            best[image_of[row]] = (cosine, row)
    return [row for _, row in sorted(best.values(), reverse=True)[:count]]


@pytest.mark.parametrize("count", [1, 3, 50])
def test_neighbours_are_the_nearest_object_of_each_other_image(count: int) -> None:
    rng = np.random.default_rng(count)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    image_of = np.sort(rng.integers(0, 12, 60))
    for query in (0, 31, 59):
        rows, cosines = nearest_elsewhere(features, image_of, query, count)
        assert rows.tolist() == slow_twin(features, image_of, query, count)
        assert len(rows) == min(count, len(set(image_of.tolist())) - 1)
        np.testing.assert_allclose(cosines, [features[row] @ features[query] for row in rows], rtol=1e-6)


def test_a_single_image_has_no_neighbours() -> None:
    rows, cosines = nearest_elsewhere(np.eye(3, dtype=np.float32), np.zeros(3, np.int64), 1, 5)
    assert rows.size == cosines.size == 0


@pytest.mark.parametrize("with_proposals", [0, 1])
def test_the_section_needs_two_images_with_proposals(with_proposals: int) -> None:
    boxes = [np.ones((int(k < with_proposals), 4), np.float32) for k in range(3)]
    assert (
        neighbour_section([], [ShownImage(k, str(k), np.zeros((9, 9, 3), np.uint8), boxes[k]) for k in range(3)])
        is None
    )
