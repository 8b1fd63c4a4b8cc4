import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from socodet.errors import InputError
from socodet.images.source import open_images
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports.inspect import inspect_proposals, inspect_views
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
    source = open_images(folder)
    inspect_proposals(source, table, tmp_path / "new" / "sheet.PNG")
    sheet = Image.open(tmp_path / "new" / "sheet.PNG")
    assert sheet.format == "PNG"
    assert sheet.width == 4 * 320 + 5 * 10  # five readable images: four and one
    assert has_object_colours(tmp_path / "new" / "sheet.PNG")

    inspect_proposals(source, table, str(tmp_path / "page.html"))
    count = len(table.boxes("0 <b>.png"))
    assert titles(tmp_path / "page.html")[0] == f"0 &lt;b&gt;.png · {count} proposals"
    assert len(titles(tmp_path / "page.html")) == 5


def test_views_as_a_sheet_and_as_a_page(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    source = open_images(folder)
    inspect_views(source, table, SMALL, tmp_path / "sheet.png", limit=2)
    assert Image.open(tmp_path / "sheet.png").width == 3 * 320 + 4 * 10
    assert has_object_colours(tmp_path / "sheet.png")
    inspect_views(source, table, SMALL, tmp_path / "page.html", limit=2)
    shown = titles(tmp_path / "page.html")
    assert len(shown) == 2 * 3
    assert shown[1].startswith("V1 · 64 px")


def test_the_seed_picks_images_and_views(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    source = open_images(folder)

    def page(seed: int, epoch: int = 0) -> str:
        inspect_views(source, table, SMALL, tmp_path / "page.html", limit=2, seed=seed, epoch=epoch)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    def pictures(text: str) -> list[str]:
        return re.findall('src="(.*?)"', text)

    assert page(0) == page(0)
    assert pictures(page(0)) != pictures(page(0, epoch=1))
    picked = {tuple(titles_of) for seed in range(6) for titles_of in [re.findall(r"<b>(\d &lt;b&gt;.png)", page(seed))]}
    assert len(picked) > 2
    assert all(len(keys) == 2 and list(keys) == sorted(keys) for keys in picked)


@pytest.mark.parametrize("name", ["picture.jpg", "page", "page.html.gz"])
def test_an_output_of_another_kind_is_refused(name: str, folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither \.png nor \.html") as raised:
        inspect_proposals(open_images(folder), table, tmp_path / name)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / name).exists()


def test_a_table_of_other_images_is_refused(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    Image.new("RGB", (33, 44)).save(folder / "0 <b>.png")
    with pytest.raises(InputError, match=r"made for other images: 0 <b>\.png is 33x44, the table has 120x80"):
        inspect_proposals(open_images(folder), table, tmp_path / "page.html")
    Image.new("RGB", (33, 44)).save(folder / "new.png")
    with pytest.raises(InputError, match=r"new\.png"):
        inspect_views(open_images(folder), table, SMALL, tmp_path / "page.html")


def test_a_folder_of_which_nothing_can_be_read(folder: Path, table: ProposalTable, tmp_path: Path) -> None:
    for file in folder.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of its images can be read"):
        inspect_proposals(open_images(folder), table, tmp_path / "page.html")
