"""Proposals made elsewhere: every format is read, and every malformed file is reported in one line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from socodet.errors import InputError
from socodet.proposals.foreign_formats import read_foreign
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Row, rows_to_arrow, table_schema

COCO_IMAGES = {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}]}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def as_lists(path: Path, **how: Any) -> tuple[dict[str, list[list[float]]], str]:
    found = read_foreign(path, **how)
    assert all(boxes.dtype == np.float32 and boxes.shape[1:] == (4,) for boxes in found.boxes.values())
    return {name: boxes.tolist() for name, boxes in found.boxes.items()}, found.form


def test_json_of_stems_is_read(tmp_path: Path) -> None:
    boxes = {"n01_1": [[1, 2, 30, 40], [0.5, 0, 7.25, 8]], "n01_2": []}
    assert as_lists(written(tmp_path / "p.json", boxes)) == (boxes, "xywh")
    spaced = json.dumps(boxes, indent=2).replace(":", " :\t")
    assert as_lists(written(tmp_path / "p.json", f"\n {spaced}\r\n")) == (boxes, "xywh")
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder / "1.json", {"n01_1": boxes["n01_1"]})
    written(folder / "2.json", {"n01_2": []})
    assert as_lists(folder, form="xyxy") == (boxes, "xyxy")
    written(folder / "3.json", {"n01_1": []})
    with pytest.raises(InputError, match=r"3\.json: has boxes of n01_1, .*another file"):
        read_foreign(folder)


def test_coco_results_are_sorted_by_score_and_need_the_images(tmp_path: Path) -> None:
    results = [
        {"image_id": 9, "bbox": [1, 1, 2, 2], "score": 0.25},
        {"image_id": 7, "bbox": [5, 6, 7, 8.5], "category_id": 1},
        {"image_id": 9, "bbox": [3, 3, 4, 4], "score": 0.75},
        {"image_id": 11, "bbox": [0, 0, 1, 1], "score": 1},
    ]
    file = written(tmp_path / "results.json", results)
    images = written(tmp_path / "instances.json", COCO_IMAGES)
    assert as_lists(file, coco_images=images) == (
        {"b.jpg": [[3, 3, 4, 4], [1, 1, 2, 2]], "a.jpg": [[5, 6, 7, 8.5]], "image_id 11": [[0, 0, 1, 1]]},
        "xywh",
    )
    with pytest.raises(InputError, match=r"results\.json: names images by image_id only; .*--coco-images"):
        read_foreign(file)
    with pytest.raises(InputError, match=r"nowhere\.json: no such COCO file"):
        read_foreign(file, coco_images=tmp_path / "nowhere.json")
    with pytest.raises(InputError, match=r"results\.json: is not a COCO file"):
        read_foreign(file, coco_images=file)


def test_a_coco_file_with_annotations_is_read(tmp_path: Path) -> None:
    annotations = [{"id": 1, "image_id": 7, "bbox": [1, 2, 3, 4]}, {"id": 2, "image_id": 7, "bbox": [0, 0, 9, 9]}]
    file = written(tmp_path / "all.json", {**COCO_IMAGES, "annotations": annotations})
    assert as_lists(file) == ({"a.jpg": [[1, 2, 3, 4], [0, 0, 9, 9]]}, "xywh")


def test_a_folder_of_npy_files_as_detreg_caches_them_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([[1, 2, 30, 40], [0, 0, 5, 5]], np.float32))
    np.save(tmp_path / "none.npy", np.empty((0, 4)))
    (tmp_path / "._none.npy").write_bytes(b"what macOS knows of the file")
    (tmp_path / "below").mkdir()
    np.save(tmp_path / "below" / "two.npy", np.array([[9, 9, 10, 10]]))
    boxes = {"one": [[1, 2, 30, 40], [0, 0, 5, 5]], "none": [], "below/two": [[9, 9, 10, 10]]}
    assert as_lists(tmp_path) == (boxes, "xyxy")
    assert as_lists(tmp_path, form="xywh") == (boxes, "xywh")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cut\.npy: is not an array of numbers"):
        read_foreign(tmp_path)
    np.save(tmp_path / "cut.npy", np.zeros((3, 5)))
    with pytest.raises(InputError, match=r"cut\.npy: is not a list of boxes"):
        read_foreign(tmp_path)
    np.save(tmp_path / "cut.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"cut\.npy: is not an array of numbers"):
        read_foreign(tmp_path)
    written(tmp_path / "x.json", {})
    with pytest.raises(InputError, match=r"holds \.npy and \.json files"):
        read_foreign(tmp_path)


def test_pipes_in_a_folder_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([[1, 2, 30, 40]]))
    for name in ("two.npy", "three.json"):  # opening one would block until there is a writer
        os.mkfifo(tmp_path / name)
    assert as_lists(tmp_path) == ({"one": [[1, 2, 30, 40]]}, "xyxy")


def test_no_file_of_a_folder_is_left_open(tmp_path: Path) -> None:
    for k, numbers in enumerate((np.float32, np.float64, np.int64)):
        np.save(tmp_path / f"{k}.npy", np.array([[1, 2, 30, 40]], numbers))
    found = read_foreign(tmp_path)
    assert [boxes.tolist() for boxes in found.boxes.values()] == [[[1, 2, 30, 40]]] * 3
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_parquet_of_lists_is_read(tmp_path: Path) -> None:
    boxes = [[[1, 2, 3, 4], [5.5, 6, 7, 8]], [], None]
    for column, form in (("boxes", "xyxy"), ("xyxy", "xyxy"), ("xywh", "xywh")):
        for kind in (pa.list_(pa.list_(pa.float64())), pa.large_list(pa.list_(pa.float32(), 4))):
            path = tmp_path / "p.parquet"
            pq.write_table(pa.table({"image": ["a", "b", "c"], column: pa.array(boxes, kind), "more": [1, 2, 3]}), path)
            assert as_lists(path) == ({"a": boxes[0], "b": [], "c": []}, form)


def test_a_proposal_table_is_read(tmp_path: Path) -> None:
    rows = [Row("x/a.jpg", 9, 9, np.array([[1, 2, 3, 4]], np.float32)), Row("b.jpg", 8, 8, np.empty((0, 4)), "torn")]
    path = tmp_path / "p.parquet"
    pq.write_table(rows_to_arrow(rows, table_schema(ProposalSettings())), path)
    assert as_lists(path) == ({"x/a.jpg": [[1, 2, 3, 4]], "b.jpg": []}, "xyxy")
    assert read_foreign(path).sizes == {"x/a.jpg": (9, 9), "b.jpg": (8, 8)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        *((text, "is not valid JSON") for text in ("{", '{"a": [[1, 2, 3, 4]}', "{5: []}", '{"a": []} 1')),
        *((text, "is not valid JSON") for text in ('{"a": [] "b": []}', '{"a": [],}', '{"a": [', '{"a" []}', "[")),
        *((text, "is not valid JSON") for text in ('{"annotations": [}', "{,}", '{"a": []}}')),
        ('{"a": {"annotations": []}}', "a: is not a list of boxes"),
        ("", "is not a JSON object of image names"),
        ({}, "holds no proposals"),
        (3, "is not a JSON object of image names"),
        ({"a": [[1, 2, 3]]}, "p.json: a: is not a list of boxes"),
        ({"a": [1, 2, 3, 4]}, "p.json: a: is not a list of boxes"),
        ({"a": [[1, 2, 3, 4], [1, 2, 3]]}, "p.json: a: is not a list of boxes"),
        ({"a": "box"}, "p.json: a: is not a list of boxes"),
        ({"a": None}, "p.json: a: is not a list of boxes"),
        ({"a": [{"x": 1}]}, "p.json: a: is not a list of boxes"),
        ('{"a": [[1, 2, 3, 4]], "b": [], "a": [[5, 6, 7, 8]]}', "p.json: has boxes of a twice"),
        ('{"a": [[1, 2, NaN, 4]]}', "p.json: is not valid JSON"),
        ('[{"image_id": 7, "bbox": [1, 2, NaN, 4]}]', "p.json: boxes of a.jpg: a box has a number that is not finite"),
        ("[" * 100_000, "p.json: is not valid JSON"),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 7}], "p.json: entry 1 is not a proposal"),
        ([{"bbox": [1, 2, 3, 4]}], "p.json: entry 0 is not a proposal"),
        ([{"image_id": [7], "bbox": [1, 2, 3, 4]}], "p.json: entry 0 is not a proposal"),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4], "score": "high"}], "p.json: entry 0 is not a proposal"),
        ([[7, 1, 2, 3, 4]], "p.json: entry 0 is not a proposal"),
        ([{"image_id": 7, "bbox": [1, 2]}], "p.json: boxes of a.jpg: is not a list of boxes"),
        ({"annotations": 5, **COCO_IMAGES}, "p.json: entry 0 is not a proposal"),
        ([], "holds no proposals"),
    ],
)
def test_malformed_json_is_one_line(tmp_path: Path, content: Any, complaint: str) -> None:
    file = written(tmp_path / "p.json", content)
    images = written(tmp_path / "instances.json", COCO_IMAGES)
    with pytest.raises(InputError) as error:
        read_foreign(file, coco_images=images)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_images_that_share_an_id_are_refused(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]
    file = written(tmp_path / "p.json", {"images": images, "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}]})
    with pytest.raises(InputError, match="same id"):
        read_foreign(file)


def test_malformed_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder of proposals"):
        read_foreign(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match=r"no \.npy or \.json file in it"):
        read_foreign(tmp_path)
    with pytest.raises(InputError, match=r"p\.mat: is not a known format"):
        read_foreign(written(tmp_path / "p.mat", "x"))
    with pytest.raises(InputError, match=r"p\.parquet: is not a Parquet file"):
        read_foreign(written(tmp_path / "p.parquet", "x"))
    path = tmp_path / "q.parquet"
    for table, complaint in (
        ({"image": ["a"], "x1": [1.0]}, r"has the columns image, x1; it needs"),
        ({"image": [5], "boxes": [[[1.0, 2, 3, 4]]]}, r"an image is named 5"),
        ({"image": ["a", "a"], "boxes": [[], []]}, r"has two rows of a"),
        ({"image": ["a"], "boxes": [[[1.0, 2]]]}, r"q\.parquet: a: is not a list of boxes"),
        ({"image": ["a"], "boxes": ["[1, 2, 3, 4]"]}, r"q\.parquet: a: is not a list of boxes"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(InputError, match=complaint):
            read_foreign(path)
