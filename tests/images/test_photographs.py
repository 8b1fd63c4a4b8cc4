import re

import numpy as np

from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.images.source import open_images


def test_the_shipped_photographs_are_few_readable_and_small() -> None:
    source = open_images(photographs())
    assert len(source) == 12
    data = [source.read(index) for index in range(len(source))]
    assert sum(map(len, data)) < 1.2e6
    images = [decode_image(encoded) for encoded in data]
    assert all(150 <= max(image.shape) <= 400 and image.std() > 20 for image in images)
    assert sum(bool(np.ptp(image, axis=2).max() == 0) for image in images) == 3


def test_every_photograph_has_an_author_a_licence_and_a_source() -> None:
    rows = re.findall(r"^\| `(.+?)` \|(.+)\|$", (photographs() / "ATTRIBUTION.md").read_text(), re.MULTILINE)
    source = open_images(photographs())
    assert sorted(name for name, _ in rows) == [source.key(index) for index in range(len(source))]
    for _, columns in rows:
        cells = [cell.strip() for cell in columns.split("|")]
        assert len(cells) == 5
        assert all(cells)
        assert re.search(r"CC0|CC BY|public domain|no known copyright", cells[2])
