"""Unreadable images in real runs: counted once, and listed with the reason in the run's folder."""

import json

import pytest
from photograph_sets import coco_file

from socodet.cli import main
from socodet.images.photographs import photographs


def words(*lines):
    return " ".join(lines).split()


ON = words(
    "--backbone timm/test_resnet --fpn-channels 8 --head-channels 8 --representation-size 8",
    "--device cpu --workers 0",
)
PRETRAINING = words(
    "--recipe tiny --epochs 1 --batch-size 2 --keep-every 1",
    "--views.0.size 32 --views.1.size 32 --views.2.size 32",
)
FINETUNING = words(
    "--detector faster_rcnn_fpn --schedule voc_24k --iterations 1 --batch-size 2 --size 32",
    "--rois-per-image 4 --precise-bn 0",
)


def listed(run):
    return [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]


def test_pretraining_lists_unreadable_images(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name in ("astronaut", "chelsea"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes((photographs() / f"{name}.jpg").read_bytes())
    (tmp_path / "images" / "broken.jpg").write_bytes(b"junk")
    main(["pretrain", str(tmp_path / "images"), "--output", str(tmp_path / "run"), *PRETRAINING, *ON])
    assert "1 image could not be read" in capsys.readouterr().err
    (line,) = listed(tmp_path / "run")
    assert line["path"] == "broken.jpg"
    assert "known format" in line["reason"]
    assert (tmp_path / "run/checkpoints/epoch-0001.pt").is_file()


def test_finetuning_lists_an_image_of_both_splits_once(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", ("astronaut", "chelsea"), masks=False).read_text())
    for image in content["images"]:
        name = image["file_name"].rpartition("/")[2]
        (tmp_path / name).write_bytes((photographs() / name).read_bytes())
        image["file_name"] = name
    (tmp_path / "chelsea.jpg").write_bytes((tmp_path / "chelsea.jpg").read_bytes()[:700])
    (tmp_path / "set.json").write_text(json.dumps(content))
    data = str(tmp_path / "set.json")
    main(["finetune", data, "--val", data, "--output", str(tmp_path / "run"), *FINETUNING, *ON])
    assert "1 image could not be read" in capsys.readouterr().err
    (line,) = listed(tmp_path / "run")
    assert line["path"].endswith("chelsea.jpg")
    assert "truncated" in line["reason"]


def test_if_no_image_can_be_read_one_reason_is_given(tmp_path, capsys):
    """Here the cause is a flag, not the files, so advice to check the files would mislead."""
    (tmp_path / "images").mkdir()
    for name in ("astronaut", "chelsea"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes((photographs() / f"{name}.jpg").read_bytes())
    data = str(coco_file(tmp_path / "set.json", ("astronaut", "chelsea"), masks=False))
    detector = str(tmp_path / "detector")
    main(["finetune", data, "--val", data, "--output", detector, *FINETUNING, *ON])
    images = str(tmp_path / "images")
    for command in (
        ["propose", images, "--output", str(tmp_path / "boxes.parquet"), "--workers", "1"],
        ["pack", images, "--output", str(tmp_path / "shards"), "--workers", "1"],
        ["pretrain", images, "--output", str(tmp_path / "planned"), "--dry-run"],
        ["pretrain", images, "--output", str(tmp_path / "run"), *PRETRAINING, *ON],
        ["pretrain", images, "--output", str(tmp_path / "online"), "--proposals", "online", *PRETRAINING, *ON],
        ["finetune", data, "--val", data, "--output", str(tmp_path / "again"), *FINETUNING, *ON],
        ["predict", detector, images, "--output", str(tmp_path / "found"), "--device", "cpu"],
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*command, "--bands", "4", "3", "2"])
        error = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2, command
        assert "jpg: has 3 bands, and --bands asks for 4" in error, command
