"""Exports loaded by Detectron2 and MMDetection, where they are installed, compared with the detector in torch.

Both differ from torchvision in two ways that no file can change: their anchors are not rounded to whole pixels, and
they resize images as integers. With torchvision's behaviour in both respects, they must find the same objects.
"""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

import socodet
from socodet.detection.detectors.transform import scale_image, scaled_size
from socodet.images.decode import decode_image
from socodet.images.photographs import photographs

SIDES = 96, 160
"""Shorter and longest side to which the detectors of `detector_run` scale images."""


@pytest.fixture(params=["faster_rcnn_fpn", "mask_rcnn_fpn"])
def run(request, detector_run):
    return detector_run(request.param)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """`code(run, format, file)` exports and runs the card's code as written, on `image.jpg`; returns its variables."""
    (tmp_path / "image.jpg").write_bytes(sorted(photographs().glob("*.jpg"))[0].read_bytes())
    monkeypatch.chdir(tmp_path)

    def run_card(run, format, file):
        socodet.export_detector(run, tmp_path / file, format=format)
        card = (tmp_path / f"{file.partition('.')[0]}-{format}.md").read_text()
        (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        here = {}
        exec(lines, here)
        return here

    return run_card


def two_images():
    """Two images, each at its own size and as the detector scales it: (3, H, W), 0 to 255, not rounded."""
    for file in sorted(photographs().glob("*.jpg"))[:2]:
        with Image.open(file) as image:
            image.thumbnail((200, 200))
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()
        yield pixels, scale_image(pixels, scaled_size(tuple(pixels.shape[1:]), *SIDES))


def distances(ours, detector, boxes, labels):
    """(N,) distances in pixels between our boxes and their counterparts of the same class, and the counterparts."""
    distance = np.abs(ours.boxes[:, None] - boxes[None]).max(2)
    distance[np.array(ours.labels)[:, None] != np.array(detector.class_names)[labels][None]] = 1e6
    rows, order = linear_sum_assignment(distance)
    return distance[rows, order], order


def check(run, found_of):
    detector = socodet.load_detector(run, device="cpu")
    for pixels, scaled in two_images():
        (ours,) = detector.predict([pixels.byte().permute(1, 2, 0).numpy()])
        boxes, scores, labels = found_of(scaled, pixels.shape[1], pixels.shape[2])
        assert len(ours) == len(boxes) > 10
        distance, order = distances(ours, detector, boxes, labels)
        assert distance.max() < 1e-2
        np.testing.assert_allclose(scores[order], ours.scores, atol=1e-4)


def check_unmodified(run, boxes, labels):
    """With the framework's own anchors and resizing, most boxes are within two pixels of ours."""
    detector = socodet.load_detector(run, device="cpu")
    pixels = decode_image(sorted(photographs().glob("*.jpg"))[0].read_bytes())
    (ours,) = detector.predict([pixels])
    distance, _ = distances(ours, detector, boxes, labels)
    assert np.median(distance) < 2


def test_detectron2_finds_the_same_objects(run, code):
    pytest.importorskip("detectron2")
    here = code(run, "detectron2", "d.pkl")
    found = here["found"]
    check_unmodified(run, found.pred_boxes.tensor.numpy(), found.pred_classes.numpy())
    model = here["DefaultPredictor"](here["cfg"]).model
    for anchors in model.proposal_generator.anchor_generator.cell_anchors:
        anchors.data.copy_(anchors.round())

    def found_of(scaled, height, width):
        with torch.no_grad():
            (one,) = model([{"image": scaled, "height": height, "width": width}])
        kept = one["instances"]
        return kept.pred_boxes.tensor.numpy(), kept.scores.numpy(), kept.pred_classes.numpy()

    check(run, found_of)


def test_mmdetection_finds_the_same_objects(run, code):
    pytest.importorskip("mmdet")
    structures = pytest.importorskip("mmdet.structures")
    here = code(run, "mmdetection", "d.pth")
    model, found = here["model"], here["found"]
    assert model.dataset_meta["classes"] == ["animal", "person", "rocket"]
    check_unmodified(run, found.bboxes.numpy(), found.labels.numpy())
    generator = model.rpn_head.prior_generator
    generator.base_anchors = [anchors.round() for anchors in generator.base_anchors]

    def found_of(scaled, height, width):
        size = tuple(scaled.shape[1:])
        about = {
            "img_shape": size,
            "ori_shape": (height, width),
            "scale_factor": (size[1] / width, size[0] / height),
        }
        sample = structures.DetDataSample(metainfo=about)
        data = model.data_preprocessor({"inputs": [scaled.flip(0)], "data_samples": [sample]}, False)
        with torch.no_grad():
            kept = model(**data, mode="predict")[0].pred_instances
        return kept.bboxes.numpy(), kept.scores.numpy(), kept.labels.numpy()

    check(run, found_of)
