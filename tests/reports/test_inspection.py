"""`socodet inspect detections`: what was found beside the truth, and what is said of what does not fit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from socodet.cli import main
from socodet.errors import InputError
from socodet.reports.drawing import labelled_panel
from socodet.reports.inspection import inspect_detections
from socodet.reports.theme import OBJECT_COLOURS

SIZE = (120, 80)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Five grey pictures; picture 4 has no object."""
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


def titles(path: Path) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", path.read_text(encoding="utf-8"))


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
    with pytest.raises(InputError, match="none of its 2 detections is of a picture of set"):
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


def test_small_boxes_lie_over_large_ones_and_keep_their_words() -> None:
    boxes = np.array([[40, 40, 50, 50], [0, 0, 100, 100], [20, 20, 70, 70]], np.float32)
    panel = labelled_panel("a", np.zeros((100, 100, 3), np.uint8), boxes, [1, 2, 3], ["s", "l", "m"])
    assert panel.boxes.tolist() == boxes[[1, 2, 0]].tolist()
    assert panel.labels == ("l", "m", "s")
    assert panel.colours == tuple(OBJECT_COLOURS[k] for k in (2, 3, 1))
    assert panel.alt == "a: s, l, m"
