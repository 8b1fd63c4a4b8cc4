"""`socodet inspect`: proposals, views, and detections beside the ground truth."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from socodet.cli import main
from socodet.errors import InputError
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports.inspect import inspect, inspect_detections
from socodet.reports.theme import OBJECT_COLOURS
from socodet.views.settings import SampleSettings, ViewSettings

SMALL = SampleSettings((ViewSettings("whole", 64), ViewSettings("crop", 64)), boxes_per_image=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        Image.new("RGB", (120, 80 + number), (100 + number, 100, 100)).save(images / f"{number} <b>.png")
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return images


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> ProposalTable:
    settings = ProposalSettings(method="grid")
    propose(folder, tmp_path / "proposals.parquet", settings=settings, workers=1, show_progress=False)
    return ProposalTable.read(tmp_path / "proposals.parquet")


def has_object_colours(path: Path) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return any((pixels == ImageColor.getrgb(colour)).all(axis=2).sum() > 50 for colour in OBJECT_COLOURS)


def titles(path: Path) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", path.read_text(encoding="utf-8"))


def test_proposals_as_a_sheet_and_as_a_page(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    inspect("proposals", folder, tmp_path / "new" / "sheet.PNG", table=table.path)
    sheet = Image.open(tmp_path / "new" / "sheet.PNG")
    assert sheet.format == "PNG"
    assert sheet.width == 4 * 320 + 5 * 10  # five readable images: four and one
    assert has_object_colours(tmp_path / "new" / "sheet.PNG")

    inspect("proposals", folder, str(tmp_path / "page.html"), table=table.path)
    count = len(table.boxes("0 <b>.png"))
    assert titles(tmp_path / "page.html")[0] == f"0 &lt;b&gt;.png · {count} proposals"
    assert len(titles(tmp_path / "page.html")) == 5


def test_views_as_a_sheet_and_as_a_page(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    inspect("views", folder, tmp_path / "sheet.png", table=table.path, settings=SMALL, limit=2)
    assert Image.open(tmp_path / "sheet.png").width == 3 * 320 + 4 * 10
    assert has_object_colours(tmp_path / "sheet.png")
    inspect("views", folder, tmp_path / "page.html", table=table.path, settings=SMALL, limit=2)
    shown = titles(tmp_path / "page.html")
    assert len(shown) == 2 * 3
    assert shown[1].startswith("V1 · 64 px")


def test_the_seed_chooses_images_and_views(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    path = tmp_path / "page.html"

    def page(seed: int, limit: int = 2) -> str:
        inspect("views", folder, path, table=table.path, settings=SMALL, limit=limit, seed=seed, overwrite=True)
        return path.read_text(encoding="utf-8")

    def pictures(text: str) -> list[str]:
        return re.findall('src="(.*?)"', text)

    assert page(0) == page(0)
    one, other = pictures(page(0, limit=5)), pictures(page(1, limit=5))
    assert len(one) == len(other) == 5 * 3
    assert not set(one) & set(other)  # other windows and other colours of the same images
    chosen = {tuple(keys) for seed in range(6) for keys in [re.findall(r"<b>(\d &lt;b&gt;.png)", page(seed))]}
    assert len(chosen) > 2
    assert all(len(keys) == 2 and list(keys) == sorted(keys) for keys in chosen)


def test_without_a_table_proposals_are_made_for_the_images_shown(folder: Path, tmp_path: Path) -> None:
    inspect("proposals", folder, tmp_path / "page.html", limit=2, seed=3)
    shown = titles(tmp_path / "page.html")
    assert len(shown) == 2
    assert all(re.fullmatch(r"\d &lt;b&gt;.png · \d+ proposals?", title) for title in shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "page.html"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"output": "picture.jpg"}, r"neither \.png nor \.html"),
        ({"output": "page"}, r"neither \.png nor \.html"),
        ({"output": "page.html.gz"}, r"neither \.png nor \.html"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    flags: dict[str, Any], problem: str, folder: Path, table: ProposalTable, tmp_path: Path
) -> None:
    output = tmp_path / flags.pop("output", "page.html")
    with pytest.raises(InputError, match=problem) as raised:
        inspect("proposals", folder, output, table=table.path, **flags)
    assert "\n" not in str(raised.value)
    assert not output.exists()


def test_a_table_of_other_images_is_refused(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    Image.new("RGB", (33, 44)).save(folder / "0 <b>.png")
    with pytest.raises(InputError, match=r"made for other images: 0 <b>\.png is 33x44, the table has 120x80"):
        inspect("proposals", folder, tmp_path / "page.html", table=table.path)
    Image.new("RGB", (33, 44)).save(folder / "new.png")
    with pytest.raises(InputError, match=r"new\.png"):
        inspect("views", folder, tmp_path / "page.html", table=table.path, settings=SMALL)


@pytest.mark.parametrize("with_table", [True, False])
def test_a_folder_of_which_nothing_can_be_read(
    with_table: bool, folder: Path, table: ProposalTable, tmp_path: Path
) -> None:
    for file in folder.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of its images can be read"):
        inspect("proposals", folder, tmp_path / "page.html", table=table.path if with_table else None)


SIZE = (120, 80)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Five gray images; image 4 has no object."""
    images = [{"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(1, 6)]
    for image in images:
        Image.new("RGB", SIZE, (90, 90, 90)).save(tmp_path / str(image["file_name"]))
    objects = [
        {"id": n, "image_id": n, "category_id": 7, "bbox": [10, 10, 40, 50], "iscrowd": int(n == 5)}
        for n in (1, 2, 3, 5)
    ]
    content = {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    return tmp_path / "set.json"


def detection(image_id: int, score: float, category: int = 9) -> dict[str, object]:
    return {"image_id": image_id, "category_id": category, "bbox": [60, 20, 30, 40], "score": score}


def write(path: Path, *detections: dict[str, object]) -> Path:
    path.write_text(json.dumps(detections))
    return path


def shares(pixels: np.ndarray, colour: str) -> list[int]:
    """How many pixels of the colour the left and the right half have."""
    hit = (pixels == ImageColor.getrgb(colour)).all(axis=2)
    return [int(half.sum()) for half in np.array_split(hit, 2, axis=1)]


def test_truth_left_and_detections_right_each_in_its_kinds_colour(truth: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "found.json", detection(1, 0.9), detection(1, 0.4), detection(4, 0.5))
    main(["inspect", "detections", str(truth), "--predictions", str(found), "--output", str(tmp_path / "a.html")])
    assert titles(tmp_path / "a.html") == [
        "1.png · truth · 1 object",
        "found · 1 shown of 2",
        "2.png · truth · 1 object",
        "found · 0 shown of 0",
        "3.png · truth · 1 object",
        "found · 0 shown of 0",
        "4.png · truth · 0 objects",
        "found · 1 shown of 1",
        "5.png · truth · 1 object",
        "found · 0 shown of 0",
    ]
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "cat (crowd)" in text
    assert "dog 0.90" in text
    assert "dog 0.40" not in text
    inspect_detections(truth, write(tmp_path / "one.json", detection(1, 0.9)), tmp_path / "b.png", limit=5)
    sheet = np.asarray(Image.open(tmp_path / "b.png").convert("RGB"))
    assert sheet.shape[1] == 2 * 480 + 3 * 10
    cat, dog = (shares(sheet, OBJECT_COLOURS[label]) for label in (1, 2))
    assert cat[0] > 200
    assert cat[1] == 0
    assert dog[0] == 0
    assert dog[1] > 50


def test_threshold_limit_and_seed(truth: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "found.json", detection(1, 0.9), detection(1, 0.4))

    def shown(**asked: float) -> list[str]:
        inspect_detections(truth, found, tmp_path / "page.html", overwrite=True, **asked)  # type: ignore[arg-type]
        return titles(tmp_path / "page.html")

    assert shown(min_score=0.4)[1] == "found · 2 shown of 2"
    assert shown(min_score=0.95)[1] == "found · 0 shown of 2"
    assert not any("4.png" in title for title in shown())  # which has nothing to show
    picked = {tuple(shown(limit=2, seed=seed)[::2]) for seed in range(8)}
    assert all(len(names) == 2 and list(names) == sorted(names) for names in picked)
    assert len(picked) > 2
    with pytest.raises(InputError, match=r"page\.html: exists"):
        inspect_detections(truth, found, tmp_path / "page.html")


def test_images_that_are_gone_and_detections_of_other_images(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"no picture")
    found = write(tmp_path / "found.json", detection(2, 0.9), detection(77, 0.9), detection(2, 0.8), detection(3, 0.9))
    inspect_detections(truth, found, tmp_path / "page.html")
    lines = capsys.readouterr().err.splitlines()
    elsewhere = "3 × detection of an image that set lacks or whose file is missing; left out (first: image 2)"
    assert f"{found}: {elsewhere}" in lines
    assert lines[0].startswith("set: 1 × image file missing; image left out (first: ")
    assert any("1 × crowd region" in line for line in lines)
    assert lines[-1].startswith("1 × image left out (first: ")
    assert [title[:5] for title in titles(tmp_path / "page.html")[::2]] == ["1.png", "5.png"]

    strange = write(tmp_path / "strange.json", detection(77, 0.9), detection(78, 0.9))
    with pytest.raises(InputError, match="none of its 2 detections is on an image of set"):
        inspect_detections(truth, strange, tmp_path / "other.html")


@pytest.mark.parametrize(
    ("entries", "flags", "problem"),
    [
        ([detection(1, 0.9, 8)], [], "entry 0 is of category 8, which set lacks"),
        ([{"image_id": 1}], [], "entry 0 is no detection of set"),
        ([], ["--limit", "0"], "--limit must be at least 1"),
        ([], ["--output", "x.txt"], r"neither .png nor .html"),
        ([], ["--score", "0.5"], "--score"),
    ],
)
def test_what_does_not_fit_is_one_line(
    truth: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    entries: list[dict[str, object]],
    flags: list[str],
    problem: str,
) -> None:
    found = write(tmp_path / "found.json", *entries)
    command = ["inspect", "detections", str(truth), "--predictions", str(found), "--output", str(tmp_path / "a.png")]
    with pytest.raises(SystemExit):
        main([*command, *flags])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert problem in lines[0]
    assert not (tmp_path / "a.png").exists()
