import os
import pickle
import shutil
from pathlib import Path

import pytest

from socodet.errors import InputError
from socodet.images.folder import ImageFolder, is_read_from
from socodet.images.pack import pack
from socodet.images.photographs import photographs
from socodet.images.source import ImageSelection, open_images
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.studies.runner import Study
from socodet.training.run_folder import RunFolder


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def keys(folder: str | Path) -> list[str]:
    source = open_images(folder)
    return [source.key(index) for index in range(len(source))]


def test_nested_files_in_sorted_order_with_their_bytes(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/z.png", "a/y/x.webp", "Z.TIF", "a.jpeg", "c.tiff", "d.bmp", "e.Gif")
    make(tmp_path, "notes.txt", "jpg", "a/image.jpg.part")
    source = open_images(str(tmp_path))
    expected = ["Z.TIF", "a.jpeg", "a/y/x.webp", "a/z.png", "b.jpg", "c.tiff", "d.bmp", "e.Gif"]
    assert [source.key(index) for index in range(len(source))] == expected
    assert [source.read(index).decode() for index in range(len(source))] == expected
    assert source.location == str(tmp_path)


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", ".b.jpg", ".cache/c.jpg", "d/.e/f.jpg", "d/._g.jpg")
    assert keys(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "System Volume Information"])
def test_system_folders_are_skipped(tmp_path: Path, folder: str) -> None:
    """Thumbnails on Synology drives, deleted files, and folders that only root may list."""
    make(tmp_path, "a.jpg", f"{folder}/a.jpg/SYNOPHOTO_THUMB_XL.jpg", f"b/{folder}/c.jpg", "b/c.jpg")
    assert keys(tmp_path) == ["a.jpg", "b/c.jpg"]
    assert not is_read_from(tmp_path, tmp_path / "b" / folder / "c.jpg")


def test_links_are_followed_but_not_in_loops(tmp_path: Path) -> None:
    make(tmp_path, "real/a.jpg", "set/b.jpg")
    images = tmp_path / "set"
    (images / "link.jpg").symlink_to(tmp_path / "real/a.jpg")
    (images / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (images / "linked").symlink_to(tmp_path / "real")
    (images / "upwards").symlink_to(images)
    (images / "itself.jpg").symlink_to("itself.jpg")
    (images / "itself").symlink_to("itself")
    assert keys(images) == ["b.jpg", "link.jpg", "linked/a.jpg"]


@pytest.mark.parametrize("kind", ["comparison", "ablation", "own_data"])
def test_figures_of_studies_are_not_read_as_images(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "a.jpg", "deep/study/labels.png", "deep/b.jpg")
    Study(tmp_path / "deep" / "study", kind).begin({"seeds": 2}, [])
    assert keys(tmp_path) == ["a.jpg", "deep/b.jpg"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "way").symlink_to(tmp_path / "deep")
    make(tmp_path / "links", "c.jpg")
    assert keys(tmp_path / "links") == ["c.jpg", "way/b.jpg"]
    assert keys(tmp_path / "deep" / "study") == ["labels.png"]  # unless it is the folder given


def test_logs_of_runs_are_not_counted_as_unsupported_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "a.jpg", *(f"run/tensorboard/events.out.tfevents.{number}.host.1" for number in range(30)))
    with pytest.raises(InputError, match="skipped 30 files"):
        keys(tmp_path)
    RunFolder(tmp_path / "run").write_description({"recipe": {}})
    assert keys(tmp_path) == ["a.jpg"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if str(tmp_path) in line]
    assert line.endswith("1 folder with results of socodet (first: run)")


def test_skipped_results_are_noted_in_one_short_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where there is no other image, which is when a user wonders why."""
    for number in range(30):
        make(tmp_path, f"run{number:02d}/a.png", f"run{number:02d}/b.odd")
        RunFolder(tmp_path / f"run{number:02d}").write_description({"recipe": {}})
    make(tmp_path, "c.odd")
    with pytest.raises(InputError, match="no image in it"):
        open_images(tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if str(tmp_path) in line]
    assert "30 folders" in line
    assert "run00" in line
    assert "run01" not in line


def test_json_files_that_are_not_ours_hide_no_images(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/b.jpg", "b/predict.json", "c/c.jpg", "d/d.jpg", "d/ablation.json/e.jpg")
    (tmp_path / "c" / "predict.json").write_text('[{"detector": 1, "images": 2, "settings": 3}]')
    assert keys(tmp_path) == ["a.jpg", "b/b.jpg", "c/c.jpg", "d/ablation.json/e.jpg", "d/d.jpg"]


def test_a_folder_named_like_an_image_is_searched(tmp_path: Path) -> None:
    make(tmp_path, "album.jpg/a.png")
    assert keys(tmp_path) == ["album.jpg/a.png"]


def test_a_source_can_be_pickled_for_a_worker(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/c.png")
    source = pickle.loads(pickle.dumps(open_images(tmp_path)))
    assert source == open_images(tmp_path)
    assert isinstance(source, ImageFolder)
    assert list(source.keys) == ["a.jpg", "b/c.png"]
    assert source.read(1) == b"b/c.png"


def test_only_photographs_of_a_voc_folder_are_read(tmp_path: Path) -> None:
    make(tmp_path, "VOC2007/JPEGImages/000001.jpg", "VOC2012/JPEGImages/2007_000027.jpg", "VOC2012/README.txt")
    make(tmp_path, "VOC2012/SegmentationClass/2007_000027.png", "VOC2012/SegmentationObject/2007_000027.png")
    make(tmp_path, "other/photo.png")
    assert keys(tmp_path) == ["VOC2007/JPEGImages/000001.jpg", "VOC2012/JPEGImages/2007_000027.jpg", "other/photo.png"]
    assert keys(tmp_path / "VOC2012") == ["JPEGImages/2007_000027.jpg"]
    assert keys(tmp_path / "VOC2012/SegmentationClass") == ["2007_000027.png"]


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ("annotations/training/a.png annotations/training/b.png", True),
        ("Masks/a_mask.gif Masks/c_mask.gif Masks/b_mask.gif", True),
        ("labels/x.png labels/y.png labels/b.png", False),  # of other images
        ("mask/a.jpg mask/b.jpg", False),  # could be faces with masks
        ("a.png b.png", False),
    ],
)
def test_folders_of_masks_are_noted(tmp_path: Path, masks: str, said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "images/training/a.jpg", "images/training/b.jpg", *masks.split())
    assert len(open_images(tmp_path)) == 2 + len(masks.split())
    assert ("seem to be masks" in capsys.readouterr().err) == said


def test_imagenets_layout_is_read_as_nested_folders(tmp_path: Path) -> None:
    make(tmp_path, "train/n01440764/n01440764_10026.JPEG", "train/n01443537/n01443537_2.JPEG")
    assert keys(tmp_path / "train") == ["n01440764/n01440764_10026.JPEG", "n01443537/n01443537_2.JPEG"]


def test_an_archive_beside_images_is_ignored(tmp_path: Path) -> None:
    make(tmp_path, "VOCdevkit/VOC2007/JPEGImages/000001.jpg", "VOCtrainval.tar")
    assert keys(tmp_path) == ["VOCdevkit/VOC2007/JPEGImages/000001.jpg"]


def test_a_selection_keeps_keys_and_order(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    selection = pickle.loads(pickle.dumps(ImageSelection(open_images(tmp_path), (2, 0))))
    assert [selection.key(index) for index in range(len(selection))] == ["c.jpg", "a.jpg"]
    assert selection.read(0) == b"c.jpg"
    assert selection.location == str(tmp_path)


def test_a_list_of_files_keeps_its_order_and_takes_the_common_folder(tmp_path: Path) -> None:
    make(tmp_path, "a/2.jpg", "b/1.jpg", "b/c/3.jpg")
    source = open_images([tmp_path / "b/1.jpg", str(tmp_path / "b/../a/2.jpg"), tmp_path / "b/c/3.jpg"])
    assert [source.key(index) for index in range(len(source))] == ["b/1.jpg", "a/2.jpg", "b/c/3.jpg"]
    assert [source.read(index) for index in range(len(source))] == [b"b/1.jpg", b"a/2.jpg", b"b/c/3.jpg"]
    assert source.location == str(tmp_path)


def test_unusable_lists_of_files_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    for given, message in [([], "empty"), (["a.jpg", "./a.jpg"], "twice"), ([tmp_path / "b.jpg"], "b.jpg: no such")]:
        with pytest.raises(InputError, match=message):
            open_images(given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("file.jpg", "file.jpg: is one image"),
        ("empty", "empty: no image in it"),
        ("run", "run: socodet wrote this folder"),
        ("images.tar.gz", "images.tar.gz: is an archive; unpack it"),
        ("x" * 300, "no such file or folder"),
    ],
)
def test_paths_that_are_not_image_folders_are_refused(tmp_path: Path, name: str, message: str) -> None:
    make(tmp_path, "file.jpg", "empty/notes.txt", "images.tar.gz", "run/run.json")
    (tmp_path / "run" / "run.json").write_text('{"recipe": {}, "versions": {}}')
    with pytest.raises(InputError, match=message) as raised:
        open_images(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"locked: cannot be listed \(Permission denied\)"):
        open_images(tmp_path)


@pytest.mark.usefixtures("any_bytes_in_names")
def test_names_that_are_not_utf8_reach_every_table_and_shard(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(photographs() / "chelsea.jpg", folder / name)
    shutil.copy(photographs() / "coffee.jpg", folder / "b.jpg")
    source = open_images(folder)
    assert [source.key(index) for index in range(2)] == ["b.jpg", name]
    settings = ProposalSettings("grid")
    table = ProposalTable.read(propose(folder, tmp_path / "p.parquet", settings=settings, show_progress=False).table)
    table.check_images(source)
    assert table.keys == ["b.jpg", "caf\\xe9.jpg"]
    assert len(table.boxes(name))
    packed = open_images(pack(folder, tmp_path / "packed", show_progress=False).output)
    assert [packed.key(index) for index in range(2)] == ["b.jpg", name]


def test_patterns_of_images(tmp_path: Path) -> None:
    make(tmp_path, "b c/2.jpg", "b c/1.JPG", "b c/d/3.jpg", "b c/4.png", "b c/notes.txt", "e/5.jpg", "[f].jpg")
    (tmp_path / "b c" / "gone.jpg").symlink_to("nowhere.jpg")
    for pattern, expected in {
        "b c/*.jpg": ["2.jpg"],
        "*/*.{jpg,JPG}": ["b c/2.jpg", "e/5.jpg", "b c/1.JPG"],
        "**/*.jpg": ["[f].jpg", "b c/2.jpg", "b c/d/3.jpg", "e/5.jpg"],
    }.items():
        source = open_images(f"{tmp_path}/{pattern}")
        assert keys(source.location) == [source.key(index) for index in range(len(source))] == expected
        assert [Path(source.read(index).decode()).name for index in range(len(source))] == [
            Path(key).name for key in expected
        ]
    for pattern, said in {
        "b c/*.webp": r"no file .*\.webp",
        "b c/[0-9n]*": r"notes\.txt, which is no image",
        "b c/*": r"the folder .*b c/d",
    }.items():
        with pytest.raises(InputError, match=said):
            open_images(f"{tmp_path}/{pattern}")


def test_patterns_leave_out_what_a_folder_would_leave_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "a.jpg", "b/c.jpg", "b/@eaDir/c.jpg/SYNOPHOTO_THUMB_M.jpg", "b/@eaDir/d.jpg", "found/drawn/a.jpg")
    (tmp_path / "found" / "predict.json").write_text('{"detector": {}, "images": {}, "settings": {}}')
    (tmp_path / "b" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    assert keys(f"{tmp_path}/**/*.jpg") == keys(tmp_path) == ["a.jpg", "b/c.jpg"]
    assert capsys.readouterr().err.count("(first: ") == 2
    assert keys(f"{tmp_path}/*/*.jpg") == ["c.jpg"]
    assert keys(f"{tmp_path}/b/@eaDir/*d.jpg") == ["d.jpg"]
    assert keys(f"{tmp_path}/*/drawn/*.jpg") == ["a.jpg"]


def test_pattern_of_a_name_with_brackets(tmp_path: Path) -> None:
    make(tmp_path, "photos [1]/a.jpg")
    with pytest.raises(InputError, match=r"\[\[\] stands for \["):
        open_images(f"{tmp_path}/photos [1]/*.jpg")
    assert keys(f"{tmp_path}/photos [[]1]/*.jpg") == ["a.jpg"]


@pytest.mark.parametrize(("name", "said"), [("a.MOV", "is a video"), ("data.yaml", "give the folder of its images")])
def test_files_that_are_neither_images_nor_lists(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("train: images\n")
    with pytest.raises(InputError, match=said):
        open_images(tmp_path / name)
