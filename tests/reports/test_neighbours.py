import numpy as np
import pytest

from socodet.reports.neighbours import EMPTY, nearest_elsewhere, object_panel


def slow_twin(features: np.ndarray, image_of: np.ndarray, query: int, count: int) -> list[int]:
    """Of each other picture the most similar object; of these the `count` most similar."""
    best: dict[int, tuple[float, int]] = {}
    for row in range(len(features)):
        if image_of[row] == image_of[query]:
            continue
        cosine = sum(a * b for a, b in zip(features[row].tolist(), features[query].tolist(), strict=True))
        if image_of[row] not in best or cosine > best[image_of[row]][0]:
            best[image_of[row]] = (cosine, row)
    return [row for _, row in sorted(best.values(), reverse=True)[:count]]


@pytest.mark.parametrize("count", [1, 3, 50])
def test_neighbours_are_the_nearest_of_each_other_picture(count: int) -> None:
    rng = np.random.default_rng(count)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    image_of = np.sort(rng.integers(0, 12, 60))
    for query in (0, 31, 59):
        rows, cosines = nearest_elsewhere(features, image_of, query, count)
        assert rows.tolist() == slow_twin(features, image_of, query, count)
        assert len(rows) == min(count, len(set(image_of.tolist())) - 1)
        np.testing.assert_allclose(cosines, [features[row] @ features[query] for row in rows], rtol=1e-6)


def test_one_picture_alone_has_no_neighbours() -> None:
    rows, cosines = nearest_elsewhere(np.eye(3, dtype=np.float32), np.zeros(3, np.int64), 1, 5)
    assert rows.size == cosines.size == 0


@pytest.mark.parametrize("box", [(20, 10, 40, 30), (0, 0, 20, 12), (70, 40, 90, 59), (0, 0, 90, 60), (30, 0, 36, 60)])
def test_the_cut_is_square_and_shows_the_object_in_its_box(box: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    panel = object_panel(image, np.array(box, np.float32), "#ff0000", title="0.5", alt="an object")
    side = len(panel.image)
    assert panel.image.shape == (side, side, 3)
    assert side == round(max(box[2] - box[0], box[3] - box[1]) * 1.25)
    x1, y1, x2, y2 = panel.boxes[0].astype(int)
    assert 0 <= x1 < x2 <= side
    assert 0 <= y1 < y2 <= side
    assert (panel.image[y1:y2, x1:x2] == image[box[1] : box[3], box[0] : box[2]]).all()
    if side <= 60:
        assert not (panel.image == EMPTY).all(axis=2).any()  # moved into the picture, nothing left empty
