"""ONNX exports, run by onnxruntime on photographs, compared with the detector in torch."""

import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads

import socodet
from socodet.cli import main
from socodet.deployment.onnx import onnx_bytes, onnx_files
from socodet.deployment.onnx_graphs import graph_of
from socodet.errors import InputError
from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.runtime.extensions import register
from socodet.training.run_folder import RunFolder

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("narrow_networks")
SIZES = ((266, 190), (61, 90))
"""Heights and widths of the crops from the photographs: portrait, and landscape smaller than the detector's size."""


def three():
    return sorted(photographs().glob("*.jpg"))[:3]


def crops():
    files = sorted(photographs().glob("*.jpg"))[: len(SIZES)]
    return [
        decode_image(file.read_bytes())[:height, :width] for file, (height, width) in zip(files, SIZES, strict=True)
    ]


def counterparts(boxes, names, others, other_names):
    """For each box, the nearest other box of its class, one to one; boxes with equal scores may be in any order."""
    distance = np.abs(boxes[:, None] - others[None]).max(2)
    distance[np.array(names)[:, None] != np.array(other_names)[None]] = 1e6
    return linear_sum_assignment(distance)[1]


def check(ours, boxes, scores, labels, masks, class_names):
    """Asserts that the same objects were found in an image as by torch."""
    assert len(ours) == len(scores) > 10
    order = counterparts(ours.boxes, ours.labels, boxes, [class_names[label - 1] for label in labels])
    np.testing.assert_allclose(boxes[order], ours.boxes, atol=1e-3)
    np.testing.assert_allclose(scores[order], ours.scores, atol=1e-5)
    if masks is not None:
        assert masks.dtype == bool
        assert (masks[order] != ours.masks).mean() < 1e-4


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "retinanet_fpn", "fcos_fpn", "mask_rcnn_c4", "rt_detr"])
def test_onnxruntime_finds_the_same_objects_in_images_of_any_size_and_number(name, detector_run, tmp_path):
    run = detector_run(name, "timm/resnet18d" if name == "rt_detr" else "resnet18")
    file = socodet.export_detector(run, tmp_path / "d.onnx", format="onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d-onnx.md", "d.onnx"]  # no separate weights file
    session, detector = onnxruntime.InferenceSession(file), socodet.load_detector(run, device="cpu")
    for image in crops():
        (ours,) = detector.predict([image])
        boxes, scores, labels, of_image, *masks = session.run(None, {"images": image[None]})
        assert not of_image.any()
        assert len(masks) == ("mask" in name)
        check(ours, boxes, scores, labels, masks[0] if masks else None, detector.class_names)
    batch = np.stack([image[:96, :130] for image in (decode_image(file.read_bytes()) for file in three())])
    boxes, scores, labels, of_image, *masks = session.run(None, {"images": batch})
    assert list(of_image) == sorted(of_image)
    for place, ours in enumerate(detector.predict(list(batch))):
        here = of_image == place
        assert (np.diff(scores[here]) <= 0).all()
        check(ours, boxes[here], scores[here], labels[here], masks[0][here] if masks else None, detector.class_names)


def test_a_timm_backbone_takes_images_of_any_size(detector_run):
    detector = socodet.load_detector(detector_run("retinanet_fpn", "timm/test_convnext"), device="cpu")
    session = onnxruntime.InferenceSession(onnx_bytes(detector))
    for image in crops():
        (ours,) = detector.predict([image])
        boxes, scores, labels, _ = session.run(None, {"images": image[None]})
        check(ours, boxes, scores, labels, None, detector.class_names)


class Bessel(nn.Module):
    """A backbone with an operation that ONNX lacks."""

    def forward(self, pixels):
        return [torch.special.i0(nn.functional.avg_pool2d(pixels[:, :1], stride)) for stride in (4, 8, 16, 32)]


class OneSize(nn.Module):
    """A backbone that computes a size in Python: correct in torch, but fixed to the traced images in a graph."""

    def forward(self, pixels):
        height, width = (math.ceil(side / 4) for side in pixels.shape[2:])
        first = nn.functional.interpolate(pixels[:, :1], size=(height, width))
        return [nn.functional.avg_pool2d(first, stride) for stride in (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("timm/mobilevit_xxs", "mobilevit_xxs fits only images of one size"),
        (OneSize, "OneSize fits only images of one size"),
        (Bessel, "aten::i0"),
    ],
)
def test_a_backbone_that_cannot_be_a_graph_is_refused(detector_run, backbone, said):
    name = backbone if isinstance(backbone, str) else register(backbone)
    detector = socodet.load_detector(detector_run("retinanet_fpn", name), device="cpu")
    with pytest.raises(InputError, match=said) as error:
        onnx_bytes(detector)
    assert "\n" not in str(error.value)


def test_weights_too_large_for_one_file_are_refused(detector_run, monkeypatch):
    detector = socodet.load_detector(detector_run("retinanet_fpn"), device="cpu")
    monkeypatch.setattr("socodet.deployment.onnx.LARGEST", 10_000)
    with pytest.raises(InputError, match="2 GiB"):
        onnx_bytes(detector)


class OwnHeads(RoIHeads):
    """Keeps only the two highest-scoring objects of an image, and calls the second one background."""

    def postprocess_detections(self, *arguments):
        found = super().postprocess_detections(*arguments)
        boxes, scores, labels = ([one[:2] for one in part] for part in found)
        return boxes, scores, [one * torch.tensor([1, 0]) for one in labels]


def test_a_detector_with_its_own_post_processing_takes_single_images(detector_run, tmp_path):
    detector = socodet.load_detector(detector_run("faster_rcnn_fpn"), device="cpu")
    detector.network.roi_heads.__class__ = OwnHeads
    file = tmp_path / "d.onnx"
    files = onnx_files(detector, file)
    assert "batch is 1" in " ".join(files.notes)
    session = onnxruntime.InferenceSession(files.weights[file])
    image = crops()[1]
    (ours,) = detector.predict([image])
    boxes, scores, *_ = session.run(None, {"images": image[None]})
    assert len(ours) == len(scores) == 1
    np.testing.assert_allclose(boxes, ours.boxes, atol=1e-3)
    with pytest.raises(Exception, match="Expected: 1"):
        session.run(None, {"images": np.stack([image, image])})


@pytest.mark.parametrize(("name", "in_one"), [("retinanet_fpn", True), ("mask_rcnn_fpn", False)])
def test_images_without_detections_have_no_boxes(name, in_one, detector_run):
    """With a score threshold that only one of three images exceeds, or none."""
    detector = socodet.load_detector(detector_run(name), device="cpu")
    batch = np.stack([image[:61, :90] for image in (*crops(), np.zeros((61, 90, 3), np.uint8))])
    surest = [float(one.scores[0]) for one in detector.predict(list(batch))]
    second, first = sorted(surest)[-2:]
    assert first > second
    owner = detector.network.roi_heads if "rcnn" in name else detector.network
    owner.score_thresh = (first + second) / 2 if in_one else (first + 1) / 2
    session = onnxruntime.InferenceSession(onnx_bytes(detector))
    boxes, scores, _, of_image, *masks = session.run(None, {"images": batch})
    assert set(of_image) == ({surest.index(first)} if in_one else set())
    assert len(boxes) == len(scores) == sum(map(len, detector.predict(list(batch))))
    assert [mask.shape for mask in masks] == [(0, 61, 90)] * ("mask" in name)


def test_rt_detrs_score_threshold_is_in_the_graph(detector_run):
    detector = socodet.load_detector(detector_run("rt_detr", "timm/resnet18d"), device="cpu")
    (found,) = detector.predict([crops()[1]])
    detector.network.score_threshold = limit = float(np.median(found.scores))
    with torch.no_grad():
        _, scores, *_ = graph_of(detector.network)(torch.from_numpy(crops()[1][None]))
    assert 0 < len(scores) < len(found)
    assert len(scores) == pytest.approx((found.scores >= limit).sum(), abs=1)


def test_code_in_the_card_works_as_written(detector_run, tmp_path, monkeypatch):
    run = detector_run("faster_rcnn_fpn")
    description = RunFolder(run).describe()
    start = {"start": {"from": "/home/somebody/first", "file": "step-00000002.pt", "sha256": "cd" * 32}}
    monkeypatch.setattr(RunFolder, "describe", lambda *_: description | start)
    main(["export", str(run), "--output", str(tmp_path / "d.onnx"), "--format", "onnx"])
    card = (tmp_path / "d-onnx.md").read_text()
    assert "Began from first\n" in card
    assert "somebody" not in card
    assert "- 2: person" in card
    assert "shorter side of 96 pixels" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    Image.fromarray(crops()[0]).save(tmp_path / "image.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    here = {}
    exec(code, here)
    (ours,) = socodet.load_detector(run, device="cpu").predict([tmp_path / "image.jpg"])
    assert sorted(here["names"]) == sorted(ours.labels)
    classes = json.loads(here["session"].get_modelmeta().custom_metadata_map["classes"])
    assert classes == ["animal", "person", "rocket"]


def test_impossible_exports_are_one_line(detector_run, tmp_path, monkeypatch):
    run = detector_run("faster_rcnn_fpn")
    with pytest.raises(InputError, match=r"ends in \.onnx.*torchvision"):
        socodet.export_detector(run, tmp_path / "d.pth", format="onnx")
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        socodet.export_detector(run, tmp_path / "there.onnx", format="onnx")
    with pytest.raises(InputError, match="timm"):
        socodet.export_detector(run, tmp_path / "d.pth", format="timm")
    assert (tmp_path / "there.onnx").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"socodet\[onnx\]"):
        socodet.export_detector(run, tmp_path / "d.onnx", format="onnx")
    assert not (tmp_path / "d.onnx").exists()
