"""No drawing overwrites another, whatever the images' names and whenever they are added."""

import os

import pytest

from socodet.images.folder import ImageFolder
from socodet.prediction.drawing_names import DrawingNames


def names_of(keys, left=None, apart=None):
    names = DrawingNames(ImageFolder(None, keys), range(len(keys)) if left is None else left, apart or {})
    return [names.of(key) for key in keys], names.apart


def test_drawings_are_named_after_their_images():
    keys = [
        "a.jpg",
        "a.png",
        "b.jpeg",
        "b.JPG",
        "sub/a.jpg",
        "00000012",
        "x.jpg.jpg",
        "y.png.jpg",
        "../c.tif",
        "/d.gif",
    ]
    expected = ["a.jpg", "a.png.jpg", *keys[2:5], "00000012.jpg", *keys[6:8], "c.tif.jpg", "d.gif.jpg"]
    assert names_of(keys) == (expected, {})


@pytest.mark.parametrize(
    "keys",
    [
        ["a.png", "a.png.jpg"],
        ["a", "a.jpg"],
        ["../a.jpg", "a.jpg"],
        ["/s/a.jpg", "s/a.jpg"],
        ["../../a.png", "../a.png", "/a.png", "a.png", "a.png.jpg"],
        [f"{'x' * 250}.bmp", f"{'x' * 250}.png", f"{'x' * 250}.jpg"],
        [f"{'ü' * 125}é.bmp", f"{'ü' * 125}é.tif"],
        ["y" * 254, "y" * 255, f"{'y' * 300}.jpg"],
        ["a.png", "a.png.jpg/b.jpg"],
    ],
)
def test_every_image_has_its_own_drawing(keys, tmp_path):
    for order in (keys, keys[::-1]):
        drawn, _ = names_of(order)
        for key, name in zip(order, drawn, strict=True):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(key)
        assert [(tmp_path / name).read_text() for name in drawn] == order
        assert all(os.path.realpath(tmp_path / name).startswith(f"{tmp_path}/") for name in drawn)
        for name in drawn:
            (tmp_path / name).unlink()


@pytest.mark.parametrize("keys", [["a.png", "a.png.jpg"], ["a.png.jpg", "a.png"]])
def test_image_added_later_keeps_the_existing_drawings(keys):
    first, _ = names_of(keys[:1])
    both, apart = names_of(keys, left=[1])
    assert both[0] == first[0] != both[1]
    assert names_of(keys, left=[0], apart=apart) == (both, apart)  # as if the first image has changed since
