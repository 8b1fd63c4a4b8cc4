"""From a detector's outputs to scores, with a detector that knows the ground truth."""

import json

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file

from socodet.detection import inference
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.masks import decode_rle
from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.transform import DetectorTransform, paste_masks
from socodet.detection.inference import as_detections, detect, detect_each
from socodet.errors import InputError
from socodet.finetuning.evaluate import score


class Oracle(torch.nn.Module):
    """Returns the ground truth of the images it is given, and one detection of background with a score of 1."""

    def __init__(self, data):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self._data = data

    def forward(self, images):
        assert not self.training
        return [self._truth(image) for image in images]

    def _truth(self, image):
        shown = (255 * image).round().byte().permute(1, 2, 0).numpy()
        there = [k for k, one in enumerate(self._data.images) if one.file.exists()]
        (index,) = [k for k in there if np.array_equal(self._data.pixels(k), shown)]
        truth = self._data.target(index)
        count = len(truth["labels"])
        return {
            "boxes": torch.cat([truth["boxes"], torch.tensor([[0.0, 0, 50, 50]])]),
            "labels": torch.cat([truth["labels"], torch.tensor([0])]),
            "scores": torch.cat([torch.linspace(0.9, 0.5, count), torch.tensor([1.0])]),
            "masks": torch.cat([truth["masks"].float() * 0.6, torch.ones(1, *image.shape[1:])])[:, None],
        }


@pytest.mark.parametrize("workers", [0, 2])
def test_ground_truth_scores_100(tmp_path, workers):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    found = score(
        Oracle(data),
        data,
        masks=True,
        step=7,
        scores_file=tmp_path / "scores.json",
        predictions_file=tmp_path / "found.json",
        workers=workers,
    )
    for name in ("box_AP", "box_AP75", "mask_AP", "mask_AP50"):
        assert found.scores[name] == pytest.approx(100, abs=1e-6)
    assert found.scores["box_APs"] is None  # there is no small object
    assert json.loads((tmp_path / "scores.json").read_text())["step"] == 7
    entries = json.loads((tmp_path / "found.json").read_text())
    assert [entry["bbox"] for entry in entries if entry["image_id"] == 2] == [[30.0, 20.0, 290.0, 375.0]]
    assert {entry["category_id"] for entry in entries} == {10, 20, 30}


def test_box_detector_is_not_scored_on_masks(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json"))
    found = score(Oracle(data), data, masks=False, step=1, scores_file=None)
    assert found.scores["box_AP"] == pytest.approx(100, abs=1e-6)
    assert not any(name.startswith("mask") for name in found.scores)


def test_unreadable_image_is_named_and_has_no_detections(tmp_path):
    data = open_detection_set(coco_file(tmp_path / "a.json", ("hopper", "chelsea")))
    object.__setattr__(data.images[1], "file", tmp_path / "gone.jpg")
    detector = Oracle(data).train()
    found, unreadable = detect(detector, data)
    assert list(found) == [1]
    ((file, why),) = unreadable
    assert file == str(tmp_path / "gone.jpg")
    assert "No such file" in why
    assert file not in why
    assert detector.training
    detect(detector.eval(), data)
    assert not detector.training


def test_masks_are_thresholded_at_a_half():
    answer = {
        "boxes": torch.tensor([[0.0, 0, 3, 1]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.25]),
        "masks": torch.tensor([[[[0.2, 0.51, 0.9]]]]),
    }
    found = as_detections(answer)
    assert decode_rle(found.masks[0]).tolist() == [[0, 1, 1]]
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)


def test_masks_are_pasted_into_their_boxes_by_hand():
    """One cell per pixel is a copy. With two cells over four pixels, pixel centres are at -3/4, -1/4, … 7/4 cells."""
    cells = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    expected = torch.zeros(1, 1, 7, 9)
    expected[..., 1:5, 2:6] = cells
    torch.testing.assert_close(paste_masks(cells, torch.tensor([[2.0, 1, 6, 5]]), (7, 9)), expected)
    two = torch.tensor([[[[4.0, 8.0], [4.0, 8.0]]]])
    row = paste_masks(two, torch.tensor([[1.0, 0, 5, 2]]), (2, 6))[0, 0, 0]
    between = [0.75 * 4 + 0.25 * 8, 0.25 * 4 + 0.75 * 8]
    torch.testing.assert_close(row, torch.tensor([0.25 * 4, 0.75 * 4, *between, 0.75 * 8, 0.25 * 8]))


def test_detectors_masks_are_pasted_at_the_original_image_size():
    """As above, for an image that the detector saw at half its size."""
    cells = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    answer = {"boxes": torch.tensor([[1.0, 0.5, 3, 2.5]]), "masks": cells}
    (found,) = DetectorTransform(InferenceSettings()).eval().postprocess([answer], [(4, 5)], [(8, 10)])
    expected = torch.zeros(1, 1, 8, 10)
    expected[..., 1:5, 2:6] = cells
    torch.testing.assert_close(found, {"boxes": torch.tensor([[2.0, 1, 6, 5]]), "masks": expected})


def test_masks_are_pasted_by_the_formula_of_detectron2_and_mmdetection():
    """Both sample masks at pixel centres with `grid_sample`. Boxes may be tiny or extend beyond the image."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(20, 1, 28, 28, generator=generator)
    corners = torch.rand(20, 2, generator=generator) * 60 - 10
    boxes = torch.cat([corners, corners + torch.rand(20, 2, generator=generator) * 40 + 0.1], dim=1)
    x, y = (torch.arange(side) + 0.5 for side in (50, 40))
    across = (x - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    down = (y - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack([across[:, None].expand(20, 40, 50), down[..., None].expand(20, 40, 50)], dim=3)
    expected = torch.nn.functional.grid_sample(masks, grid, align_corners=False)
    pasted = paste_masks(masks, boxes, (40, 50))
    torch.testing.assert_close(pasted, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(paste_masks(masks, boxes, (40, 50)), pasted, rtol=0, atol=0)


def test_masks_pasted_in_their_boxes_match_those_pasted_in_the_whole_image():
    """Also for boxes that extend beyond it, contain no pixel, or are not finite."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 80 - 20
    boxes = torch.cat([corners, corners + torch.rand(60, 2, generator=generator) ** 4 * 60], dim=1)
    boxes[:3] = torch.tensor([[-5, -5, 90, 90], [3, 4, 30, 20], [90, 50, 99, 60]])
    masks = torch.rand(60, 1, 28, 28, generator=generator)
    masks[3:9] = 1
    answer = {"boxes": boxes, "scores": torch.ones(60), "labels": torch.ones(60).long(), "masks": masks}
    found = np.stack([decode_rle(mask) for mask in as_detections(answer, (40, 50)).masks])
    whole = paste_masks(masks, boxes, (40, 50))[:, 0].numpy() > 0.5
    np.testing.assert_array_equal(found, whole)
    assert 0 < whole[1].mean() < 1
    answer["boxes"] = torch.full((60, 4), torch.nan)
    assert not any(decode_rle(mask).any() for mask in as_detections(answer, (40, 50)).masks)


def detector_with_random_masks(settings):
    """A detector with random masks; a new one's are a half everywhere, up to rounding."""
    detector = new_detector("mask_rcnn_fpn", NARROW, 6, inference=settings).eval()
    torch.nn.init.normal_(detector.roi_heads.mask_predictor.mask_fcn_logits.weight)
    return detector


@pytest.mark.usefixtures("narrow_networks")
@pytest.mark.parametrize("size", [(50, 70), (28, 28), (300, 200)])
def test_masks_pasted_one_at_a_time_match_the_modules(size):
    """The module's transform pastes all its masks at once."""
    torch.manual_seed(0)
    settings = InferenceSettings(short_side=64, max_side=96, score_threshold=0.1, detections=5, rois_per_image=16)
    detector = detector_with_random_masks(settings)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with torch.no_grad():
        (expected,) = detector([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    ((_, found),) = detect_each(detector, lambda _: image, [0])
    masks = np.stack([decode_rle(mask) for mask in found.masks])
    assert len(masks) == 5
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(masks, expected["masks"][:, 0].numpy() > 0.5)
    with torch.no_grad():
        (again,) = detector([torch.from_numpy(image).permute(2, 0, 1).float() / 255])  # the module is unchanged
    torch.testing.assert_close(again["masks"], expected["masks"], rtol=0, atol=0)


@pytest.mark.usefixtures("narrow_networks")
def test_masks_in_a_batch_have_the_sizes_of_their_own_images():
    settings = InferenceSettings(short_side=64, max_side=96, score_threshold=0.1, detections=5, rois_per_image=16)
    sizes = [(50, 70), (60, 40)]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    batch = detect_each(detector_with_random_masks(settings), images.__getitem__, range(2), batch_size=2)
    for size, (_, found) in zip(sizes, batch, strict=True):
        assert [mask["size"] for mask in found.masks] == [list(size)] * 5


@pytest.mark.usefixtures("narrow_networks")
def test_images_of_one_size_are_batched_and_give_the_same_detections(monkeypatch):
    torch.manual_seed(0)
    settings = InferenceSettings(short_side=64, max_side=96, score_threshold=0.1, detections=5, rois_per_image=16)
    detector = detector_with_random_masks(settings)
    rng = np.random.default_rng(0)
    sizes = [(50, 70), (60, 60), (50, 70), None, (50, 70), (60, 60), (200, 300), (50, 70)]
    images = [None if size is None else rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    seen = []
    detector.register_forward_pre_hook(lambda _, inputs: seen.append([tuple(i.shape[1:]) for i in inputs[0]]))
    monkeypatch.setitem(inference.TOGETHER, "cpu", 3 * 64 * 90)  # (50, 70) is seen at 64 x 90

    def read(index):
        if images[index] is None:
            raise InputError("gone")
        return images[index]

    alone = list(detect_each(detector, read, range(8)))
    seen.clear()
    together = list(detect_each(detector, read, range(8), batch_size=None))
    assert sorted(seen) == [[(50, 70)], [(50, 70)] * 3, [(60, 60)] * 2, [(200, 300)]]
    assert [index for index, _ in together] == list(range(8))
    for (_, one), (_, other) in zip(alone, together, strict=True):
        if isinstance(one, str):
            assert other == one == "gone"
            continue
        assert len(one) > 0
        assert other.labels.tolist() == one.labels.tolist()
        np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-2)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
        overlaps = [(decode_rle(a) == decode_rle(b)).mean() for a, b in zip(one.masks, other.masks, strict=True)]
        assert min(overlaps) > 0.99


@pytest.mark.parametrize("name", ["retinanet_fpn", "fcos_fpn"])
@pytest.mark.usefixtures("narrow_networks")
def test_boxes_outside_the_image_are_dropped(name):
    """Boxes in the padding at the right and bottom; clipped, they would be lines along the border."""
    seen = InferenceSettings(short_side=70, max_side=70, score_threshold=0.0, detections=50)
    network = new_detector(name, NARROW, 4, inference=seen).eval()
    if name == "retinanet_fpn":
        torch.nn.init.constant_(network.head.regression_head.bbox_reg.bias[::4], 0.7)  # right by 0.7 widths
    found = []
    postprocess = network.postprocess_detections
    network.postprocess_detections = lambda *of: found.extend(postprocess(*of)) or found
    with torch.no_grad():
        (answer,) = network([torch.rand(3, 70, 70, generator=torch.Generator().manual_seed(0))])
    (raw,) = found
    sides = raw["boxes"][:, 2:] - raw["boxes"][:, :2]
    real = (sides > 0).all(dim=1)
    assert 0 < real.sum() < len(real)
    assert torch.equal(answer["boxes"], raw["boxes"][real])
    assert torch.equal(answer["scores"], raw["scores"][real])
    assert torch.equal(answer["labels"], raw["labels"][real])
