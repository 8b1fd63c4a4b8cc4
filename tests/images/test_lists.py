import json
import os
import pickle
from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.images.source import ImageSource, image_ids, open_images


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {name}".encode())


def keys(source: ImageSource) -> list[str]:
    return [source.key(index) for index in range(len(source))]


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        open_images(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(path))
    return str(raised.value)


def write_coco(file: Path, *names: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 7 * i, "file_name": name, "width": 4, "height": 3} for i, name in enumerate(names)]
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": [], "categories": []}))
    return file


def test_a_list_keeps_its_own_order(tmp_path: Path) -> None:
    make(tmp_path, "set/b.jpg", "set/deep/ö.png", "set/a image.jpg", "elsewhere/c.jpg")
    absolute = tmp_path / "elsewhere/c.jpg"
    (tmp_path / "set/train.txt").write_bytes(
        b"\xef\xbb\xbf# half of it\r\n\r\nb.jpg\r\n  ./deep//"
        + "ö.png\r\n#b.jpg\na image.jpg\n".encode()
        + f"../elsewhere/c.jpg\n{absolute}".encode()
    )
    source = pickle.loads(pickle.dumps(open_images(tmp_path / "set/train.txt")))
    assert keys(source) == ["b.jpg", "deep/ö.png", "a image.jpg", "../elsewhere/c.jpg", str(absolute)]
    assert [source.read(index).decode() for index in range(len(source))] == [
        f"bytes of {name}"
        for name in ("set/b.jpg", "set/deep/ö.png", "set/a image.jpg", "elsewhere/c.jpg", "elsewhere/c.jpg")
    ]
    assert source.location == str(tmp_path / "set/train.txt")


def test_a_missing_image_of_a_list_fails_only_when_read(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg")
    (tmp_path / "list").write_text("a.jpg\nb.jpg\n")
    source = open_images(tmp_path / "list")
    assert source.read(1) == b"bytes of b.jpg"
    with pytest.raises(FileNotFoundError):
        source.read(0)


def test_mistakes_in_a_list_are_one_line(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    file = tmp_path / "list.txt"
    for text, message in [
        ("", "lists no image"),
        ("# a.jpg\n\n", "lists no image"),
        ("b.jpg\nc.jpg\n", f"none of the first 2 images it lists is there, first {tmp_path / 'b.jpg'}"),
        ("a.jpg\nb.jpg\n./a.jpg\n", "names a.jpg twice"),
        ("This is no list of paths. " * 40, "none of the first 1 images"),
    ]:
        file.write_text(text)
        assert message in error_of(file)
    for data in (b"\xff\xfe\x00", b"a.jpg\nsome\0thing\n"):
        file.write_bytes(data)
        assert "is not a text file" in error_of(file)
    file.write_bytes(b"PAR1\x15\0")
    os.truncate(file, 2**40)  # larger than any memory
    assert "is not a text file" in error_of(file)


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("coco/annotations/instances_train2017.json", "coco/train2017"),
        ("coco/annotations/instances_train2017.json", "coco/images/train2017"),
        ("coco/instances_train2017.json", "coco/train2017"),
        ("coco/instances_train2017.json", "coco/images"),
        ("coco/images/train.json", "coco/images"),
        ("coco/annotations/all.json", "coco"),
    ],
)
def test_images_of_a_coco_file_are_found_near_it(tmp_path: Path, file: str, folder: str) -> None:
    make(tmp_path / folder, "b.jpg", "a/c.jpg", "not listed.jpg")
    make(tmp_path / "coco/val2017", "x.jpg")
    coco = write_coco(tmp_path / file, "b.jpg", "a/c.jpg")
    source = pickle.loads(pickle.dumps(open_images(coco)))
    assert keys(source) == ["b.jpg", "a/c.jpg"]
    assert source.read(1) == b"bytes of a/c.jpg"
    assert source.location == str(coco)


def test_a_coco_file_may_be_given_relative_to_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "train", "b.jpg")
    write_coco(tmp_path / "annotations/all.json", "b.jpg")
    monkeypatch.chdir(tmp_path / "annotations")
    assert open_images("all.json").read(0) == b"bytes of b.jpg"


def test_a_coco_files_name_selects_the_image_folder(tmp_path: Path) -> None:
    for part in ("train", "val"):
        make(tmp_path / part, "1.jpg", f"{part}.jpg")
    train = open_images(write_coco(tmp_path / "annotations/instances_train.json", "1.jpg", "train.jpg"))
    val = open_images(write_coco(tmp_path / "annotations/instances_val.json", "1.jpg", "val.jpg"))
    assert train.read(1) == b"bytes of train.jpg"
    assert val.read(1) == b"bytes of val.jpg"
    message = error_of(write_coco(tmp_path / "annotations/all.json", "1.jpg"))
    assert str(tmp_path / "train") in message
    assert str(tmp_path / "val") in message


def test_a_link_to_itself_does_not_hide_the_image_folder(tmp_path: Path) -> None:
    make(tmp_path, "photos/a.jpg")
    (tmp_path / "circle").symlink_to("circle")
    assert open_images(write_coco(tmp_path / "annotations/c.json", "a.jpg")).read(0) == b"bytes of photos/a.jpg"


def test_a_coco_files_own_folder_is_searched_first(tmp_path: Path) -> None:
    make(tmp_path / "pictures", "1.jpg", "2.jpg")
    make(tmp_path / "set/images", "1.jpg")
    coco = write_coco(tmp_path / "set/train.json", "1.jpg")
    (tmp_path / "set/images/1.jpg").write_bytes(b"the set's own")
    assert open_images(coco).read(0) == b"the set's own"


def test_annotations_are_no_list_of_images(tmp_path: Path) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text("<annotations>\n<label>\n</label>\n<label>\n</label>\n</annotations>\n")
    assert "give the folder of the images" in error_of(file)


def test_mistakes_in_a_coco_file_are_one_line(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    file = tmp_path / "sub/c.json"
    file.parent.mkdir()
    for text in ("[1]", "{}", '{"images": []}', '{"images": [{"id": 1}]}', '{"images": [{"file_name": 3}]}', "null"):
        file.write_text(text)
        assert "is not a COCO file" in error_of(file)
    file.write_text('{"images": ')
    assert "is not valid JSON" in error_of(file)
    assert "names a.jpg twice" in error_of(write_coco(file, "a.jpg", "a.jpg"))
    for name in ("\ud800.jpg", "b\0.jpg"):  # a lone surrogate, and a null byte
        assert "correct the name" in error_of(write_coco(file, "a.jpg", name))
    lost = error_of(write_coco(file, "b.jpg"))
    assert "none of its images, such as b.jpg" in lost
    assert "give their folder instead" in lost
    assert "--images" not in lost  # a flag that commands reading only images do not have
    make(tmp_path, "sub/renamed.jpg")
    assert "sub/renamed.jpg" in error_of(file)


@pytest.mark.parametrize("name", ["list.txt", "coco.json"])
def test_an_unreadable_file_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / name
    file.touch()

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("socodet.runtime.files.read_file", refuse)
    assert "cannot be read (Permission denied)" in error_of(file)


def test_dropping_leading_folders_of_another_machine_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "cats/a.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text("D:/set/cats/a.jpg\nD:/set/b.jpg\n")
    open_images(tmp_path / "list.txt")
    assert "2 of its 2 images" in (said := capsys.readouterr().err)
    assert "D:/set/cats/a.jpg is read as cats/a.jpg" in said
    (tmp_path / "here.txt").write_text("./cats/a.jpg\nb.jpg\n")
    open_images(tmp_path / "here.txt")
    assert capsys.readouterr().err == ""


def test_accents_in_another_unicode_form_are_matched(tmp_path: Path) -> None:
    plain = [f"{number}.jpg" for number in range(20)]
    composed, apart = "\xe9.jpg", "e\u0301.jpg"
    make(tmp_path, *plain, composed)
    (tmp_path / "list.txt").write_text("\n".join([*plain, apart]))
    assert keys(open_images(tmp_path / "list.txt")) == [*plain, composed]
    assert keys(open_images(write_coco(tmp_path / "c.json", *plain, apart))) == [*plain, composed]


def test_a_list_made_on_another_machine_is_read(tmp_path: Path) -> None:
    make(tmp_path, "cats/a.jpg", "dogs/a.jpg", "dogs/b.jpg")
    names = ["cats/a.jpg", "dogs/a.jpg", "dogs/b.jpg"]
    for form in ("C:\\set\\{}", "/somewhere/set/{}", ".\\{}"):
        lines = [form.format(name.replace("/", "\\") if "\\" in form else name) for name in names]
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
            source = open_images(tmp_path / "list.txt")
            assert [source.key(index) for index in range(3)] == names


def test_ids_of_a_coco_file_are_small_when_pickled(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number:05d}.jpg" for number in range(16)))
    file = write_coco(tmp_path / "a.json", *(f"{number:05d}.jpg" for number in range(20_000)))
    source = open_images(file)
    assert list(image_ids(source)[:3]) == [0, 7, 14]
    assert len(pickle.dumps(source)) < 20_000 * (9 + 8 + 8) + 2_000  # a name, its place, an id
