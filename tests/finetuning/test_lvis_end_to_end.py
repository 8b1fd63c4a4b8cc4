"""An LVIS dataset from the command line: rare classes sampled more often, scores by frequency, resuming."""

import json
from dataclasses import replace

import pytest
import torch
from photograph_sets import OBJECTS
from PIL import Image

from socodet.cli import main
from socodet.detection.detectors.schedules import SCHEDULES
from socodet.finetuning.samples import TrainingImages
from socodet.images.photographs import photographs
from socodet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("narrow_networks")

CATEGORIES = {"person": (3, "f"), "animal": (5, "c"), "rocket": (8, "r"), "teapot": (9, "r")}
NAMES = ("astronaut", "hopper", "cameraman", "chelsea", "raccoon")
"""Only the astronaut shows a rocket; other objects are not annotated."""


def lvis_file(folder):
    """As in LVIS v1: images by URL, with the classes known to be absent and those not exhaustively annotated."""
    images, annotations = [], []
    (folder / "images" / "train2017").mkdir(parents=True)
    for number, name in enumerate(NAMES, 1):
        width, height, objects = OBJECTS[name]
        width, height = width // 4, height // 4
        image = Image.open(photographs() / f"{name}.jpg").resize((width, height))
        image.save(folder / "images" / "train2017" / f"{name}.jpg")
        shown = {CATEGORIES[kind][0] for kind, *_ in objects}
        images.append(
            {
                "id": number,
                "coco_url": f"http://images.cocodataset.org/train2017/{name}.jpg",
                "width": width,
                "height": height,
                "neg_category_ids": [] if 8 in shown else [8],
                "not_exhaustive_category_ids": [3] if name == "hopper" else [],
            }
        )
        for kind, *box in objects:
            x, y, w, h = (side / 4 for side in box)
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": CATEGORIES[kind][0]}
            annotations.append(entry | {"bbox": [x, y, w, h], "area": w * h, "segmentation": [outline]})
    kinds = [{"id": i, "name": name, "frequency": frequency} for name, (i, frequency) in CATEGORIES.items()]
    (folder / "lvis_v1_train.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": kinds})
    )
    return folder / "lvis_v1_train.json"


def test_rare_classes_are_sampled_more_often_and_scored_by_frequency(tmp_path, capsys, monkeypatch):
    data = str(lvis_file(tmp_path))
    # One of five images is above the schedule's threshold of 0.001; with 0.8 it is repeated sqrt(0.8 / 0.2) = 2 times.
    monkeypatch.setitem(SCHEDULES, "lvis_1x", replace(SCHEDULES["lvis_1x"], repeat_threshold=0.8, detections=20))
    shown = []
    look = TrainingImages.__getitem__
    monkeypatch.setattr(TrainingImages, "__getitem__", lambda self, place: shown.append(place) or look(self, place))
    command = ["finetune", data, "--images", str(tmp_path / "images"), "--schedule", "lvis_1x"]
    command += ["--iterations", "4", "--batch-size", "2", "--size", "32", "--precise-bn", "0", "--workers", "0"]
    command += ["--backbone", "resnet18", "--fpn-channels", "16", "--head-channels", "16", "--head-convs", "1"]
    command += ["--representation-size", "24", "--rois-per-image", "16", "--device", "cpu"]
    main([*command, "--val", data, "--evaluation.save-predictions", "--output", str(tmp_path / "whole")])
    assert "box" in capsys.readouterr().out
    # Factors: rocket 2, animals sqrt(0.8 / 0.4) = 1.41, persons sqrt(0.8 / 0.6) = 1.15, so an epoch has 6 to 9 samples.
    assert len(set(shown)) == 8  # a different sample each time
    assert sum(index == 0 for epoch, index in shown if epoch % 2**32 == 0) == 2

    described = json.loads((tmp_path / "whole" / "run.json").read_text())
    schedule = described["recipe"]["schedule"]
    assert (schedule["detections"], schedule["score_threshold"], schedule["repeat_threshold"]) == (20, 0.0001, 0.8)
    assert (described["data"]["style"], described["data"]["masks"]) == ("lvis", True)
    scores = json.loads((tmp_path / "whole" / "scores.json").read_text())["scores"]
    for kind in ("box", "mask"):
        assert all(0 <= scores[f"{kind}_{figure}"] <= 100 for figure in ("AP", "AP50", "APr", "APc", "APf"))
        # rare classes without objects enter no mean: only the rocket is scored
        mean = sum(scores[f"{kind}_{figure}"] for figure in ("APr", "APc", "APf")) / 3
        assert scores[f"{kind}_AP"] == pytest.approx(mean)

    halves = ["--output", str(tmp_path / "halves")]
    main([*command, *halves, "--max-steps", "2"])
    main([*command, *halves])
    one, other = (RunFolder(tmp_path / name).load_checkpoint()["detector"] for name in ("whole", "halves"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    capsys.readouterr()

    evaluate = ["evaluate", str(tmp_path / "whole"), "--data", data, "--images", str(tmp_path / "images")]
    main([*evaluate, "--output", str(tmp_path / "again.json"), "--device", "cpu", "--workers", "0"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(words[-3:] == ["APr", "APc", "APf"] for words in printed)
    assert json.loads((tmp_path / "again.json").read_text())["scores"] == pytest.approx(scores)

    perfect = tmp_path / "perfect.json"
    answers = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in json.loads((tmp_path / "lvis_v1_train.json").read_text())["annotations"]
    ]
    perfect.write_text(json.dumps(answers))
    page = tmp_path / "page.html"
    main(
        [
            "inspect",
            "detections",
            data,
            "--images",
            str(tmp_path / "images"),
            "--predictions",
            str(perfect),
            "--output",
            str(page),
        ]
    )
    assert page.read_text().count("rocket 0.90") == 1
