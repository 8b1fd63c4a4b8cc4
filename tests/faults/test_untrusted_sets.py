"""Malicious annotated datasets: paths to other places, code, and descriptions that expand without end."""

import json

import pytest
from malicious import PHOTOGRAPH, SCRIPT, refused

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.images.reading import PixelSettings, read_images_as
from socodet.images.source import open_images


def coco(folder, names):
    (folder / "set.json").write_text(
        json.dumps(
            {
                "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
                "annotations": [
                    {"id": k, "image_id": k, "category_id": 1, "bbox": [9, 9, 50, 50]} for k in range(len(names))
                ],
                "categories": [{"id": 1, "name": SCRIPT}],
            }
        )
    )
    return folder / "set.json"


def yolo(folder, names):
    (folder / "train.txt").write_text("\n".join(names))
    (folder / "data.yaml").write_text("train: train.txt\nnames: [cat]")
    return folder


def darknet(folder, names):
    (folder / "train.txt").write_text("\n".join(names))
    (folder / "obj.names").write_text("cat")
    (folder / "obj.data").write_text("train = train.txt\nnames = obj.names")
    return folder


@pytest.mark.parametrize("form", [coco, yolo, darknet], ids=lambda form: form.__name__)
def test_images_far_from_a_dataset_are_read_only_on_request(folder, outside, form):
    near = folder.parent / "images" / "b.jpg"
    near.parent.mkdir()
    for file in (folder / "a.jpg", near):
        file.write_bytes(PHOTOGRAPH)
        file.with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2")
    far = ["../../private.jpg", str(outside / "private.jpg"), f"x/../../../{'../' * 20}{outside}/private.jpg"]
    given = form(folder, ["a.jpg", "../images/b.jpg", str(near), *far])
    read = open_detection_set(given, split="train")
    assert {one.file.resolve() for one in read.images} == {folder / "a.jpg", near}
    assert read.problems.counts[Problem.NAME_ASTRAY] == len(far)
    with read_images_as(PixelSettings(outside_images=True)):
        read = open_detection_set(given, split="train")
        assert Problem.NAME_ASTRAY not in read.problems.counts
        assert str(outside / "private.jpg") in {str(one.file.resolve()) for one in read.images}
    given = form(folder, far)
    assert "--outside-images" in refused(lambda: open_detection_set(given, split="train"))
    if form is coco:
        assert "--outside-images" in refused(open_images, given)
        with read_images_as(PixelSettings(outside_images=True)):
            assert open_images(coco(folder, far[:1])).read(0) == PHOTOGRAPH


@pytest.mark.parametrize("written", ["private.jpeg", "private.JPG"])
@pytest.mark.parametrize("form", [coco, yolo], ids=lambda form: form.__name__)
def test_images_far_away_are_not_read_under_another_suffix_either(folder, outside, form, written):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    far = [f"../../{written}", str(outside / written)]
    given = form(folder, ["a.jpg", *far])
    read = open_detection_set(given, split="train")
    assert [one.file.name for one in read.images] == ["a.jpg"]
    assert read.problems.counts[Problem.NAME_ASTRAY] == len(far)
    with read_images_as(PixelSettings(outside_images=True)):
        assert "private.jpg" in {one.file.name for one in open_detection_set(given, split="train").images}
    refused(lambda: open_detection_set(form(folder, far), split="train"))
    if form is coco:  # read as a list of images
        for name in far:
            assert "--outside-images" in refused(open_images, coco(folder, [name]))
        with read_images_as(PixelSettings(outside_images=True)):
            assert open_images(coco(folder, far[:1])).read(0) == PHOTOGRAPH


@pytest.mark.parametrize("form", [coco, yolo], ids=lambda form: form.__name__)
def test_dots_in_names_are_resolved_after_links(folder, outside, tmp_path_factory, form):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    link = tmp_path_factory.mktemp("links") / "set"
    link.symlink_to(folder)
    read = open_detection_set(form(link, ["a.jpg", "../../private.jpg"]), split="train")
    assert [one.file.name for one in read.images] == ["a.jpg"]
    assert read.problems.counts[Problem.NAME_ASTRAY] == 1


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ("train: ../images", True),
        ("train: images/train", True),
        ("path: ../images\ntrain: .", True),
        ("path: .\ntrain: ../images", True),
        ("train: {outside}/inside/images", True),
        ("train: ../..", False),
        ("path: {outside}\ntrain: elsewhere", False),
        ("train: {outside}/elsewhere", False),
        ("path: /\ntrain: {outside}/elsewhere", False),
        ("train: [../images, ../../elsewhere]", False),
    ],
)
def test_a_description_may_name_only_usual_folders(folder, tmp_path_factory, written, usual):
    outside = folder.parent.parent
    elsewhere = tmp_path_factory.mktemp("far") / "elsewhere"
    (outside / "inside" / "elsewhere").symlink_to(elsewhere)  # a link counts as its target
    for place in (folder / "images" / "train", folder.parent / "images", elsewhere):
        place.mkdir(parents=True)
        (place / "a.jpg").write_bytes(PHOTOGRAPH)
        (place / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    far = written.replace("../../elsewhere", str(elsewhere)).replace("{outside}/elsewhere", str(elsewhere))
    far = far.replace("path: {outside}\ntrain: elsewhere", f"path: {elsewhere.parent}\ntrain: elsewhere")
    (folder / "data.yaml").write_text(f"{far.format(outside=outside)}\nnames: [cat]")
    if usual:
        assert len(open_detection_set(folder, split="train")) == 1
        return
    assert "--outside-images" in refused(lambda: open_detection_set(folder, split="train"))
    with read_images_as(PixelSettings(outside_images=True)):
        assert len(open_detection_set(folder, split="train")) >= 1


def test_class_names_are_not_read_from_other_files(folder, outside):
    (folder.parent / "a.txt").write_text("secret")
    darknet(folder, ["a.jpg"])
    for name in ("/etc/passwd", "../../private.jpg", "/etc/hostname.names"):
        (folder / "obj.data").write_text(f"train = train.txt\nnames = {name}")
        refused(lambda: open_detection_set(folder, split="train"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{sentinel}]]"),
        ("data.yaml", "train: !!python/object/new:os.system ['touch {sentinel}']\nnames: [cat]"),
        ("data.yaml", "a: &a [x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nnames: [*c]\ntrain: *c"),
        ("data.yaml", "train: " + "[" * 600),
        ("set.json", '{{"images": ' + "[" * 100_000),
        (
            "set.json",
            '{{"images": [{{"id": 1' + "0" * 5000 + ', "file_name": "a.jpg"}}], "annotations": [], "categories": []}}',
        ),
    ],
)
def test_descriptions_that_run_code_or_expand_forever_are_refused(folder, outside, name, content):
    (folder / name).write_text(content.format(sentinel=outside / "sentinel"))
    refused(lambda: open_detection_set(folder / name, split="train"))
    if name == "set.json":
        refused(open_images, folder / name)


def test_xml_that_expands_or_reads_a_file_is_refused(folder, outside):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    (folder / "secret").write_text("cat")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    grows = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    for entities, used in ((f'<!ENTITY e0 "x">{grows}', "&e11;"), (f'<!ENTITY f SYSTEM "{folder}/secret">', "&f;")):
        (folder / "a.xml").write_text(
            f"<!DOCTYPE annotation [{entities}]><annotation><object><name>{used}</name>{box}</object></annotation>"
        )
        refused(lambda: open_detection_set(folder, split="train"))


def test_a_dataset_given_by_a_link_is_near_its_own_images(folder, outside):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    coco(folder, [str(folder / "a.jpg"), str(outside / "private.jpg")])
    link = outside / "inside" / "deep" / "down"
    link.parent.mkdir()
    link.symlink_to(folder)
    read = open_detection_set(link / "set.json")
    assert [one.file.name for one in read.images] == ["a.jpg"]
    assert read.problems.counts[Problem.NAME_ASTRAY] == 1


def test_a_converted_dataset_far_from_its_images_is_read_on_request(folder, tmp_path_factory, capsys):
    (folder / "a.jpg").write_bytes(PHOTOGRAPH)
    far = tmp_path_factory.mktemp("far") / "deep" / "coco.json"
    main(["convert", str(coco(folder, ["a.jpg"])), "--output", str(far)])
    assert "1 of its images are far from it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", str(far), "--check"])
    assert "--outside-images" in capsys.readouterr().err
    main(["convert", str(far), "--check", "--outside-images"])
    assert "1 image" in capsys.readouterr().out
