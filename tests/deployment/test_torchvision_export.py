"""A detector made only of torchvision's parts, built by the module exported beside its weights."""

import importlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

import socodet
from socodet.errors import InputError
from socodet.images.photographs import photographs


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("faster_rcnn_fpn", "pth"), ("mask_rcnn_fpn", "safetensors"), ("retinanet_fpn", "pt"), ("fcos_fpn", "pth")],
)
def test_code_in_the_card_finds_the_same_objects_without_socodet(name, suffix, detector_run, tmp_path, monkeypatch):
    run = detector_run(name)
    socodet.export_detector(run, tmp_path / f"d.{suffix}", format="torchvision")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "d-torchvision.md").read_text(), re.DOTALL)
    module = (tmp_path / "d-torchvision" / "detector.py").read_text()
    assert "import socodet" not in code + module
    assert "from socodet" not in module
    with Image.open(sorted(photographs().glob("*.jpg"))[0]) as image:
        image.convert("RGB").resize((200, 150)).save(tmp_path / "image.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.path_importer_cache.pop("d-torchvision", None)  # from another test's folder
    monkeypatch.delitem(sys.modules, "detector", raising=False)
    here = {}
    exec(code, here)
    monkeypatch.delitem(sys.modules, "detector")
    found = here["found"]
    (ours,) = socodet.load_detector(run, device="cpu").predict([tmp_path / "image.jpg"])
    kept = found["labels"].numpy() > 0
    assert len(ours) == kept.sum() > 10
    order = np.argsort(-found["scores"].numpy()[kept], kind="stable")
    np.testing.assert_allclose(found["boxes"].numpy()[kept][order], ours.boxes, atol=1e-3)
    assert [here["CLASSES"][label] for label in found["labels"].numpy()[kept][order]] == list(ours.labels)
    assert ("masks" in found) == (ours.masks is not None)


def test_detectors_that_torchvision_has_no_parts_for_are_refused(detector_run, tmp_path):
    with pytest.raises(InputError, match="no parts for faster_rcnn_c4; use format onnx"):
        socodet.export_detector(detector_run("faster_rcnn_c4"), tmp_path / "d.pth", format="torchvision")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "value"), [("model", "detr"), ("images", "images"), ("bn_images", 4)])
def test_flags_for_pretrained_modules_are_refused(detector_run, tmp_path, flag, value):
    with pytest.raises(InputError, match=f"{flag}.*leave"):
        socodet.export(detector_run("faster_rcnn_fpn"), tmp_path / "d.pth", **{flag: value})
    assert list(tmp_path.iterdir()) == []
