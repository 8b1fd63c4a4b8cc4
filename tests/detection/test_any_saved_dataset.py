"""Any value in any field of a saved Hugging Face dataset: its JSON files, and any row that Arrow can hold."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st
from test_any_annotations import FEWER, VALUES, check, paths, replaced
from test_any_coco import as_number
from test_datasets_huggingface import FEATURES, IMAGE

from socodet.detection.datasets.reading import ReadingSettings
from socodet.images.photographs import photographs

SIZE = (400, 266)
BYTES = (photographs() / "chelsea.jpg").read_bytes()
ROWS = [{"bbox": [[10 + 90 * k, 20 + 40 * k, 60, 50] for k in range(4)], "category": [0, 1, 0, 1]} for _ in range(2)]
FACTS = {
    "dataset_dict.json": {"splits": ["train", "validation"]},
    "train/state.json": {"_data_files": [{"filename": "data.arrow"}], "_split": "train"},
    "train/dataset_info.json": {
        "features": {"image": {"_type": "Image"}, "objects": FEATURES["sequence of a dict"]},
        "splits": {},
    },
}
XYWH = ReadingSettings(box_form="xywh")


def write(folder, facts, rows=ROWS, parts=("train", "validation")):
    for part in parts:
        (folder / part).mkdir(exist_ok=True)
        images = pa.array([{"bytes": BYTES, "path": None}] * len(rows), IMAGE)
        table = pa.table({"image": images, "objects": rows if part == "train" else ROWS})
        file = str(folder / part / "data.arrow")
        with pa.OSFile(file, "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
        for name in ("state.json", "dataset_info.json"):
            (folder / part / name).write_text(json.dumps(FACTS[f"train/{name}"]))
    for name, content in facts.items():
        (folder / name).write_text(json.dumps(content))


def learned(read):
    return [
        [(read.categories[label - 1].name, *box) for label, box in zip(image.labels, image.boxes.tolist(), strict=True)]
        for image in read.images
    ]


@FEWER
@given(st.data())
def test_any_value_in_the_json_files(tmp_path, data):
    name = data.draw(st.sampled_from(list(FACTS)))
    content = replaced(FACTS[name], data.draw(st.sampled_from(list(paths(FACTS[name])))), data.draw(VALUES))
    write(tmp_path, {"dataset_dict.json": FACTS["dataset_dict.json"], name: content})
    for reading in (None, XYWH):
        check(tmp_path, split="train", reading=reading)
    if name.startswith("train/"):  # the other split is unaffected
        other = check(tmp_path, split="val", reading=XYWH)
        assert [len(objects) for objects in learned(other)] == [4, 4]
        assert not other.problems


@FEWER
@given(st.data())
def test_any_value_in_a_row(tmp_path, data):
    """An object is read as its row says, or skipped and counted; the other row's objects are unaffected."""
    where = data.draw(st.sampled_from(list(paths(ROWS[0]))))
    row = replaced(ROWS[0], where, data.draw(VALUES))
    try:
        write(tmp_path, {}, [row, ROWS[1]], parts=["train"])
    except (pa.ArrowException, TypeError, OverflowError, ValueError):
        assume(False)  # no Arrow column can hold it with the others
    read = check(tmp_path / "train", split="all", reading=XYWH)
    if read is None:
        return
    usual = [("cup" if k % 2 else "cat", 10 + 90 * k, 20 + 40 * k, 70 + 90 * k, 70 + 40 * k) for k in range(4)]
    first, second = learned(read)
    assert second == usual
    expected = []
    boxes, classes = (row.get(name) if isinstance(row, dict) else None for name in ("bbox", "category"))
    whole = isinstance(boxes, list) and isinstance(classes, list) and len(boxes) == len(classes)
    for box, category in zip(boxes, classes, strict=True) if whole else ():
        numbers = [as_number(side) for side in box] if isinstance(box, list) and len(box) == 4 else [np.nan]
        name = (
            {0: "cat", 1: "cup", "cat": "cat", "cup": "cup"}.get(category)
            if not isinstance(category, bool | list | dict)
            else None
        )
        x, y, w, h = numbers if np.isfinite(numbers).all() else [0] * 4
        clipped = np.float32([max(x, 0), max(y, 0), min(x + w, SIZE[0]), min(y + h, SIZE[1])]).tolist()
        if name and w > 0 and h > 0 and clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            expected.append((name, *clipped))
    assert first == expected
    assert read.problems or len(first) == len(boxes or classes or [])  # no object is dropped silently
