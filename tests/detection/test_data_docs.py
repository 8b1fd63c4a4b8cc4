"""The trees and commands of docs/data.md: every tree can be read as a dataset, every command runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tool_files import image, text

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError

DOC = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", DOC, flags=re.M)
XML = (
    "<annotation><size><width>400</width><height>266</height></size><object><name>cat</name><bndbox>"
    "<xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox></object></annotation>"
)
CVAT_BOX = '<box label="cat" xtl="10" ytl="10" xbr="60" ybr="60"/>'
CVAT_IMAGE = f'<image name="{{}}" subset="{{}}" width="400" height="266">{CVAT_BOX}</image>'


def cvat_name(file):
    """The name and the subset of an image in `images/` or in a folder there."""
    *_, folder, name = file.split("/")
    return name, "" if folder == "images" else folder


def trees(block):
    """The files of each column's tree: a root is a word of the first line; each level is indented by two spaces."""
    lines = block.splitlines()
    starts = [word.start() for word in re.finditer(r"\S+", lines[0])]
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        above, files = [], []
        for line in lines[1:]:
            name = line[start:end].rstrip()
            if name.strip():
                depth = (len(name) - len(name.lstrip())) // 2
                above = [*above[: depth - 1], name.strip()]
                files.append("".join(above))
        yield files


TREES = [files for block in BLOCKS if block.splitlines()[0].rstrip().endswith("/") for files in trees(block)]
COMMANDS = re.findall(r"^    socodet (.+)$", DOC, flags=re.M)


def test_docs_have_trees_and_commands():
    assert len(TREES) == 28
    assert len(COMMANDS) == 2


def write(root, files):
    images = [file for file in files if file.endswith(".jpg")]
    for file in files:
        path = root / file
        if file.endswith(".jpg"):
            image("chelsea", path)
        elif file.endswith("annotations.xml"):
            named = "".join(map(CVAT_IMAGE.format, *zip(*map(cvat_name, images), strict=True)))
            text(path, f"<annotations><version>1.1</version>{named}</annotations>")
        elif file.endswith(".xml"):
            text(path, XML)
        elif file.endswith(("classes.txt", "obj.names")):
            text(path, "cat")
        elif file.endswith("obj.data"):
            text(path, "train = data/train.txt", "names = data/obj.names")
        elif file == "train.txt":
            text(path, *(f"data/{one}" for one in images))
        elif "ImageSets" in file:
            text(path, *(Path(one).stem for one in images))
        elif file.endswith(".txt"):
            text(path, "0 0.5 0.5 0.25 0.25")
        elif file.endswith(".csv"):
            text(path, f"{'b' if 'val' in file or 'test' in file else 'a'}.jpg,10,10,60,60,cat")
        elif file.endswith(".yaml"):
            text(path, "train: train/images", "val: valid/images", "names: [cat]")
        elif file.endswith(".json") and any(Path(one).stem == Path(file).stem for one in images):
            shapes = [{"label": "cat", "points": [[10, 10], [60, 60]], "shape_type": "rectangle"}]
            text(path, json.dumps({"shapes": shapes, "imagePath": "a.jpg"}))
        elif "via" in file:
            box = {"name": "rect", "x": 10, "y": 10, "width": 50, "height": 50}
            regions = [{"shape_attributes": box, "region_attributes": {"name": "cat"}}]
            name = "b.jpg" if file.startswith("val") else "a.jpg"
            text(path, json.dumps({name: {"filename": name, "regions": regions, "file_attributes": {}}}))
        elif "project" in file:
            box = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
            name = f"/data/upload/1/1a2b3c4d-{'b' if file.startswith('val') else 'a'}.jpg"
            result = [{"value": box, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}]
            text(path, json.dumps([{"id": 1, "data": {"image": name}, "annotations": [{"result": result}]}]))
        elif file.endswith(".json"):
            listed = [{"id": 1, "file_name": Path(images[0]).name, "width": 400, "height": 266}]
            notes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50]}]
            text(path, json.dumps({"images": listed, "annotations": notes, "categories": [{"id": 1, "name": "cat"}]}))


@pytest.mark.parametrize("files", [tree for tree in TREES if not any("arrow" in file for file in tree)], ids=" ".join)
def test_every_tree_is_a_dataset(tmp_path, files):
    write(tmp_path, files)
    starts = ("train", "ImageSets", "VOC2007/", "annotations/instances_t", "images/train/", "images/Train/")
    with_parts = any(file.startswith(starts) for file in files)
    read = open_detection_set(tmp_path, split="train" if with_parts else "all")
    assert len(read.with_objects())
    assert {category.name for category in read.categories} >= {"cat"}
    if with_parts and any("val" in file or "test" in file for file in files) and "val2017/" not in files:
        assert len(open_detection_set(tmp_path, split="test" if "images/test_labels.csv" in files else "val"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(tmp_path, monkeypatch, command):
    write(tmp_path / "SET", ["data.yaml", "train/images/a.jpg", "train/labels/a.txt", "valid/images/b.jpg"])
    text(tmp_path / "SET" / "valid" / "labels" / "b.txt", "0 0.5 0.5 0.25 0.25")
    monkeypatch.chdir(tmp_path)
    main(shlex.split(command))
    assert "--output" not in command or open_detection_set("train.json").images[0].boxes.tolist() == [
        [150, 99.75, 250, 166.25]
    ]


def test_unsupported_tools_are_named(tmp_path):
    for folder, file, begins in (("a", "old/a.xml", "<annotations>"), ("b", "b.json", '{"shapes": []}')):
        image("chelsea", tmp_path / folder / "a.jpg")
        text(tmp_path / folder / file, begins)
    with pytest.raises(InputError, match="CVAT"):
        open_detection_set(tmp_path / "a", split="train")
    with pytest.raises(InputError, match="LabelMe"):
        open_detection_set(tmp_path / "b", split="train")


@pytest.mark.parametrize(
    ("files", "closest", "missing"),
    [
        (["photos/a.jpg", "photos/b.txt"], "YOLO", "files of the images' names"),
        (["images/a.jpg", "labels/b.txt"], "YOLO", "files of the images' names"),
        (["photos/a.jpg", "marks/z.xml"], "XML", "have the images' names"),
        (["train/data-0.arrow", "train/state.json"], "Hugging Face", "dataset_info.json"),
        (["Annotations/a.xml", "JPEGImages/b.jpg"], "Pascal VOC's folders", "ImageSets/Main"),
    ],
)
def test_folder_in_no_known_layout_gets_the_closest_one_named(tmp_path, files, closest, missing):
    write(tmp_path, [file for file in files if not file.endswith("json")])
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=f"closest are .*{closest}[^()]*[(]missing: .*{missing}"):
        open_detection_set(tmp_path, split="train")
