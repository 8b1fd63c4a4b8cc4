"""The commands and Python of docs/deploying.md, run in order as written; the README has the same ones.

The flags added to them only make networks narrow and runs short.
"""

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
from photograph_sets import coco_file

from socodet.cli import main
from socodet.images.photographs import photographs

for package in ("onnx", "onnxruntime", "transformers"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("narrow_networks")
DOCS = Path(__file__).parent.parent
SMALL = {
    "pretrain": "--epochs 1 --warmup-epochs 0 --batch-size 2 --fpn-channels 16 "
    "--head-convs 1 --head-channels 16 --representation-size 24 --hidden-size 8 --embedding-size 4 --device cpu "
    "--workers 0",
    "finetune": "--batch-size 2 --size 32 --device cpu --workers 0",
    "predict": "--device cpu --workers 0",
    "evaluate": "--device cpu --workers 0",
    "inspect": "--limit 1 --min-score 0",
}
OTHERS = {
    "pretrain": "--recipe tiny --backbone resnet18",
    "finetune": "--detector faster_rcnn_fpn --rois-per-image 8 --precise-bn 1",
}
RT_DETR = {
    "pretrain": "--backbone timm/resnet18d --views.0.size 64 --views.1.size 64 --views.2.size 32",
    "finetune": "",
}
"""Flags added to RT-DETR's commands; `OTHERS` are added to those of other detectors."""


def blocks(text):
    """Language and content of each code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """The commands in its shell blocks, without comments."""
    lines = [line for language, block in blocks(text) if language != "python" for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of labelled images in Roboflow's layout, and a folder of new images."""
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
    name = argv[1]
    added = [*SMALL.get(name, "").split()]
    added += (RT_DETR if "rt_detr" in " ".join(argv) else OTHERS).get(name, "").split()
    if name == "finetune" and "--epochs" not in argv:
        added += ["--epochs", "1"]
    main([*argv[1:], *added])


def test_the_readme_and_deploying_show_the_same_four_commands():
    text = (DOCS / "README.md").read_text()
    section = text[text.index("## From your images to detections") : text.index("## Into your own framework")]
    ours = [[word.rstrip("/") for word in argv] for argv in commands(section)]
    theirs = commands((DOCS / "docs" / "deploying.md").read_text())[:4]
    assert ours == [[{"labelled/train": "images"}.get(word, word) for word in argv] for argv in theirs]


def test_everything_on_the_deploying_page_works(folder):
    page = blocks((DOCS / "docs" / "deploying.md").read_text())
    assert {language for language, _ in page} == {"sh", "python"}
    values = {}
    for language, block in page:
        if language == "python":
            exec(block, values)
            continue
        for argv in commands(f"```sh\n{block}```"):
            assert argv[0] == "socodet"
            run(argv)
    made = (
        "found/predictions.json",
        "found/predictions.csv",
        "found/found.jsonl",
        "found/predict.json",
        "found/drawn/street.jpg",
        "det.onnx",
        "scores.json",
        "found.html",
        "det.pth",
        "det.pkl",
        "det-mm.pth",
        "found-rt/predictions.json",
        "rt/config.json",
        "runs/more/run.json",
    )
    assert all((folder / name).exists() for name in made)
    assert sorted(path.name for path in (folder / "found").iterdir()) == sorted(
        {name.split("/")[1] for name in made if name.startswith("found/")}
    )
    assert len(values["found"].labels) == len(values["found"].boxes)
    assert len(values["names"]) == len(values["boxes"])
    assert isinstance(values["objects"], list)


def documented():
    """Every command line in a code block, without its launcher (torchrun, srun) and the commands after it."""
    for page in sorted([DOCS / "README.md", DOCS / "CONTRIBUTING.md", *(DOCS / "docs").rglob("*.md")]):
        if page.name == "results_older.md":  # documents past versions
            continue
        text = page.read_text()
        indented = "\n".join(re.findall(r"^ {4,}(.*)$", text, re.MULTILINE))
        fenced = "\n".join(block for language, block in blocks(text) if language not in ("python", "text"))
        lines = f"{fenced}\n{indented}".replace("\\\n", " ").splitlines()
        for line in dict.fromkeys(lines):
            found = re.search(r"^(?:\w+=\S+ )*(?:(?:torchrun|srun) .*?)?(?:-m )?\bsocodet ([a-z].*)$", line.strip())
            if found:
                wanted = re.split(r"[&|;]", found[1])[0].translate(str.maketrans("", "", "[]…")).replace("...", "")
                yield pytest.param(shlex.split(wanted, comments=True), id=f"{page.name}: {wanted}")


@pytest.mark.parametrize("argv", [*documented()])
def test_every_documented_command_can_be_parsed(argv, capsys, monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    with contextlib.suppress(SystemExit):
        main([*argv, "--print-config"])
    assert "(see socodet" not in capsys.readouterr().err  # flags are checked before files, which do not exist here


def test_many_commands_are_documented():
    assert len([*documented()]) > 60
