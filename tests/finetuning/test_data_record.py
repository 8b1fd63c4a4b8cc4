"""A run goes on only with the data that it began with: its masks and crowd regions too, if the run recorded them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hand_made_sets import made_image, made_set

from socodet.detection.datasets.masks import as_rle, box_outline
from socodet.errors import InputError
from socodet.finetuning.run import FinetuneRecipe, prepare_folder
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.settings import ModelSettings
from socodet.training.run_folder import RunFolder

BOXES = [(0, 0, 40, 40, 1), (50, 50, 90, 80, 1, "crowd")]
OUTLINES = [box_outline(box[:4]) for box in BOXES]


def data(objects=BOXES, masks=OUTLINES, *, style="coco", **more):
    return made_set([made_image(1, objects, masks=masks, **more)], style)


def triangles():
    return [[np.array([0, 0, 40, 0, 0, 40], float)], OUTLINES[1]]


def begin(folder, train, val=None, *, detector="mask_rcnn_r50_fpn"):
    settings = FinetuneSettings(detector, iterations=2)
    recipe = FinetuneRecipe(settings, ModelSettings(), settings.resolved_schedule(1))
    prepare_folder(RunFolder(folder), recipe, train, None, val=val, overwrite=False)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "step-00000001.pt").touch()


def forget(folder, *names):
    """Makes the record one of an earlier version, without these fields."""
    record = json.loads((folder / "run.json").read_text())
    for part in ("data", "val"):
        for name in names:
            record[part].pop(name)
    (folder / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (data([BOXES[0], BOXES[1][:5]]), "flags"),
        (data([BOXES[0], (*BOXES[1][:5], "difficult")]), "flags"),
        (data(masks=triangles()), "masks"),
        (data(masks=[[*OUTLINES[0], *OUTLINES[1]], OUTLINES[1]]), "masks"),
    ],
)
def test_run_is_not_resumed_with_other_masks_or_crowd_regions(changed, what, tmp_path):
    begin(tmp_path / "run", data(), data())
    begin(tmp_path / "run", data(), data())
    with pytest.raises(
        InputError, match=rf"other settings: {what} of the annotated dataset \(not the same as there\);"
    ):
        begin(tmp_path / "run", changed, data())
    with pytest.raises(InputError, match=rf"other settings: {what} of the dataset to score on \(not the same as there"):
        begin(tmp_path / "run", data(), changed)


def test_a_run_of_an_earlier_version_resumes(tmp_path):
    begin(tmp_path / "run", data(), data())
    forget(tmp_path / "run", "flags_sha256", "masks_sha256")
    changed = data([BOXES[0], BOXES[1][:5]], triangles())
    begin(tmp_path / "run", changed, changed)
    with pytest.raises(
        InputError, match=r"other settings: contents of the annotated dataset \(not the same as there\);"
    ):
        begin(tmp_path / "run", data([BOXES[1], BOXES[0]]), data())


def test_masks_do_not_matter_to_a_detector_of_boxes(tmp_path):
    begin(tmp_path / "run", data(), data(), detector="faster_rcnn_r50_fpn")
    changed = data(masks=triangles())
    begin(tmp_path / "run", changed, changed, detector="faster_rcnn_r50_fpn")
    with pytest.raises(InputError, match="flags of the annotated dataset"):
        begin(tmp_path / "run", data([BOXES[0], BOXES[1][:5]]), data(), detector="faster_rcnn_r50_fpn")


def test_run_lengths_are_the_same_mask_as_a_list_or_a_string(tmp_path):
    listed = {"size": [100, 100], "counts": [0, 40, 9960]}
    text = {**as_rle(listed, 100, 100)}
    text["counts"] = text["counts"].decode()
    first, second = (data(masks=[mask, OUTLINES[1]]) for mask in (listed, text))
    begin(tmp_path / "run", first, first)
    begin(tmp_path / "run", second, second)
    with pytest.raises(InputError, match="masks of the annotated dataset"):
        begin(tmp_path / "run", data(masks=[{**listed, "counts": [0, 41, 9959]}, OUTLINES[1]]), first)


def test_lists_of_lvis_count(tmp_path):
    began = data(style="lvis", absent=[1])
    begin(tmp_path / "run", began, began)
    changed = replace(began, images=[replace(began.images[0], absent=frozenset())])
    with pytest.raises(InputError, match="flags of the dataset to score on"):
        begin(tmp_path / "run", began, changed)
