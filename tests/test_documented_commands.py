"""The commands of docs/deploying.md, run one after another as they are written, on photographs; README's are the same.

What is added to them makes networks narrow and runs short.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from photograph_sets import coco_file

from socodet.cli import main
from socodet.images.photographs import photographs

pytest.importorskip("onnx")
DOCS = Path(__file__).parent.parent
SMALL = {
    "pretrain": "--recipe tiny --epochs 1 --warmup-epochs 0 --batch-size 2 --backbone resnet18 --fpn-channels 16 "
    "--head-convs 1 --head-channels 16 --representation-size 24 --hidden-size 8 --embedding-size 4 --device cpu "
    "--workers 0",
    "finetune": "--detector faster_rcnn_fpn --batch-size 2 --size 32 --rois-per-image 8 --precise-bn 1 --device cpu "
    "--workers 0",
    "predict": "--device cpu --workers 0",
    "evaluate": "--device cpu --workers 0",
    "inspect": "--limit 1 --min-score 0",
}


def commands(text):
    """Those of its shell blocks, without comments."""
    blocks = re.findall(r"```(?:sh)?\n(socodet .*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of labelled images in Roboflow's layout, and one of new images."""
    for split, names in (("train", ("hopper", "chelsea")), ("valid", ("rocket",))):
        (tmp_path / "labelled" / split).mkdir(parents=True)
        coco_file(tmp_path / "labelled" / split / "_annotations.coco.json", names)
        for name in names:
            shutil.copy(photographs() / f"{name}.jpg", tmp_path / "labelled" / split)
    (tmp_path / "new_images").mkdir()
    shutil.copy(photographs() / "cameraman.jpg", tmp_path / "new_images" / "street.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(argv):
    name, added = argv[1], SMALL.get(argv[1], "").split()
    if name == "finetune" and "--epochs" not in argv:
        added += ["--epochs", "1"]
    main([*argv[1:], *added])


def test_the_readmes_four_commands_are_those_of_deploying():
    text = (DOCS / "README.md").read_text()
    section = text[text.index("## From your images to detections") : text.index("## Into your own framework")]
    ours = [[word.rstrip("/") for word in argv] for argv in commands(section)]
    theirs = commands((DOCS / "docs" / "deploying.md").read_text())[:4]
    assert ours == [[{"labelled/train": "images"}.get(word, word) for word in argv] for argv in theirs]


def test_every_command_of_deploying_works(folder):
    found = commands((DOCS / "docs" / "deploying.md").read_text())
    assert len(found) == 10
    for argv in found:
        run(argv)
    made = (
        "found/predictions.json",
        "found/drawn/street.jpg",
        "det.onnx",
        "scores.json",
        "found.html",
        "det.pth",
        "det.pkl",
        "det-mm.pth",
        "runs/more/run.json",
    )
    assert all((folder / name).exists() for name in made)
