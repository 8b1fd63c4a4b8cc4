"""Detection datasets as `Dataset.save_to_disk` writes them."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import socodet
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.shared_images import note_on_shared
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.source import open_images

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOX = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 4, "_type": "Sequence"}
LABEL = {"names": ["cat", "cup"], "_type": "ClassLabel"}
FIELDS = {"bbox": BOX, "category": LABEL}
FEATURES = {
    "sequence of a dict": {"feature": FIELDS, "_type": "Sequence"},  # stored as one list per field
    "list of a dict": [FIELDS],
    "list of version 4": {"feature": FIELDS, "_type": "List"},
    "dict of lists": {"bbox": {"feature": BOX, "_type": "List"}, "category": {"feature": LABEL, "_type": "List"}},
}
BOXES = [[10 + 90 * k, 20 + 40 * k, 60, 50] for k in range(4)]  # xywh in 400 x 266
ROWS = [("chelsea", BOXES, [0, 1, 0, 1]), ("coffee", [[100.0, 50, 200, 200], [10.0, 150, 100, 60]], [1, 0])]


def save(folder, rows=ROWS, feature="sequence of a dict", key="category", paths=None, form="JPEG", **columns):
    """`paths`: of images stored outside the rows. `form`: Pillow's name for the format of the others."""
    folder.mkdir(parents=True)
    images = [{"bytes": encoded(name, form), "path": None} for name, *_ in rows]
    for place, path in (paths or {}).items():
        images[place] = {"bytes": None, "path": path}
    lists = [{"bbox": boxes, key: kinds} for _, boxes, kinds in rows]
    if feature.startswith("list"):
        dicts = (zip(one["bbox"], one[key], strict=True) for one in lists)
        lists = [[{"bbox": box, key: kind} for box, kind in one] for one in dicts]
    table = pa.table({"image": pa.array(images, IMAGE), "objects": lists} | columns)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    features = {"image": {"_type": "Image"}, "objects": FEATURES[feature]} | {name: {} for name in columns}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}).replace('"category"', f'"{key}"'))
    return folder


def encoded(name, form):
    file, data = photographs() / f"{name}.jpg", io.BytesIO()
    if form == "JPEG":
        return file.read_bytes()
    with Image.open(file) as image:
        image.save(data, form, **({"save_all": True, "append_images": [image]} if form == "MPO" else {}))
    return data.getvalue()


def xyxy(boxes):
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


@pytest.mark.parametrize("feature", FEATURES)
def test_boxes_and_class_names(tmp_path, feature, capsys):
    read = open_detection_set(save(tmp_path / "one", feature=feature, key="categories"), split="all")
    assert [category.name for category in read.categories] == ["cat", "cup"]
    assert [image.boxes.tolist() for image in read.images] == [xyxy(boxes) for _, boxes, _ in ROWS]
    assert [image.labels.tolist() for image in read.images] == [[1, 2, 1, 2], [2, 1]]
    assert read.pixels(1).shape == (267, 400, 3)
    assert not read.problems
    assert "x, y, width, height" in capsys.readouterr().err


FORMS = {
    "xyxy": lambda x, y, w, h: [x, y, x + w, y + h],
    "cxcywh": lambda x, y, w, h: [x + w / 2, y + h / 2, w, h],
    "xywh-shares": lambda x, y, w, h: [x / 400, y / 266, w / 400, h / 266],
    "xyxy-shares": lambda x, y, w, h: [x / 400, y / 266, (x + w) / 400, (y + h) / 266],
}


@pytest.mark.parametrize("form", FORMS)
def test_box_form_is_inferred_or_asked_for(tmp_path, form):
    wide = [[x, y, 150, 100] for x in (0, 120, 250) for y in (0, 80, 166)]
    rows = [("chelsea", [FORMS[form](*map(float, box)) for box in wide], [0] * 9)]
    save(tmp_path / "found", rows)
    (image,) = open_detection_set(tmp_path / "found", split="all").images
    assert np.allclose(image.boxes, xyxy(wide), atol=1e-3)
    rows = [("chelsea", [FORMS[form](10.0, 10.0, 50.0, 40.0)], [0])]
    save(tmp_path / "asked", rows)
    with pytest.raises(InputError, match="--box-form"):
        open_detection_set(tmp_path / "asked", split="all")
    (image,) = open_detection_set(tmp_path / "asked", split="all", reading=ReadingSettings(box_form=form)).images
    assert np.allclose(image.boxes, [[10, 10, 60, 50]], atol=1e-3)


def test_small_split_takes_the_box_form_of_the_other_splits(tmp_path):
    save(tmp_path / "train")
    save(tmp_path / "validation", [("coffee", [[10.0, 10, 20, 20]], [1])])
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert open_detection_set(tmp_path, split="val").images[0].boxes.tolist() == [[10, 10, 30, 30]]
    assert len(open_detection_set(tmp_path, split="train")) == 2


def test_box_form_is_inferred_from_all_splits(tmp_path, capsys):
    """A box that is empty as corners but valid as x, y, width, height: among many a mistake, alone ambiguous."""
    corners = [FORMS["xyxy"](x, y, 150, 100) for x in (0, 120, 250) for y in (0, 80, 166)]
    save(tmp_path / "train", [("chelsea", corners, [0] * 9)] * 3)
    save(tmp_path / "validation", [("chelsea", [[200.0, 150, 100, 60]], [0])])
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    read = open_detection_set(tmp_path, split="val")
    assert read.problems.counts == {Problem.EMPTY_BOX: 1}
    assert "corners x1, y1, x2, y2 (28 compared)" in capsys.readouterr().err
    save(tmp_path / "alone", [("chelsea", [[200.0, 150, 100, 60]] * 2, [0, 0])])
    with pytest.raises(InputError, match=r"2 boxes fit .*--box-form"):
        open_detection_set(tmp_path / "alone", split="all")


def test_image_id_and_size_columns(tmp_path):
    rows = [("chelsea", BOXES, [0, 1, 5, -1]), ("coffee", [], [])]
    save(tmp_path / "one", rows, image_id=[7, 9], width=[400, 400], height=[266, 267])
    read = open_detection_set(tmp_path / "one", split="all", reading=ReadingSettings(box_form="xywh"))
    assert [(image.image_id, image.width, image.height) for image in read.images] == [(7, 400, 266), (9, 400, 267)]
    assert read.problems.counts == {Problem.UNKNOWN_CATEGORY: 2}
    assert len(read.with_objects()) == 1


def test_repeated_ids_and_sizes_of_one_side_are_not_used(tmp_path):
    read = open_detection_set(save(tmp_path / "one", image_id=[7, 7], width=[300, 300]), split="all")
    assert [(image.image_id, image.width, image.height) for image in read.images] == [(0, 400, 266), (1, 400, 267)]


def test_image_that_cannot_be_read_is_left_out(tmp_path):
    folder = save(tmp_path / "one", paths={0: str(tmp_path / "gone.jpg")})
    read = open_detection_set(folder, split="all", reading=ReadingSettings(box_form="xywh"))
    assert read.problems.counts == {Problem.BROKEN_IMAGE: 1}
    assert [(image.image_id, image.labels.tolist()) for image in read.images] == [(1, [2, 1])]
    assert read.pixels(0).shape == (267, 400, 3)


def test_lists_of_different_lengths_are_not_paired(tmp_path):
    """A row with four boxes and three classes, and a field that is not one of objects."""
    folder = save(tmp_path / "one", [("chelsea", BOXES, [0, 1, 0]), ROWS[1]])
    (file,) = folder.glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    rows = [{**row, "area": [3.0]} for row in table["objects"].to_pylist()]
    table = table.set_column(1, "objects", [rows])
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    read = open_detection_set(folder, split="all", reading=ReadingSettings(box_form="xywh"))
    assert [image.labels.tolist() for image in read.images] == [[], [2, 1]]
    assert read.images[1].areas.tolist() == [200 * 200, 100 * 60]
    assert read.problems.counts == {Problem.BROKEN_BOX: 1}


def test_shared_images_have_the_same_content(tmp_path):
    """Images in rows have no names of their own, and one box may be around everything."""
    around = [[[0.0, 0, 400, 266]], [0]]
    sizes = {"width": [400], "height": [266]}
    reading = ReadingSettings(box_form="xywh")
    one, same, other = (
        open_detection_set(save(tmp_path / name, [(shown, *around)], **sizes), split="all", reading=reading)
        for name, shown in (("one", "chelsea"), ("same", "chelsea"), ("other", "coffee"))
    )
    assert "1 of its 1 images" in (note_on_shared(one, same) or "")
    assert note_on_shared(one, other) is None


def test_object_without_a_class_is_not_of_the_class_none(tmp_path):
    save(tmp_path / "one", [("chelsea", BOXES, [0, 1, None, 1.5])])
    info = (tmp_path / "one" / "dataset_info.json").read_text().replace('"cup"', '"None"')
    (tmp_path / "one" / "dataset_info.json").write_text(info)
    read = open_detection_set(tmp_path / "one", split="all", reading=ReadingSettings(box_form="xywh"))
    assert read.images[0].labels.tolist() == [1, 2]
    assert read.problems.counts == {Problem.UNKNOWN_CATEGORY: 2}


def test_class_numbers_may_be_floats(tmp_path):
    save(tmp_path / "one", [("chelsea", BOXES, [1.0, 2.0, 1.0, -1.0])], feature="dict of lists")
    info = json.loads((tmp_path / "one" / "dataset_info.json").read_text().replace('"ClassLabel"', '"Value"'))
    (tmp_path / "one" / "dataset_info.json").write_text(json.dumps(info))
    read = open_detection_set(tmp_path / "one", split="all", reading=ReadingSettings(box_form="xywh"))
    assert [read.categories[label - 1].name for label in read.images[0].labels] == ["1", "2", "1"]
    assert read.problems.counts == {Problem.UNKNOWN_CATEGORY: 1}


def test_text_objects_are_refused_in_one_line(tmp_path):
    save(tmp_path / "one")
    info = json.loads((tmp_path / "one" / "dataset_info.json").read_text())
    info["features"]["objects"] = {"dtype": "string", "_type": "Value"}
    (tmp_path / "one" / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="objects is a column of string"):
        open_detection_set(tmp_path / "one", split="all")


def test_missing_class_names_or_boxes(tmp_path):
    save(tmp_path / "named", [("chelsea", BOXES, ["b", "a", "b", "a"])], feature="dict of lists", key="label")
    info = json.loads((tmp_path / "named" / "dataset_info.json").read_text().replace('"ClassLabel"', '"Value"'))
    (tmp_path / "named" / "dataset_info.json").write_text(json.dumps(info))
    read = open_detection_set(tmp_path / "named", split="all", reading=ReadingSettings(box_form="xywh"))
    assert [read.categories[label - 1].name for label in read.images[0].labels] == ["b", "a", "b", "a"]
    save(tmp_path / "no", key="kind")
    with pytest.raises(InputError, match="holds bbox, kind"):
        open_detection_set(tmp_path / "no", split="all")


def test_images_option_is_refused_for_saved_datasets(tmp_path):
    with pytest.raises(InputError, match="--images"):
        open_detection_set(save(tmp_path / "set"), split="train", images=tmp_path)


def test_conversion_saves_the_images(tmp_path):
    save(tmp_path / "one")
    with pytest.raises(InputError, match=r"save.images"):
        socodet.convert(tmp_path / "one", tmp_path / "a.json")
    socodet.convert(tmp_path / "one", tmp_path / "a.json", save_images=tmp_path / "images")
    again, read = open_detection_set(tmp_path / "a.json"), open_detection_set(tmp_path / "one", split="all")
    for index in range(2):
        assert (again.pixels(index) == read.pixels(index)).all()
        assert again.images[index].boxes.tolist() == read.images[index].boxes.tolist()


@pytest.mark.parametrize(("form", "ending"), [("MPO", ".jpg"), ("JPEG2000", ".jp2"), ("PNG", ".png")])
def test_converted_images_have_usual_suffixes(tmp_path, form, ending):
    save(tmp_path / "one", form=form)
    socodet.convert(tmp_path / "one", tmp_path / "a.json", save_images=tmp_path / "images")
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {ending}
    assert len(open_images(tmp_path / "images")) == 2


def test_killed_conversion_can_be_repeated(tmp_path):
    save(tmp_path / "one")
    out, images = tmp_path / "a.json", tmp_path / "images"
    socodet.convert(tmp_path / "one", out, save_images=images)
    whole = out.read_bytes()
    out.unlink()
    one, other = sorted(images.iterdir())
    one.unlink()
    (images / f".{one.name}.partial").write_bytes(b"half")
    socodet.convert(tmp_path / "one", out, save_images=images)
    assert out.read_bytes() == whole
    assert sorted(images.iterdir()) == [one, other]
    out.unlink()
    other.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"save.images"):
        socodet.convert(tmp_path / "one", out, save_images=images)
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("difficult", [0, None])
def test_objects_marked_difficult_in_a_row_select_vocs_rules(tmp_path, difficult):
    folder = save(tmp_path / "one", feature="list of a dict")
    (file,) = folder.glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    rows = [
        [{**one, "difficult": place == difficult} for place, one in enumerate(row)]
        for row in table["objects"].to_pylist()
    ]
    table = table.set_column(1, "objects", [rows])
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    read = open_detection_set(folder, split="all")
    assert (read.style, [int(image.difficult.sum()) for image in read.images]) == ("voc", [int(difficult == 0)] * 2)
    assert open_detection_set(save(tmp_path / "other"), split="all").style == "coco"


def test_row_with_only_objects_of_no_class_is_not_background(tmp_path):
    root, reading = save(tmp_path / "set", [ROWS[0], ("coffee", BOXES, [7, 7, 7, 7])]), ReadingSettings(box_form="xywh")
    data = open_detection_set(root, split="all", reading=reading)
    assert [(len(image), image.unusable) for image in data.images] == [(4, False), (0, True)]
