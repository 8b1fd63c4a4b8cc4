"""Bad annotations are counted before training, with the first example of each problem, and crash nothing."""

import json
import re
import shutil

import pytest
from photograph_sets import coco_file
from PIL import Image

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError
from socodet.images.photographs import photographs

BRIEF = ["--iterations", "1", "--batch-size", "2", "--size", "32", "--precise-bn", "0", "--workers", "0"]
BRIEF += ["--detector", "retinanet_r50_fpn", "--backbone", "resnet18", "--fpn-channels", "8", "--device", "cpu"]


def lines_before_training(capsys, data, run, *flags):
    """The lines that a successful fine-tuning prints before its first step, without the dataset's name."""
    main(["finetune", str(data), "--output", str(run), *BRIEF, *flags])
    printed = capsys.readouterr()
    assert "finished, 1 step" in printed.out
    before, _, after = printed.err.partition("finetune: ")
    assert after.startswith("1/1")
    lines = [
        line
        for line in before.splitlines()
        if not line.startswith(("note: without --val", "note: this CPU", "plan: ", "  "))
    ]
    return [line.split(": ", 1)[1] for line in lines]


def test_faults_in_a_coco_file_are_counted(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", masks=False).read_text())
    images, annotations = content["images"], content["annotations"]
    good = annotations[0]
    faults = [
        {"bbox": [5, 5, 0, 10]},
        {"bbox": [5, 5, 10, -3]},
        {"bbox": [1000, 1000, 10, 10]},
        {"bbox": [390, 390, 100, 100]},
        {"bbox": None},
        {"bbox": ["1", "2", "3", "x"]},
        {"bbox": [1, float("nan"), 3, 4]},
        {"category_id": 99},
        {"category_id": [10]},
        {"image_id": 999},
        {"iscrowd": 1},
    ]
    annotations += [good | fault | {"id": 100 + number} for number, fault in enumerate(faults)] + ["no entry"]
    images[5]["file_name"] = "/nowhere/rocket.jpg"
    images.append({"id": 7, "file_name": "wide.jpg", "width": 400, "height": 0})
    images.append({"id": [8], "file_name": "wide.jpg", "width": 400, "height": 400})
    images.append(images[0])
    (tmp_path / "set.json").write_text(json.dumps(content))
    assert sorted(lines_before_training(capsys, tmp_path / "set.json", tmp_path / "run")) == sorted(
        [
            "2 × image file missing; image left out (first: /nowhere/rocket.jpg)",
            "1 × image entry without a usable id or file name; left out (first: entry 7 of `images`)",
            "1 × image listed again under an id already used; left out (first: image id 1)",
            "1 × annotation of an image that is not listed; left out (first: annotation 109 of image 999)",
            "2 × annotation of an unknown category; left out (first: annotation 107 of image 1, category 99)",
            "4 × box missing, or not of four finite numbers; left out (first: entry 18 of `annotations`)",
            "2 × box without area, or of negative width or height; left out "
            "(first: image 1, box (5, 5, 5, 15) in 400x400)",
            "1 × box wholly outside its image; left out (first: image 1, box (1000, 1000, 1010, 1010) in 400x400)",
            "1 × box partly outside its image; clipped (first: image 1, box (390, 390, 490, 490) in 400x400)",
            "1 × crowd region; not trained on, and ignored in the scores as the rules say (first: image 1)",
        ]
    )
    problems = json.loads((tmp_path / "run" / "run.json").read_text())["problems"]
    assert problems["empty_box"] == {"count": 2, "first": "image 1, box (5, 5, 5, 15) in 400x400"}


def test_faults_in_a_voc_folder_are_counted(tmp_path, capsys):
    voc = tmp_path / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)

    def add_image(name, objects, size=(400, 400)):
        shutil.copy(photographs() / "cameraman.jpg", voc / "JPEGImages" / f"{name}.jpg")
        boxes = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            "</bndbox></object>"
            for kind, x1, y1, x2, y2 in objects
        )
        head = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        (voc / "Annotations" / f"{name}.xml").write_text(f"<annotation>{head}{boxes}</annotation>")

    add_image("good", [("person", 70, 60, 220, 380), ("wombat", 1, 1, 9, 9), ("person", 50, 50, 40, 60)])
    add_image("also", [("person", 70, 60, 220, 380), ("dog", 900, 900, 950, 950), ("dog", "left", 3, 9, 9)])
    add_image("sizeless", [("person", 70, 60, 220, 380)], size=("?", 400))
    add_image("cut", [])
    (voc / "Annotations" / "cut.xml").write_text("<annotation><object>")
    names = ["good", "also", "gone", "sizeless", "cut", "good"]
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names))
    lines = lines_before_training(
        capsys, voc / "ImageSets" / "Main" / "trainval.txt", tmp_path / "run", "--schedule", "voc_24k"
    )
    found = {re.sub(r" \(first: .*", "", line) for line in lines}
    assert found == {
        "1 × image file missing; image left out",
        "1 × annotation file missing or broken; image left out",
        "1 × image entry without a usable size; size of the image file used",
        "1 × image listed again under an id already used; left out",
        "1 × annotation of an unknown category; left out",
        "1 × box missing, or not of four finite numbers; left out",
        "1 × box without area, or of negative width or height; left out",
        "1 × box wholly outside its image; left out",
    }
    assert any(line.endswith("gone.jpg)") for line in lines)
    assert any(line.endswith("good.xml: wombat)") for line in lines)


@pytest.mark.parametrize("name", [b"ca\xe9", rb"ca\udc41", rb"\ud83d"])
def test_class_name_that_is_not_utf_8_is_refused(tmp_path, name):
    """Nothing written later, such as a label, a model card or a report, could hold the name."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    file = tmp_path / "train.json"
    file.write_bytes(
        b'{"images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}], "annotations": [], '
        b'"categories": [{"id": 5, "name": "' + name + b'"}]}'
    )
    with pytest.raises(InputError, match=r"train: the name of category 5, ") as caught:
        open_detection_set(file)
    str(caught.value).encode("ascii")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"images": [', "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe{", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", "has no list `images`"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "lists no usable image"),
        (b'{"images": [], "annotations": [], "categories": [{"name": "a"}]}', "a category is unusable"),
    ],
)
def test_unusable_file_is_one_line(tmp_path, capsys, content, problem):
    (tmp_path / "set.json").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["finetune", str(tmp_path / "set.json"), "--output", str(tmp_path / "run"), *BRIEF])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not (tmp_path / "run").exists()


def test_wrong_sizes_and_broken_images_are_reported_before_training(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", masks=False).read_text())
    content["images"][0]["width"] += 7
    (tmp_path / "no.jpg").write_text("not an image")
    content["images"][1]["file_name"] = str(tmp_path / "no.jpg")
    (tmp_path / "set.json").write_text(json.dumps(content))
    (line,) = lines_before_training(capsys, tmp_path / "set.json", tmp_path / "run")
    assert re.fullmatch(r"2 of 6 × image file unreadable, or .* \(first: .*: 400x400, annotated as 407x400\)", line), (
        line
    )


def test_dataset_whose_images_all_have_the_wrong_size_is_refused(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", masks=False).read_text())
    for image in content["images"]:
        image["width"] += 7
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        main(["finetune", str(tmp_path / "set.json"), "--output", str(tmp_path / "run"), *BRIEF])
    assert ended.value.code == 2
    assert re.search(
        r"none of its 6 images can be used \(first: .*: 400x400, annotated as 407x400\)", capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_images_found_broken_during_training_are_replaced_and_named(tmp_path, capsys):
    content = json.loads(coco_file(tmp_path / "set.json", ("hopper", "chelsea"), masks=False).read_text())
    whole = (photographs() / "hopper.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:700])  # its header is readable
    content["images"][0]["file_name"] = str(tmp_path / "cut.jpg")
    (tmp_path / "set.json").write_text(json.dumps(content))
    main(["finetune", str(tmp_path / "set.json"), "--output", str(tmp_path / "run"), *BRIEF])
    assert re.search(r"left out:\n .*cut\.jpg: .*", capsys.readouterr().err)
