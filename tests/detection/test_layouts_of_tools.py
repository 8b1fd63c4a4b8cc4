"""The same two images and three objects, as written by many tools, are read as equal datasets."""

import pytest
from tool_cvat_and_label_studio import (
    cvat,
    cvat_subsets,
    cvat_ultralytics,
    cvat_ultralytics_subsets,
    cvat_voc,
    cvat_yolo,
    cvat_yolo_subsets,
    label_studio,
    label_studio_voc,
    label_studio_yolo,
)
from tool_exports import (
    label_img,
    label_img_yolo,
    labelme,
    labelme2coco,
    labelme_files,
    roboflow_coco,
    roboflow_voc,
    roboflow_yolo,
    ultralytics,
    x_anylabeling,
)
from tool_files import EXPECTED, objects

TOOLS = (
    cvat, cvat_subsets, cvat_voc, cvat_yolo, cvat_yolo_subsets, cvat_ultralytics, cvat_ultralytics_subsets,
    label_studio, label_studio_yolo, label_studio_voc,
    roboflow_coco, roboflow_voc, roboflow_yolo, label_img, label_img_yolo, labelme, labelme2coco, labelme_files,
    x_anylabeling, ultralytics,
)  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_exports_of_all_tools_are_read_alike(tmp_path, tool):
    sets = tool(tmp_path)
    assert objects(*sets) == EXPECTED
    for data in sets:
        assert len(data.pixels(0)) == data.images[0].height
        assert {"_background_", "things"}.isdisjoint(category.name for category in data.categories)
        harmless = {"PLACEHOLDER_CATEGORY", "NAME_FROM_ELSEWHERE"}
        assert {problem.name for problem in data.problems.counts} <= harmless
