"""`socodet inspect`: proposals and views."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageColor

from socodet.cli import main
from socodet.errors import InputError
from socodet.images.pack import pack
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.pretraining import planning
from socodet.pretraining.recipes.auto import plan
from socodet.pretraining.survey import ImageSurvey
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports import inspect as inspecting
from socodet.reports.inspect import inspect
from socodet.reports.theme import OBJECT_COLOURS
from socodet.runtime.world import ALONE
from socodet.views.sample import make_sample
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


def keys(images: Path) -> list[str]:
    source = open_images(images)
    return [source.key(index) for index in range(len(source))]


def save(folder: Path) -> None:
    """A dataset as `save_to_disk` writes it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": (photographs() / f"{name}.jpg").read_bytes(), "path": None} for name in ("chelsea", "coffee")]
    table = pa.table({"image": pa.array(rows, kind)})
    folder.mkdir()
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (folder / "dataset_info.json").write_text('{"features": {"image": {"_type": "Image"}}}')


def titles(path: Path) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", path.read_text(encoding="utf-8"))


def test_proposals_are_drawn_as_a_sheet_and_as_a_page(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    inspect("proposals", folder, tmp_path / "new" / "sheet.PNG", table=table.path)
    sheet = Image.open(tmp_path / "new" / "sheet.PNG")
    assert sheet.format == "PNG"
    assert sheet.width == 4 * 320 + 5 * 10  # five readable images: four in the first row, one in the second
    assert has_object_colours(tmp_path / "new" / "sheet.PNG")

    inspect("proposals", folder, str(tmp_path / "page.html"), table=table.path)
    count = len(table.boxes("0 <b>.png"))
    assert titles(tmp_path / "page.html")[0] == f"0 &lt;b&gt;.png · {count} proposals"
    assert len(titles(tmp_path / "page.html")) == 5


def test_views_are_drawn_as_a_sheet_and_as_a_page(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    inspect("views", folder, tmp_path / "sheet.png", table=table.path, settings=SMALL, limit=2)
    assert Image.open(tmp_path / "sheet.png").width == 3 * 320 + 4 * 10
    assert has_object_colours(tmp_path / "sheet.png")
    inspect("views", folder, tmp_path / "page.html", table=table.path, settings=SMALL, limit=2)
    shown = titles(tmp_path / "page.html")
    assert len(shown) == 2 * 3
    assert shown[1].startswith("V1 · 64 px")


def view_page(folder: Path, table: ProposalTable, path: Path, seed: int, limit: int = 2) -> str:
    inspect("views", folder, path, table=table.path, settings=SMALL, limit=limit, seed=seed, overwrite=True)
    return path.read_text(encoding="utf-8")


def test_the_seed_selects_views(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    def drawings(seed: int) -> list[str]:
        return re.findall('src="(.*?)"', view_page(folder, table, tmp_path / "page.html", seed, limit=5))

    one, other = drawings(0), drawings(1)
    assert drawings(0) == one
    assert len(one) == len(other) == 5 * 3
    assert not set(one) & set(other)  # the same images with other windows and other colours


@pytest.mark.usefixtures("figures_unrendered")
def test_the_seed_selects_images(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    pages = [view_page(folder, table, tmp_path / "page.html", seed) for seed in (0, *range(6))]
    assert pages[0] == pages[1]
    chosen = {tuple(re.findall(r"<b>(\d &lt;b&gt;.png)", page)) for page in pages}
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
        ({"output": "drawing.jpg"}, r"neither \.png nor \.html"),
        ({"output": "page"}, r"neither \.png nor \.html"),
        ({"output": "page.html.gz"}, r"neither \.png nor \.html"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"seed": -1}, "--seed must be at least 0"),
    ],
)
def test_wrong_flags_are_refused(
    flags: dict[str, Any], problem: str, folder: Path, table: ProposalTable, tmp_path: Path
) -> None:
    output = tmp_path / flags.pop("output", "page.html")
    with pytest.raises(InputError, match=problem) as raised:
        inspect("proposals", folder, output, table=table.path, **flags)
    assert "\n" not in str(raised.value)
    assert not output.exists()


def test_a_sheet_among_the_images_is_refused(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = sorted(folder.iterdir())
    for output in (folder / "sheet.png", folder / "new" / "sheet.PNG", tmp_path / "link" / "sheet.png"):
        with pytest.raises(InputError, match="one of the images"):
            inspect("proposals", folder, output, table=table.path)
    assert sorted(folder.iterdir()) == before
    inspect("proposals", folder, folder / "page.html", table=table.path, limit=1)
    (folder / "page.html").unlink()


def test_a_sheet_may_be_written_where_no_images_are_read(tmp_path: Path) -> None:
    for root in (tmp_path / "voc" / "JPEGImages", tmp_path / "images"):
        root.mkdir(parents=True)
        Image.new("RGB", (120, 80), (100, 100, 100)).save(root / "a.png")
    study = tmp_path / "images" / "study"
    study.mkdir()
    (study / "ablation.json").write_text('{"asked": {}, "jobs": {}}')
    save(tmp_path / "saved")
    for root, inside in (
        ("voc", ""),
        ("voc", "SegmentationClass"),
        ("images", ".hidden"),
        ("images", "study"),
        ("images", "study/deep"),
        ("saved", ""),
    ):
        before = keys(tmp_path / root)
        inspect("proposals", tmp_path / root, tmp_path / root / inside / "sheet.png", limit=1)
        assert keys(tmp_path / root) == before
    for inside in ("JPEGImages", "JPEGImages/deep"):
        with pytest.raises(InputError, match="one of the images"):
            inspect("proposals", tmp_path / "voc", tmp_path / "voc" / inside / "sheet.png")


def test_a_sheet_beside_shards_is_refused(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "shards", show_progress=False)
    with pytest.raises(InputError, match="one of the images"):
        inspect("proposals", tmp_path / "shards", tmp_path / "shards" / "sheet.png")
    inspect("proposals", tmp_path / "shards" / "*.tar", tmp_path / "shards" / ".sheet.png", limit=1)
    before = keys(tmp_path / "shards")
    inspect("proposals", tmp_path / "shards", tmp_path / "shards" / ".hidden" / "sheet.png", limit=1)
    assert keys(tmp_path / "shards") == before == [f"{number} <b>.png" for number in range(5)]


def test_a_table_of_other_images_is_refused(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    Image.new("RGB", (33, 44)).save(folder / "0 <b>.png")
    with pytest.raises(InputError, match=r"made for other images: 0 <b>\.png is 33x44, the table has 120x80"):
        inspect("proposals", folder, tmp_path / "page.html", table=table.path)
    Image.new("RGB", (33, 44)).save(folder / "new.png")
    with pytest.raises(InputError, match=r"new\.png"):
        inspect("views", folder, tmp_path / "page.html", table=table.path, settings=SMALL)


@pytest.mark.parametrize("with_table", [True, False])
def test_a_folder_without_a_readable_image_is_refused(
    with_table: bool, folder: Path, table: ProposalTable, tmp_path: Path
) -> None:
    for file in folder.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of its images can be read"):
        inspect("proposals", folder, tmp_path / "page.html", table=table.path if with_table else None)


def test_the_recipe_auto_draws_planned_views_and_proposals(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = ImageSurvey(count=5, surveyed=5, short_side=80, grey=1.0, few_boxes=1.0)
    monkeypatch.setattr(planning, "survey_images", lambda *_, **__: survey)
    made: list[ProposalSettings] = []
    views: list[SampleSettings] = []
    monkeypatch.setattr(inspecting, "propose", lambda *some, settings, **more: made.append(settings) or propose(*some))
    monkeypatch.setattr(inspecting, "make_sample", lambda *some: views.append(some[2]) or make_sample(*some))
    main(["inspect", "views", str(folder), "--recipe", "auto", "--output", str(tmp_path / "a.html")])
    planned = plan(survey, planning.this_machine(planning.choose_device("auto", ALONE))).recipe
    assert made == [planned.proposals]
    assert set(views) == {planned.sample}
    flags = ["--proposals.method", "grid", "--limit", "1", "--output", str(tmp_path / "b.html")]
    main(["inspect", "proposals", str(folder), *flags])
    assert made[-1] == ProposalSettings("grid")
    assert f"{folder} (6)" in (tmp_path / "b.html").read_text()  # of all images, not only of those drawn


def test_proposals_come_from_a_table_or_from_flags_but_not_both(
    table: ProposalTable, folder: Path, tmp_path: Path
) -> None:
    command = [
        "inspect",
        "proposals",
        str(folder),
        "--output",
        str(tmp_path / "a.html"),
        "--proposals",
        str(table.path),
    ]
    with pytest.raises(SystemExit):
        main([*command, "--proposals.min-scale", "0.1"])
    main(command)
    text = (tmp_path / "a.html").read_text()
    assert "selective search" not in text  # the table's boxes are a grid
