"""`socodet inspect detections`: true positives, false positives and missed objects."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from socodet.cli import main
from socodet.errors import InputError
from socodet.reports.inspect_detections import inspect_detections
from socodet.reports.theme import FALSE_POSITIVE, IGNORED, MISSED, TRUE_POSITIVE

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


def cat(image_id: int, score: float) -> dict[str, object]:
    """A correct detection of the image's cat."""
    return {"image_id": image_id, "category_id": 7, "bbox": [12, 10, 40, 50], "score": score}


def write(path: Path, *detections: dict[str, object]) -> Path:
    path.write_text(json.dumps(detections))
    return path


def titles(path: Path) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", path.read_text(encoding="utf-8"))


def shares(pixels: np.ndarray, colour: str) -> list[int]:
    """The number of pixels with this colour in the left and the right half."""
    hit = (pixels == ImageColor.getrgb(colour)).all(axis=2)
    return [int(half.sum()) for half in np.array_split(hit, 2, axis=1)]


def test_true_positives_false_positives_and_missed_objects_have_different_colours(truth: Path, tmp_path: Path) -> None:
    """Image 1: the cat is found, and a dog that is not there. Image 2: the cat is missed. Image 5: a crowd."""
    found = write(tmp_path / "found.json", cat(1, 0.9), detection(1, 0.4), detection(4, 0.5), cat(5, 0.8))
    flags = ["--predictions", str(found), "--min-score", "0.4", "--output", str(tmp_path / "a.html")]
    main(["inspect", "detections", str(truth), *flags])
    assert titles(tmp_path / "a.html") == [
        "1.png · truth · 1 object",
        "found · 2 shown of 2, 1 false positive",
        "2.png · truth · 1 object, 1 missed",
        "found · 0 shown of 0",
        "3.png · truth · 1 object, 1 missed",
        "found · 0 shown of 0",
        "4.png · truth · 0 objects",
        "found · 1 shown of 1, 1 false positive",
        "5.png · truth · 1 object",
        "found · 1 shown of 1",
    ]
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    for words in ("cat (crowd)", "cat missed", "dog 0.40", "1 true positive, 2 false positives, 2 missed objects"):
        assert words in text
    inspect_detections(truth, found, tmp_path / "b.png", min_score=0.4)
    sheet = np.asarray(Image.open(tmp_path / "b.png").convert("RGB"))
    assert sheet.shape[1] == 2 * 480 + 3 * 10
    for colour, (left, right) in {
        TRUE_POSITIVE: (1, 1),
        MISSED: (1, 0),
        FALSE_POSITIVE: (0, 1),
        IGNORED: (1, 1),
    }.items():
        here = shares(sheet, colour)
        assert [count > 50 for count in here] == [bool(left), bool(right)], colour


@pytest.mark.parametrize(
    ("detections", "asked", "limit", "why"),
    [
        # F1 at each threshold: 0.9: 1 TP, 2 / (1 + 3 objects); 0.8: 2/5; 0.7: 4/6, the highest; 0.3: 4/7
        (
            lambda: [cat(1, 0.9), detection(1, 0.8), cat(2, 0.7), detection(3, 0.3)],
            None,
            0.7,
            r"F1 is highest \(66\.7 of 100\)",
        ),
        (
            lambda: [detection(n, score) for n, score in ((1, 0.2), (2, 0.1), (3, 0.3), (4, 0.05))],
            None,
            0.1,
            "the highest scores",
        ),
        (lambda: [cat(1, 0.3)], 0.5, 0.5, "no detection reaches; the highest score is 0.30"),
        (list, None, 0.0, "there are no detections"),
    ],
)
@pytest.mark.usefixtures("figures_unrendered")
def test_the_score_threshold_shows_something_or_says_why_not(
    detections: Any, asked: float | None, limit: float, why: str, truth: Path, tmp_path: Path, capsys: Any
) -> None:
    found = write(tmp_path / "found.json", *detections())
    inspect_detections(truth, found, tmp_path / "a.html", min_score=asked)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "found.json" in line]
    assert re.search(why, line)
    count = sum(one["score"] >= limit for one in json.loads(found.read_text()))
    assert sum(int(title.split()[2]) for title in titles(tmp_path / "a.html")[1::2]) == count


@pytest.mark.usefixtures("figures_unrendered")
def test_threshold_limit_and_seed_are_applied(truth: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "found.json", detection(1, 0.9), detection(1, 0.4))

    def shown(**asked: float) -> list[str]:
        inspect_detections(truth, found, tmp_path / "page.html", overwrite=True, **asked)  # type: ignore[arg-type]
        return titles(tmp_path / "page.html")

    assert shown(min_score=0.4)[1] == "found · 2 shown of 2, 2 false positives"
    assert shown(min_score=0.95)[1] == "found · 0 shown of 2"
    assert not any("4.png" in title for title in shown())  # has no object and no detection
    picked = {tuple(shown(limit=2, seed=seed)[::2]) for seed in range(8)}
    assert all(len(names) == 2 and list(names) == sorted(names) for names in picked)
    assert len(picked) > 2
    with pytest.raises(InputError, match=r"page\.html: exists"):
        inspect_detections(truth, found, tmp_path / "page.html")


@pytest.mark.usefixtures("figures_unrendered")
def test_missing_images_and_detections_of_other_images_are_noted(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"not an image")
    found = write(tmp_path / "found.json", detection(2, 0.9), detection(77, 0.9), detection(2, 0.8), detection(3, 0.9))
    inspect_detections(truth, found, tmp_path / "page.html")
    lines = capsys.readouterr().err.splitlines()
    (elsewhere,) = [line for line in lines if line.startswith(f"{found}: 3 × detection of an image")]
    assert elsewhere.endswith("(first: image 2)")
    assert lines[0].startswith("set: 1 × image file missing; image left out (first: ")
    assert any("1 × crowd region" in line for line in lines)
    assert lines[-1].startswith("1 × image left out (first: ")
    assert [title[:5] for title in titles(tmp_path / "page.html")[::2]] == ["1.png", "5.png"]

    strange = write(tmp_path / "strange.json", detection(77, 0.9), detection(78, 0.9))
    with pytest.raises(InputError, match="none of its 2 detections is on an image of set"):
        inspect_detections(truth, strange, tmp_path / "other.html")


@pytest.mark.usefixtures("figures_unrendered")
def test_detections_of_unknown_classes_are_left_out_with_a_note(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A detector with more classes and other class numbers: cats are matched by name, birds are unknown."""
    cats = cat(1, 0.9) | {"category_id": 9, "category": "cat"}
    birds = [detection(n, 0.95, 7) | {"category": "bird"} for n in (1, 2)]
    inspect_detections(truth, write(tmp_path / "found.json", *birds, cats), tmp_path / "page.html")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if re.search("2 × detection of a class that set lacks.*bird", line)]
    assert titles(tmp_path / "page.html")[1] == "found · 1 shown of 1"
    assert "cat 0.90" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="none of its 2 detections is of a class of set"):
        inspect_detections(truth, write(tmp_path / "birds.json", *birds), tmp_path / "birds.html")


def list_of_predict(folder: Path, *lines: dict[str, object]) -> None:
    (folder / "found.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.usefixtures("figures_unrendered")
def test_images_that_predict_did_not_see_are_not_missed_objects(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image 1 has a detection, nothing was found in 2, 3 was unreadable, and `predict` was not given 4 and 5."""
    (tmp_path / "found").mkdir()
    found = write(tmp_path / "found" / "predictions.json", cat(1, 0.9) | {"file_name": "1.png"})
    list_of_predict(
        found.parent,
        {"file_name": "1.png", "objects": [{"score": 0.9}]},
        {"file_name": "2.png", "objects": []},
        {"file_name": "3.png", "unreadable": "the file is empty"},
        {"file_name": "elsewhere.png", "objects": []},
    )
    inspect_detections(truth, found, tmp_path / "page.html")
    assert [title[:5] for title in titles(tmp_path / "page.html")[::2]] == ["1.png", "2.png"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 true positive, 0 false positives, 1 missed object" in page
    assert "2 of 5 images" in page
    assert [line for line in capsys.readouterr().err.splitlines() if "2 of 5 images" in line]

    list_of_predict(write(found).parent, {"file_name": "elsewhere.png", "objects": []})
    with pytest.raises(InputError, match="none of its images is in set"):
        inspect_detections(truth, found, tmp_path / "other.html")


@pytest.mark.usefixtures("figures_unrendered")
def test_a_file_without_a_list_of_images_notes_how_many_have_a_detection(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = write(tmp_path / "found.json", cat(1, 0.9))
    list_of_predict(tmp_path, {"file_name": "1.png", "objects": []})  # belongs to another file, predictions.json
    inspect_detections(truth, found, tmp_path / "page.html")
    assert "1 true positive, 0 false positives, 2 missed objects" in (tmp_path / "page.html").read_text(
        encoding="utf-8"
    )
    assert [line for line in capsys.readouterr().err.splitlines() if "1 of 5 images have a detection" in line]


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
def test_wrong_entries_and_flags_are_one_line(
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
