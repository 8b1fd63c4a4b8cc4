import shutil

import numpy as np
import pytest
from tool_files import image, text

import socodet
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import Problem
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.splits import MissingSplitError
from socodet.errors import InputError

LINE = "0 0.5 0.5 0.25 0.25"


def write(root, names="names: [cat, no]", train="train: images/train", **labels):
    for name, lines in labels.items():
        image("chelsea", root / "images" / "train" / f"{name}.jpg")
        if lines is not None:
            text(root / "labels" / "train" / f"{name}.txt", *lines)
    text(root / "data.yaml", train, names)
    return root


def test_outlines_are_masks(tmp_path):
    write(tmp_path, a=["1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"])
    read = open_detection_set(tmp_path, split="train")
    assert read.has_masks
    assert read.images[0].boxes.tolist() == [[100, 66.5, 300, 199.5]]
    assert read.images[0].areas.tolist() == [200 * 133]
    assert read.categories[1].name == "no"  # plain YAML would read `no` as false
    assert abs(int(read.target(0)["masks"].sum()) - 200 * 133) <= 400


def test_files_that_name_classes_differently_are_refused(tmp_path):
    for part, names in (("train", ("cat", "dog")), ("val", ("dog", "cat"))):
        image("chelsea", tmp_path / part / "images" / "a.jpg")
        text(tmp_path / part / "labels" / "a.txt", LINE)
        text(tmp_path / part / "labels" / "classes.txt", *names)
    with pytest.raises(InputError, match="names other classes"):
        open_detection_set(tmp_path, split="train")
    text(tmp_path / "val" / "labels" / "classes.txt", "cat", "dog", "")
    assert [one.name for one in open_detection_set(tmp_path, split="val").categories] == ["cat", "dog"]


def test_data_yaml_above_names_only_the_classes_of_its_own_splits(tmp_path, capsys):
    for name in ("one", "other"):
        image("chelsea", tmp_path / name / "images" / "a.jpg")
        text(tmp_path / name / "labels" / "a.txt", LINE)
    text(tmp_path / "data.yaml", "train: one/images", "names: [cat]")
    assert [one.name for one in open_detection_set(tmp_path / "one", split="all").categories] == ["cat"]
    assert [one.name for one in open_detection_set(tmp_path / "other", split="all").categories] == ["0"]


def test_yaml_aliases_that_would_fill_memory_are_refused(tmp_path):
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    for field in ("path", "train", "nc"):
        text(tmp_path / "data.yaml", "l0: &l0 [x]", *levels, f"{field}: [*l29]", "val: images", "names: [cat]")
        with pytest.raises(InputError, match=field):
            open_detection_set(tmp_path / "data.yaml", split="val")


def test_repeated_lines_are_one_object(tmp_path):
    """A conversion that appends and was run twice repeats them; one box with two classes is two objects."""
    write(tmp_path, a=[LINE, "1 0.5 0.5 0.25 0.25", LINE, "1.0 0.50 0.5 0.25 0.25"])
    data = open_detection_set(tmp_path, split="train")
    assert data.images[0].labels.tolist() == [1, 2]
    assert data.problems.counts == {Problem.REPEATED_LINE: 2}


def test_label_file_of_two_images_in_a_folder_belongs_to_one(tmp_path):
    write(tmp_path, a=[LINE])
    image("chelsea", tmp_path / "images" / "train" / "a.jpeg")
    data = open_detection_set(tmp_path, split="train")
    assert [(one.file.name, len(one)) for one in data.images] == [("a.jpeg", 1)]
    assert data.problems.counts == {Problem.NO_ANNOTATION_FILE: 1}


def test_folders_named_after_a_split_and_a_year(tmp_path):
    """Of several years none is preferred."""
    for name, lines in (("val2017", [LINE]), ("train2014", [LINE, f"1{LINE[1:]}"]), ("train2017", [LINE])):
        image("chelsea", tmp_path / "images" / name / "a.jpg")
        text(tmp_path / "labels" / name / "a.txt", *lines)
        if name == "train2014":
            (only,) = open_detection_set(tmp_path, split="train").images
            assert (only.file.parent.name, len(only)) == (name, 2)
    (only,) = open_detection_set(tmp_path, split="val").images
    assert (only.file.parent.name, len(only)) == ("val2017", 1)
    with pytest.raises(MissingSplitError):
        open_detection_set(tmp_path, split="train")


def test_faults_in_label_files_are_counted(tmp_path):
    odd = "0 .1 .1 .3 .1 .3 .3 .2"
    lines = [
        LINE,
        "2 .5 .5 .1 .1",
        "0 .5 .5",
        odd,
        "0 .5 .5 .1 .1 .9",
        "0 .5 x .1 .1",
        "0 .95 .5 .3 .1",
        "0,.5,.5,.1,.1",
    ]
    write(tmp_path, a=lines, b=None, c=[], d=[LINE, ""])
    (tmp_path / "labels" / "train" / "d.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.25 0.25\r\n")
    (tmp_path / "images" / "train" / "c.jpg").write_bytes(b"no image")
    text(tmp_path / "labels" / "train" / "gone.txt", LINE)
    text(tmp_path / "labels" / "train" / "._a.txt", "of macOS")
    read = open_detection_set(tmp_path, split="train")
    assert [len(one) for one in read.images] == [2, 0, 1]
    assert read.problems.counts == {
        Problem.UNKNOWN_CATEGORY: 1,
        Problem.BROKEN_LINE: 5,
        Problem.CLIPPED: 1,
        Problem.NO_LABEL_FILE: 1,
        Problem.BROKEN_IMAGE: 1,
        Problem.NO_IMAGE_FOR_LABELS: 1,
    }
    assert read.problems.first[Problem.BROKEN_LINE].startswith("train/a.txt line 3")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([f"0 20{number} 133 100 60" for number in range(4)], "centre x, y and width, height"),
        (["0 0.5 0.5 0.9 0.9", "0 0.6 0.1 0.95 0.3", "0 0.2 0.7 0.5 0.95", "0 0.7 0.7 0.9 0.99"], "corners"),
        (["0,0.5,0.5,0.1,0.1"] * 4, "hardly any line"),
        (["7 0.5 0.5 0.1 0.1"] * 4, "unknown category"),
        (None, "put them into labels/"),
    ],
)
def test_label_files_that_are_not_yolo_are_refused(tmp_path, lines, complaint):
    write(tmp_path, a=lines, b=lines)
    with pytest.raises(InputError, match=complaint):
        open_detection_set(tmp_path, split="train")


@pytest.mark.parametrize(
    ("yaml", "complaint"),
    [
        ("train: images/train", "no `names`"),
        ("names: [cat]", "no `train`"),
        ("train: images/train\nnames: [cat, dog]\nnc: 3", "`nc` is 3"),
        ("train: images/train\nnames: {0: cat, x: dog}", "number is not"),
        ("train: elsewhere\nnames: [cat]", "train is elsewhere"),
        ("train: {a: images}\nnames: [cat]", "`train` must be text"),
        ("train: [images/train, [b]]\nnames: [cat]", "`train` must be text"),
        ("train: [", "not valid YAML"),
    ],
)
def test_unusable_data_yaml_is_refused(tmp_path, yaml, complaint):
    write(tmp_path, a=[LINE])
    text(tmp_path / "data.yaml", yaml)
    with pytest.raises(InputError, match=complaint) as error:
        open_detection_set(tmp_path / "data.yaml", split="train")
    assert "\n" not in str(error.value)


def test_files_that_describe_two_datasets_are_refused(tmp_path, capsys):
    write(tmp_path, a=[LINE], train="train: images/train\nval: images/train")
    open_detection_set(tmp_path, split="train")
    assert "its val is its train" in capsys.readouterr().err
    shutil.copy(tmp_path / "data.yaml", tmp_path / "dataset.yaml")
    with pytest.raises(InputError, match=r"holds data\.yaml, dataset\.yaml"):
        open_detection_set(tmp_path, split="train")


def test_splits_may_be_lists(tmp_path):
    write(tmp_path, "names: {3: cat, 0: dog}", "train: [train.txt, images/more]", a=["3 0.5 0.5 0.25 0.25"], b=[LINE])
    image("coffee", tmp_path / "images" / "more" / "c.PNG")
    text(tmp_path / "labels" / "more" / "c.txt", LINE)
    text(tmp_path / "train.txt", "# of 2024", *(f"./images/train/{name}.jpg" for name in ("a", "a", "gone")))
    read = open_detection_set(tmp_path / "data.yaml", split="train")
    assert [(one.file.name, one.labels.tolist()) for one in read.images] == [("a.jpg", [2]), ("c.PNG", [1])]
    assert [(one.id, one.name) for one in read.categories] == [(0, "dog"), (3, "cat")]
    assert read.problems.counts == {Problem.REPEATED_IMAGE: 1, Problem.MISSING_IMAGE: 1}


def test_split_that_is_described_but_missing(tmp_path):
    """Roboflow leaves such descriptions; the other splits can be used, and a share of them held back."""
    write(tmp_path, train="train: images/train\nval: ../valid/images", a=[LINE], b=[LINE])
    with pytest.raises(InputError, match=r"its val is \.\./valid/images"):
        open_detection_set(tmp_path, split="val")
    for part in ("train", "val"):
        assert len(open_detection_set(tmp_path, split=part, reading=ReadingSettings(val_share=0.5))) == 1


@pytest.mark.parametrize("nothing", ["", "null", "~", "[]"])
def test_data_yaml_fields_may_be_empty(tmp_path, nothing):
    write(tmp_path, f"names: [cat]\nval: {nothing}\nnc: {nothing}\npath: {nothing}", a=[LINE])
    assert len(open_detection_set(tmp_path, split="train")) == 1
    with pytest.raises(MissingSplitError, match="val-share"):
        open_detection_set(tmp_path, split="val")


def test_missing_splits_are_reported(tmp_path, capsys):
    write(tmp_path, train="train: images/train\ntest: ../test/images", a=[LINE])
    assert set(socodet.convert(tmp_path).parts) == {"train"}
    assert "its test is ../test/images" in capsys.readouterr().err
    write(tmp_path, train="train: elsewhere/a\nval: elsewhere/b")
    with pytest.raises(InputError, match="its train is elsewhere/a"):
        socodet.convert(tmp_path)


def test_path_in_data_yaml_may_end_with_a_folder_beside_it(tmp_path):
    """Ultralytics' own files have paths relative to its datasets folder; images beside the file come first."""
    write(tmp_path / "coco8", a=[LINE])
    text(tmp_path / "coco8.yaml", "path: ../datasets/coco8", "train: images/train", "names: {0: cat}")
    (found,) = open_detection_set(tmp_path / "coco8.yaml", split="train").images
    assert found.file == tmp_path / "coco8" / "images" / "train" / "a.jpg"
    write(tmp_path, a=[LINE])
    (found,) = open_detection_set(tmp_path / "coco8.yaml", split="train").images
    assert found.file == tmp_path / "images" / "train" / "a.jpg"


def test_keypoints_are_ignored(tmp_path):
    write(tmp_path, "kpt_shape: [2, 3]\nnames: [cat]", a=[LINE + " 0.1 0.2 2 0.3 0.4 2"])
    (found,) = open_detection_set(tmp_path, split="train").images
    assert np.allclose(found.boxes, [[150, 99.75, 250, 166.25]])


def test_data_yaml_may_name_only_the_classes(tmp_path):
    """As supervision writes it; the splits are found by their folders."""
    for part in ("train", "valid"):
        image("chelsea", tmp_path / part / "images" / "a.jpg")
        text(tmp_path / part / "labels" / "a.txt", "1 0.5 0.5 0.25 0.25")
    text(tmp_path / "data.yaml", "nc: 2", "names: [cat, dog]")
    for given, part in ((tmp_path, "train"), (tmp_path, "val"), (tmp_path / "valid", "all")):
        read = open_detection_set(given, split=part)
        assert [one.name for one in read.categories] == ["cat", "dog"]
    text(tmp_path / "data.yaml", "nc: 3", "names: [cat, dog]")
    with pytest.raises(InputError, match="`nc` is 3"):
        open_detection_set(tmp_path, split="train")


def test_split_given_alone_has_the_classes_of_its_dataset(tmp_path):
    for part in ("train", "valid"):
        image("chelsea", tmp_path / part / "images" / "a.jpg")
        text(tmp_path / part / "labels" / "a.txt", "1 0.5 0.5 0.25 0.25")
    text(tmp_path / "data.yaml", "train: train/images", "names: [cat, dog]")
    read = open_detection_set(tmp_path / "valid", split="all")
    assert read.categories[read.images[0].labels[0] - 1].name == "dog"


def test_data_yaml_without_splits_still_declares_keypoints(tmp_path):
    """A line with two keypoints of two numbers is as long as an outline with four corners."""
    for part in ("train", "valid"):
        image("chelsea", tmp_path / part / "images" / "a.jpg")
        text(tmp_path / part / "labels" / "a.txt", LINE + " 0.1 0.2 0.9 0.4")
    text(tmp_path / "data.yaml", "names: [cat]", "kpt_shape: [2, 2]")
    for _ in range(2):
        for given, part in ((tmp_path, "train"), (tmp_path / "valid", "all")):
            read = open_detection_set(given, split=part)
            assert not read.has_masks
            assert np.allclose(read.images[0].boxes, [[150, 99.75, 250, 166.25]])
        text(tmp_path / "data.yaml", "train: train/images", "val: valid/images", "names: [cat]", "kpt_shape: [2, 2]")


def test_split_that_may_be_of_another_dataset_is_refused(tmp_path):
    """Roboflow's `../train/images` means a folder beside the file; one above may be of a dataset unpacked earlier."""
    for root in (tmp_path, tmp_path / "second"):
        image("chelsea", root / "train" / "images" / "a.jpg")
        text(root / "train" / "labels" / "a.txt", LINE)
        text(root / "data.yaml", "train: ../train/images", "names: [cat]")
    first = open_detection_set(tmp_path, split="train")
    assert first.images[0].file == tmp_path / "train" / "images" / "a.jpg"
    with pytest.raises(InputError, match=r"its train is \.\./train/images, and"):
        open_detection_set(tmp_path / "second", split="train")
    text(tmp_path / "second" / "data.yaml", "path: ..", "train: train/images", "names: [cat]")
    assert open_detection_set(tmp_path / "second", split="train").images[0].file.samefile(first.images[0].file)


def test_label_file_of_an_image_named_train_is_not_a_list(tmp_path):
    for name in ("train", "b"):
        image("chelsea", tmp_path / f"{name}.jpg")
        text(tmp_path / f"{name}.txt", LINE)
    assert [len(one) for one in open_detection_set(tmp_path, split="all").images] == [1, 1]
