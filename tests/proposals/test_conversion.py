"""Proposals made elsewhere become a table: matched by name, clipped and filtered; the rest is reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from socodet.cli import main
from socodet.errors import InputError
from socodet.images.pack import pack
from socodet.proposals.conversion import _check_fit, _Counts, _outside, convert_proposals
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Origin, ProposalTable

SIZE = (100, 80)  # the filter keeps areas of 720 (0.3²) to 5120 (0.8²)
KEYS = ["cat/1.jpg", "cat/2.jpg", "dog/3.v2.jpg", "torn.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for key in KEYS:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(path)
    (root / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def stems(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    return path


def converted(folder: Path, proposals: Path, tmp_path: Path, **how: Any) -> tuple[Any, ProposalTable]:
    summary = convert_proposals(folder, proposals, tmp_path / "t.parquet", overwrite=True, show_progress=False, **how)
    table = ProposalTable.read(summary.table)
    assert table.keys == KEYS
    return summary, table


def test_boxes_are_clipped_filtered_and_counted(folder: Path, tmp_path: Path) -> None:
    given = {
        "1": [
            [10, 10, 40, 30],  # kept: an area of 1200 pixels
            [10, 10, 40, 30.5],  # a near duplicate: IoU 1200 / 1220
            [0, 0, 100, 80],  # too large
            [5, 5, 20, 20],  # too small
            [0, 0, 100, 25],  # too wide: four times its height
            [60, 30, 40.5, 50],  # kept, clipped by half a pixel on the right
        ],
        "3.v2": [[20, 20, 30, 30.25]],
        "torn": [[1, 1, 50, 50]],
        "elsewhere": [[0, 0, 9, 9]],
    }
    summary, table = converted(folder, stems(tmp_path, given), tmp_path)
    np.testing.assert_array_equal(table.boxes("cat/1.jpg"), [[10, 10, 50, 40], [60, 30, 100, 80]])
    np.testing.assert_array_equal(table.boxes("dog/3.v2.jpg"), [[20, 20, 50, 50.25]])
    assert [len(table.boxes(key)) for key in KEYS] == [2, 0, 1, 0]
    assert [table.size(key) for key in KEYS] == [SIZE, SIZE, SIZE, (0, 0)]
    assert [key for key, _ in summary.unreadable] == ["torn.jpg"]
    assert table.unreadable.get("torn.jpg") == summary.unreadable[0][1]
    assert (summary.images, summary.boxes, summary.given, summary.outside, summary.without) == (4, 3, 7, 0, 1)
    assert summary.unknown == ("elsewhere",)
    assert table.origin == Origin("p.json", True)
    assert table.settings == ProposalSettings()

    wider = ProposalSettings(max_aspect=4, min_scale=0.2, max_scale=1, max_overlap=0.99)
    assert len(converted(folder, stems(tmp_path, given), tmp_path, settings=wider)[1].boxes("cat/1.jpg")) == 6
    summary, table = converted(folder, stems(tmp_path, given), tmp_path, keep_all=True)
    assert summary.boxes == 7
    np.testing.assert_array_equal(table.boxes("cat/1.jpg")[3], [5, 5, 25, 25])
    assert table.origin == Origin("p.json", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "p.json", "t.parquet"]


BOX = [[10, 10, 40, 30]]


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/3.v2.jpg"],  # keys
        ["cat/1", "dog/3.v2"],  # without the suffix
        ["1.jpg", "3.v2.jpg"],  # file names
        ["1", "3.v2"],  # stems
        ["1", "3"],  # up to the first dot, as DETReg has them
        ["/data/train/1.jpg", "/data/train/3.v2.jpg"],  # other folders
    ],
)
def test_images_are_found_by_several_forms_of_their_name(folder: Path, tmp_path: Path, names: list[str]) -> None:
    summary, table = converted(folder, stems(tmp_path, dict.fromkeys(names, BOX)), tmp_path)
    assert [len(table.boxes(key)) for key in KEYS] == [1, 0, 1, 0]
    assert summary.unknown == ()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_images_in_shards_are_found_by_their_names_before_packing(tmp_path: Path, absolute: bool, suffix: str) -> None:
    """Also where only the folders distinguish them."""
    names = []
    for folder in ("cat", "dog"):
        path = tmp_path / "images" / folder / f"1{suffix}"
        path.parent.mkdir(parents=True)
        Image.new("RGB", SIZE).save(path, "JPEG")
        names.append(str(path) if absolute else f"../images/{folder}/1{suffix}")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("\n".join(names))
    shards = pack(tmp_path / "lists" / "a.txt", tmp_path / "shards", show_progress=False).output
    given = stems(tmp_path, {names[0]: BOX, names[1]: [*BOX, [50, 30, 45, 35]]})
    for images in (tmp_path / "lists" / "a.txt", shards):
        table = ProposalTable.read(
            convert_proposals(images, given, tmp_path / "t.parquet", overwrite=True, show_progress=False).table
        )
        assert [len(table.boxes(key)) for key in table.keys] == [1, 2]
        assert ["cat" in key for key in table.keys] == [True, False]


def test_names_that_match_no_image_or_two_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.json: names none of the 4 images in .*images, such as cat/1\.jpg; .* 7:"):
        converted(folder, stems(tmp_path, {"7": BOX}), tmp_path)
    (folder / "dog" / "1.jpg").write_bytes((folder / "cat/1.jpg").read_bytes())
    with pytest.raises(InputError, match=r"p\.json: 1 may be cat/1\.jpg or dog/1\.jpg; name images with their folder"):
        converted(folder, stems(tmp_path, {"1": BOX, "2": BOX}), tmp_path)
    with pytest.raises(InputError, match=r"p\.json: x/2\.jpg and y/2\.jpg are both cat/2\.jpg"):
        converted(folder, stems(tmp_path, {"x/2.jpg": BOX, "y/2.jpg": BOX}), tmp_path)
    assert not (tmp_path / "t.parquet").exists()


def test_boxes_in_the_wrong_form_are_detected(folder: Path, tmp_path: Path) -> None:
    corners = {"1": [[60, 30, 95, 75], [10, 40, 50, 70]], "2": [[50, 50, 90, 79]]}
    with pytest.raises(InputError, match=r"3 of 3 boxes .* read as xywh, and 0 as xyxy; .*--box-form"):
        converted(folder, stems(tmp_path, corners), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "p.json"]
    _, table = converted(folder, stems(tmp_path, corners), tmp_path, form="xyxy")
    np.testing.assert_array_equal(table.boxes("cat/2.jpg"), [[50, 50, 90, 79]])
    with pytest.raises(InputError, match=r"1 of 2 boxes are empty or reach outside their image; give the images"):
        converted(folder, stems(tmp_path, {"1": [[10, 10, 40, 30], [300, 200, 400, 300]]}), tmp_path)


def test_relative_coordinates_are_not_read_as_pixels(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 boxes .* shares of their image"):
        converted(folder, stems(tmp_path, {"1": [[0.1, 0.2, 0.5, 0.5]], "2": [[0, 0, 1, 1]]}), tmp_path, keep_all=True)


def test_boxes_of_images_of_another_size_are_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example, boxes made without the EXIF rotation, which on nearly square images would go unnoticed."""
    upright = Image.Exif()
    upright[0x0112] = 6  # stored as 100x80, shown as 80x100
    for key in ("cat/2.jpg", "dog/3.v2.jpg"):
        Image.new("RGB", SIZE).save(folder / key, exif=upright)
    width, height = SIZE
    images = [
        {"id": 1, "file_name": "1.jpg", "width": width, "height": height},
        {"id": 2, "file_name": "2.jpg", "width": width, "height": height},  # not upright
        {"id": 3, "file_name": "3.v2.jpg", "width": 0, "height": None},  # size unknown
    ]
    entries = [{"image_id": number, "bbox": [10, 10, 40, 30]} for number in (1, 2, 3)]
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": entries}))
    summary, table = converted(folder, coco, tmp_path)
    assert [len(table.boxes(key)) for key in KEYS] == [1, 0, 1, 0]
    assert (summary.given, summary.without, summary.size_mismatch) == (3, 0, 1)
    assert "1 of 2 images do not have the size" in (said := capsys.readouterr().err)
    assert "cat/2.jpg is 80x100, not 100x80" in said

    # A table has sizes too; boxes of images that were enlarged since then would fit.
    ours = tmp_path / "ours.parquet"
    convert_proposals(folder, coco, ours, show_progress=False)
    for key in KEYS[:3]:
        Image.new("RGB", (200, 200)).save(folder / key)
    with pytest.raises(InputError, match=r"made for other images: cat/1\.jpg is 200x200, not 100x80"):
        converted(folder, ours, tmp_path)


def test_equal_file_names_in_other_folders_are_other_images(folder: Path, tmp_path: Path) -> None:
    """Proposals of a whole image set, imported for only some of its folders."""
    given = dict.fromkeys(("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg", "owl/1.jpg"), BOX)
    summary, table = converted(folder, stems(tmp_path, given), tmp_path)
    assert [len(table.boxes(key)) for key in KEYS] == [1, 1, 0, 0]
    assert summary.unknown == ("dog/1.jpg", "dog/2.jpg", "owl/1.jpg")


def test_the_command_imports_every_form(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same boxes in different forms give the same table."""
    boxes = {"cat/1.jpg": [[10, 10, 40, 30], [50, 30, 30, 40]], "dog/3.v2.jpg": [[20, 20, 30, 30]]}
    ids = {"cat/1.jpg": 12, "dog/3.v2.jpg": 5}
    images = [{"id": number, "file_name": name.split("/")[1]} for name, number in ids.items()]
    entries = [{"image_id": ids[name], "bbox": box} for name, found in boxes.items() for box in found]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": entries}))
    stem = stems(tmp_path, {Path(name).stem: found for name, found in boxes.items()})
    (tmp_path / "cache").mkdir()
    for name, found in boxes.items():
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in found], np.float32)
        np.save(tmp_path / "cache" / f"{Path(name).name.split('.')[0]}.npy", corners)
    tables = []
    results = [tmp_path / "results.json", "--coco-images", tmp_path / "images.json"]
    forms = [[stem], results, [tmp_path / "coco.json"], [tmp_path / "cache"], [tmp_path / "0.parquet"]]
    for number, given in enumerate(forms):
        output = tmp_path / f"{number}.parquet"
        main(["propose", str(folder), "--from", *map(str, given), "--output", str(output)])
        tables.append(pq.read_table(output).replace_schema_metadata(None))
        said = capsys.readouterr()
        assert "3 boxes of 4 images" in said.out
        assert "from 3 boxes in the file" in said.out
        assert "torn.jpg" in said.err
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0]["boxes"].to_pylist() == [[[10, 10, 50, 40], [50, 30, 80, 70]], [], [[20, 20, 50, 50]], []]


def test_flags_without_effect_and_existing_outputs_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = stems(tmp_path, {"1": BOX})
    job = ["propose", str(folder), "--output", str(tmp_path / "t")]
    for flags, complaint in (
        (["--keep-all"], "--keep-all has no effect without --from"),
        (["--box-form=xyxy"], "--box-form has no effect without --from"),
        (["--from", str(given), "--method", "fast"], "--method has no effect with --from"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*job, *flags])
        assert complaint in capsys.readouterr().err
    (tmp_path / "t").write_text("precious")
    with pytest.raises(InputError, match="exists; give another"):
        convert_proposals(folder, given, tmp_path / "t")
    with pytest.raises(InputError, match="workers must be at least 1"):
        convert_proposals(folder, given, tmp_path / "u", workers=0)
    with pytest.raises(InputError, match="cannot be written"):
        convert_proposals(folder, given, tmp_path / "t" / "u")


def test_box_may_reach_a_pixel_outside_uncounted() -> None:
    boxes = [[-1, 0, 5, 5], [0, 0, 101, 81], [-1.5, 0, 5, 5], [0, 0, 100, 82], [3, 3, 3, 5]]
    assert _outside(np.array(boxes, np.float32), 100, 80) == 3


@pytest.mark.parametrize(("outside", "other", "fits"), [(5, 0, True), (6, 1, False), (6, 2, True), (26, 9, False)])
def test_form_is_questioned_if_over_a_twentieth_lie_outside_and_the_other_fits(
    outside: int, other: int, fits: bool
) -> None:
    counts = _Counts()
    counts.given, counts.outside, counts.outside_in_other_form, counts.largest = 100, outside, other, 50.0
    if fits:
        _check_fit(counts, "xywh", Path("p.json"))
    else:
        with pytest.raises(InputError, match=f"{outside} of 100 boxes are empty or reach outside"):
            _check_fit(counts, "xywh", Path("p.json"))
