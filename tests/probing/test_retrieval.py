import pytest
import torch
from torch import nn
from torchvision.ops import roi_align

from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from socodet.probing.retrieval import is_first_occurrence, mean_cosines, recall_at_1, recall_of_rows, similarity_map
from socodet.views.batch import Batch, ViewBatch, group_by_level

RED, GREEN, BLUE, GRAY = (250, 5, 5), (5, 250, 5), (5, 5, 250), (128, 128, 128)


class MeanColour(nn.Module):
    """An encoder whose features of a box are its mean colour minus gray."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, pixels, rois):
        std, mean = (torch.tensor(x).view(1, 3, 1, 1) for x in (IMAGENET_STD, IMAGENET_MEAN))
        rgb = pixels * std + mean - 0.5
        return roi_align(rgb, rois.rois, 4, aligned=True).mean(dim=(2, 3))[rois.order]


def painted(colours, boxes, size=32):
    """One gray image per row of colours, with boxes filled with these colours, on alternating levels."""
    pixels = torch.full((len(colours), 3, size, size), 128, dtype=torch.uint8)
    for image, row in enumerate(colours):
        for colour, (x1, y1, x2, y2) in zip(row, boxes[image], strict=True):
            pixels[image, :, y1:y2, x1:x2] = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    xyxy = torch.tensor(boxes).float()
    levels = torch.arange(xyxy.shape[0] * xyxy.shape[1]).reshape(xyxy.shape[:2]) % 2
    return ViewBatch(pixels, group_by_level(xyxy, levels), xyxy, levels)


LEFT, RIGHT, LOW = (2, 2, 14, 14), (18, 4, 30, 16), (8, 18, 24, 30)


def batch(first, second):
    return Batch((first, second), torch.zeros(len(first.pixels), 2, 4), torch.arange(len(first.pixels)))


def test_recall_matches_a_count_by_hand():
    query = painted([[RED, GREEN], [BLUE, (250, 250, 5)]], [[LEFT, RIGHT], [LEFT, RIGHT]])
    everything_moved = painted([[RED, GREEN], [BLUE, (250, 250, 5)]], [[RIGHT, LOW], [LOW, LEFT]])
    assert recall_at_1(MeanColour(), [[batch(query, everything_moved)]]) == 1.0
    # red and green are swapped in the gallery: two of four are found
    exchanged = painted([[GREEN, RED], [BLUE, (250, 250, 5)]], [[RIGHT, LOW], [LOW, LEFT]])
    assert recall_at_1(MeanColour(), [[batch(query, exchanged)]]) == 0.5
    both = [[batch(query, everything_moved)], [batch(query, exchanged)]]
    assert recall_at_1(MeanColour(), both) == 0.75
    assert recall_at_1(MeanColour(), both, query=1, gallery=1) == 1.0


def test_boxes_of_a_draw_are_searched_across_batches():
    one, other = painted([[RED]], [[LEFT]]), painted([[GREEN]], [[LEFT]])
    # the first batch's gallery holds green, the second's red: each query's match is in the other batch
    draw = [batch(one, other), batch(other, one)]
    assert recall_at_1(MeanColour(), [draw]) == 0.0
    assert recall_at_1(MeanColour(), [[batch(one, other)], [batch(other, one)]]) == 1.0


def test_the_similarity_map_is_highest_where_the_object_is():
    query, there = painted([[GRAY, RED]], [[LEFT, RIGHT]]), painted([[GREEN, RED]], [[LEFT, LOW]])
    cosine = similarity_map(MeanColour(), batch(query, there), box=1)
    assert cosine.shape == (16, 16)
    row, column = divmod(int(cosine.argmax()), 16)
    assert (column + 0.5) * 2 == pytest.approx(16, abs=2)  # LOW's centre is (16, 24)
    assert (row + 0.5) * 2 == pytest.approx(24, abs=2)
    assert float(cosine.max()) == pytest.approx(1.0, abs=1e-3)
    assert float(cosine[3, 3]) < 0.5  # on green


def test_recall_of_rows_and_cosines_match_a_count_by_hand():
    gallery = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
    assert recall_of_rows(torch.tensor([[5.0, 1.0], [-1.0, 0.5], [-1.0, 0.1]]), gallery) == pytest.approx(2 / 3)
    same, others = mean_cosines(gallery, torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    assert same == pytest.approx(2 / 3)  # 1, 1, 0
    assert others == pytest.approx(-1 / 3)  # (0, 0), (0, -1), (-1, 0)
    assert mean_cosines(gallery[:1], gallery[:1]) == (1.0, None)


def test_an_object_repeated_to_fill_an_image_counts_once():
    """Its boxes are identical, so which of them is most similar means nothing."""
    assert is_first_occurrence(torch.tensor([[LEFT, RIGHT, LEFT, LEFT, RIGHT], [RIGHT] * 5]).float()).tolist() == [
        [True, True, False, False, False],
        [True, False, False, False, False],
    ]
    query = painted([[RED, GREEN, GREEN], [BLUE, BLUE, BLUE]], [[LEFT, RIGHT, RIGHT], [LEFT, LEFT, LEFT]])
    there = painted([[RED, GREEN, GREEN], [BLUE, BLUE, BLUE]], [[RIGHT, LOW, LOW], [LOW, LOW, LOW]])
    assert recall_at_1(MeanColour(), [[batch(query, there)]]) == 1.0
    # red and green are swapped: of three objects only blue is found
    exchanged = painted([[GREEN, RED, RED], [BLUE, BLUE, BLUE]], [[RIGHT, LOW, LOW], [LOW, LOW, LOW]])
    assert recall_at_1(MeanColour(), [[batch(query, exchanged)]]) == pytest.approx(1 / 3)
