"""Detectors fine-tuned from every row of an ablation; their AP is added to its table once, despite interruptions."""

import csv
import dataclasses
import json
import re
import shutil
import signal

import pytest
import torch
from photograph_sets import link_photographs

import socodet.studies.ablation.running as running
import socodet.studies.finetuning_runs as finetuning_runs
import socodet.studies.pretraining_runs as pretraining_runs
from socodet.cli import run_command
from socodet.errors import InputError
from socodet.finetuning.samples import TrainingImages
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.photographs import photographs
from socodet.studies.ablation.budget import Budget
from socodet.studies.ablation.running import ablate, row_detectors
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks", "figures_unrendered")

SMALL = Budget(epochs=1, batch_size=4, base_lr=10, backbone="resnet18", width=1 / 32, size=48, limit=6)
"""One step per row."""
FLAGS = ["--epochs", "1", "--batch-size", "4", "--base-lr", "10", "--backbone", "resnet18", "--width", "0.03125"]
FLAGS += ["--size", "48", "--limit", "6"]
HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)
BRIEF = FinetuneSettings(iterations=2, batch_size=2, size=32, precise_bn=1)
OBJECTS = {
    "hopper": (341, 400, (30, 20, 290, 375)),
    "cameraman": (400, 400, (70, 60, 150, 320)),
    "chelsea": (400, 266, (45, 5, 280, 255)),
}
"""Width and height of each photograph, and x, y, w, h of its objects."""


def coco_file(path, names=tuple(OBJECTS), *, masks=True):
    """A COCO file of these photographs; masks are the objects' boxes."""
    link_photographs(path.parent)
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        width, height, (x, y, w, h) = OBJECTS[name]
        file_name = f".photographs/{name}.jpg"
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        if masks:
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(entry)
    categories = [{"id": 1, "name": "thing"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def voc_folder(root):
    """The same photographs in Pascal VOC's layout, which has boxes only; train and test are the same."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / "VOC2007" / part).mkdir(parents=True)
    for name, (width, height, (x, y, w, h)) in OBJECTS.items():
        shutil.copy(photographs() / f"{name}.jpg", root / "VOC2007" / "JPEGImages")
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + w, y + h), strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        thing = f"<object><name>person</name><bndbox>{box}</bndbox></object>"
        (root / "VOC2007" / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{thing}</annotation>")
    for split in ("trainval", "test"):
        names = "".join(f"{name}\n" for name in OBJECTS)
        (root / "VOC2007" / "ImageSets" / "Main" / f"{split}.txt").write_text(names)
    return root


@pytest.fixture(autouse=True, scope="module")
def _one_draw():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "DRAWS", 1)
        yield


@pytest.fixture(scope="module")
def pretrained_rows(tmp_path_factory):
    """An ablation of three rows, without fine-tuning."""
    folder = tmp_path_factory.mktemp("rows") / "table5d"
    ablate("table5d", photographs(), folder, SMALL, execution=HERE, show_progress=False)
    return folder


@pytest.fixture
def rows(pretrained_rows, tmp_path, monkeypatch):
    """A copy of it; pretraining again would fail the test."""

    def pretrain(*_args, **_kwargs):
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(pretraining_runs, "pretrain", pretrain)
    return shutil.copytree(pretrained_rows, tmp_path / "rows")


@pytest.fixture
def boxes(tmp_path):
    return coco_file(tmp_path / "boxes.json", masks=False)


def transfer_of(data, **changes):
    settings = dataclasses.replace(BRIEF, **changes)
    return row_detectors(data, data, settings=settings, execution=HERE, show_progress=False)


def go_on(folder, finetune=None, **options):
    return ablate(
        "table5d", photographs(), folder, SMALL, finetune=finetune, execution=HERE, show_progress=False, **options
    )


def scores_of(folder, row):
    return json.loads((folder / row / "seed-0-transfer" / "scores.json").read_text())["scores"]


def test_every_encoder_of_table_4_initialises_the_same_mask_rcnn(tmp_path, capsys, monkeypatch):
    family_rows = running.family_rows
    monkeypatch.setattr(running, "family_rows", lambda *asked: [family_rows(*asked)[index] for index in (0, 1, 2, 6)])
    data = tmp_path / "coco"
    data.mkdir()
    coco_file(data / "train.json")
    coco_file(data / "val.json", ("chelsea",))
    brief = dataclasses.replace(BRIEF, iterations=1, precise_bn=0, rois_per_image=5)
    transfer = row_detectors(data, settings=brief, execution=HERE)
    table = ablate(
        "table4", photographs(), tmp_path / "out", SMALL, finetune=transfer, execution=HERE, show_progress=False
    )
    assert all(row.finished for row in table.rows)
    tuned = [
        json.loads(path.read_text())["recipe"]["settings"] for path in (tmp_path / "out").glob("*/*-transfer/run.json")
    ]
    assert [settings["rois_per_image"] for settings in tuned] == [5] * 4
    reports = re.findall(r"  loaded  (.*)\n  fresh   (.*)\n(  left over.*\n)?", capsys.readouterr().err)
    body, fpn, head = "backbone.body (120 tensors)", "backbone.fpn (48 tensors)", "roi_heads.box_head (26 tensors)"
    expected = [[body], [body], [body, fpn], [body, fpn, head]]  # whole image, C5, no head, everything
    assert [loaded.split(", ") for loaded, _, _ in reports] == expected
    for (_, fresh, left_over), loaded in zip(reports, expected, strict=True):
        assert not left_over
        assert {fpn, head} - set(loaded) == {fpn, head} & set(fresh.split(", "))
    recipes = [
        json.loads((table.folder / row.name / "seed-0-transfer" / "run.json").read_text())["recipe"]
        for row in table.rows
    ]
    assert {recipe["settings"]["detector"] for recipe in recipes} == {"mask_rcnn_fpn"}
    for recipe in recipes:  # sizes come from the budget, not from the row
        sizes = [recipe["model"][name] for name in ("backbone", "fpn_channels", "head_channels", "representation_size")]
        assert sizes == ["resnet18", 8, 8, 32]
        assert recipe["schedule"] == recipes[0]["schedule"]
    for row in table.rows:
        scores = scores_of(table.folder, row.name)
        assert row.transfer == {"AP box": scores["box_AP"], "AP mask": scores["mask_AP"]}
        assert 0 <= row.transfer["AP box"] <= 100
    header, *lines = csv.reader(table.csv.open())
    assert header[-3:] == ["AP box", "AP mask", "status"]
    assert [line[-3] for line in lines] == [f"{row.transfer['AP box']:.1f}" for row in table.rows]
    shared = "finetune_detector mask_rcnn_fpn, finetune_train coco train, finetune_val coco val, "
    shared += "finetune_schedule auto, finetune_iterations 1, finetune_batch_size 2, finetune_lr 0.0025"
    assert f"{shared}, finetune_size 32" in table.markdown.read_text()
    titles = [panel.title for panel in table.panels()]
    assert titles[1:3] == ["AP box", "AP mask"]


def test_finetuning_is_added_to_finished_rows_once_and_only_with_the_same_settings(rows, tmp_path, monkeypatch, capsys):
    data = voc_folder(tmp_path / "voc")
    argv = ["ablate", "table5d", "--images", str(photographs()), "--output", str(rows), *FLAGS, "--device", "cpu"]
    argv += ["--workers", "0", "--finetune", str(data), "--schedule", "voc_24k", "--finetune.batch-size", "2"]
    argv += ["--finetune.size", "32", "--finetune.precise-bn", "0", "--finetune.iterations"]
    run_command([*argv, "1"])
    assert "3 of 3 rows finished, 0 diverged" in capsys.readouterr().out
    header, *lines = csv.reader((rows / "table5d.csv").open())
    assert header[-2:] == ["AP box", "status"]  # VOC has no masks
    assert [line[-1] for line in lines] == ["finished"] * 3
    assert [line[header.index("finetune_detector")] for line in lines] == ["faster_rcnn_fpn"] * 3
    for line in lines:
        assert line[-2] == f"{scores_of(rows, line[0])['box_AP']:.1f}"

    monkeypatch.setattr(finetuning_runs, "finetune", lambda *_args, **_kwargs: pytest.fail("fine-tuned again"))
    before = (rows / "table5d.csv").read_bytes()
    note = json.loads((rows / "ablation.json").read_text())
    note["finetune"]["names"] = ["of old", "or moved since"]
    (rows / "ablation.json").write_text(json.dumps(note))
    run_command([*argv, "1"])
    assert (rows / "table5d.csv").read_bytes() == before
    assert go_on(rows).rows[0].transfer == {"AP box": scores_of(rows, "table5d_0980")["box_AP"]}
    with pytest.raises(
        InputError, match=r"fine-tuned differently: --iterations \(2 now, 1 there\); .* remove .*transfer"
    ):
        run_command([*argv, "2"])
    assert (rows / "table5d.csv").read_bytes() == before


def test_an_interrupted_fine_tuning_is_resumed_by_the_same_call(rows, boxes, tmp_path, monkeypatch):
    whole = go_on(shutil.copytree(rows, tmp_path / "whole"), transfer_of(boxes))
    fetch, fetched = TrainingImages.__getitem__, []

    def interrupting(self, place):
        fetched.append(place)
        # The first row uses two batches to scale the head, two steps and a precise-BN batch; the second uses its
        # scaling batches, then its first image.
        if len(fetched) == (4 + 4 + 2) + 4 + 1:
            signal.raise_signal(signal.SIGTERM)
        return fetch(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingImages, "__getitem__", interrupting)
        patch.setattr(finetuning_runs, "keep_only_best", lambda folder: None)
        stopped = go_on(rows, transfer_of(boxes))
    assert stopped.stopped_by == "SIGTERM"
    assert [row.status for row in stopped.rows] == ["finished", "fine-tuning step 1 of 2", "fine-tuning not begun"]
    assert [row.finished for row in stopped.rows] == [True, False, False]
    assert [dict(row.transfer) for row in stopped.rows[1:]] == [{}, {}]
    (rows / "table5d_0980" / "seed-0-transfer.json").unlink()  # as if it had been killed before writing this
    resumed = go_on(rows, transfer_of(boxes))
    assert resumed.rows == whole.rows
    name = "table5d_0990"
    one, other = (
        RunFolder(folder / name / "seed-0-transfer").load_best()["detector"] for folder in (rows, whole.folder)
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_diverged_fine_tuning_is_recorded_and_the_others_continue(rows, boxes):
    table = go_on(rows, transfer_of(boxes, base_lr=1e12, iterations=4))
    assert all(re.fullmatch(r"fine-tuning diverged at step [1-4]", row.status) for row in table.rows)
    assert [(row.diverged, row.finished, row.pretrained, dict(row.transfer)) for row in table.rows] == [
        (True, False, True, {})
    ] * 3
    assert all("recall" in row.figures for row in table.rows)
    assert table.csv.read_text().count("fine-tuning diverged") == 3


def test_impossible_fine_tuning_is_refused_before_any_training(boxes, tmp_path):
    argv = ["ablate", "table5d", "--images", str(photographs()), "--output", str(tmp_path / "out"), *FLAGS]
    tune = ["--finetune", str(boxes), "--schedule", "coco_1x"]
    empty = tmp_path / "empty.json"
    content = json.loads(boxes.read_text())
    empty.write_text(json.dumps({**content, "annotations": []}))
    few = tmp_path / "few.json"
    few.write_text(json.dumps({**content, "annotations": content["annotations"][:1]}))
    part = ["--finetune.fraction", "0.3", "--seeds", *map(str, range(6))]
    both = ["--finetune.val", str(boxes), "--finetune.iterations", "1", "--finetune.epochs", "1"]
    for flags, problem in (
        (tune, r"boxes: has no validation split; give --finetune\.val"),
        (tune[:2], "--finetune needs --schedule"),
        (tune[2:], "have no effect without --finetune"),
        (["--finetune.size", "64"], "have no effect without --finetune"),
        ([*tune[:3], "coco_3x"], "coco_3x"),
        ([*tune, "--finetune.val", str(tmp_path / "none.json")], "no such file or folder"),
        ([*tune, "--finetune.val", str(empty)], "empty: no image has an object to find"),
        (["--finetune", str(few), *tune[2:], *both[:2], *part], r"fraction 0\.3 and seed \d no image has an object"),
        ([*tune, *both], "--iterations and --epochs: give one of them"),
        ([*tune, *both[:2], "--finetune.size", "8"], "size must be at least 32"),
    ):
        with pytest.raises(InputError, match=problem) as caught:
            run_command([*argv, *flags])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
