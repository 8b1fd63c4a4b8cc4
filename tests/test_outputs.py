"""No command or Python function overwrites existing output unasked, however the output's path is spelled."""

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from PIL import Image

import socodet
from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.finetuning.run import FinetuneRecipe, prepare_folder
from socodet.finetuning.settings import FinetuneSettings
from socodet.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("narrow_networks")

NARROW_FLAGS = "--backbone resnet18 --fpn-channels 16 --head-convs 1 --head-channels 16 --representation-size 24"
CPU = "--device cpu --workers 0"
FINETUNE = f"{NARROW_FLAGS} {CPU} --detector retinanet_r50_fpn --iterations 1 --batch-size 2 --size 32"
PRETRAIN = f"{NARROW_FLAGS} {CPU} --recipe tiny --epochs 2 --batch-size 4 --hidden-size 8 --embedding-size 4"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Inputs for the commands: images, a dataset, a detector's run and its detections."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "images").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    data = coco_file(folder / "train.json", ("chelsea", "rocket"), masks=False)
    coco_file(folder / "val.json", ("chelsea", "rocket"), masks=False)
    (folder / "found.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 10, "bbox": [9, 9, 9, 9], "score": 1}])
    )
    settings = FinetuneSettings("retinanet_r50_fpn", "coco_1x", iterations=1, size=32)
    recipe = FinetuneRecipe(settings, NARROW, settings.resolved_schedule(2))
    run = RunFolder(folder / "detector")
    prepare_folder(run, recipe, open_detection_set(data), None, overwrite=False)
    network = new_detector("retinanet_r50_fpn", NARROW, 4, inference=recipe.inference)
    run.save_checkpoint(1, {"step": 1, "total_steps": 1, "detector": network.state_dict()})
    torch.save({"model": {}}, folder / "weights.pth")
    (folder / "other.json").write_text(json.dumps({"nothing": [[0, 0, 9, 9]]}))
    (folder / "broken").mkdir()
    (folder / "broken" / "a.jpg").write_bytes(b"no image")
    return folder


FILES = {
    "propose": ("theirs.parquet", "propose images --method grid --output"),
    "export": ("theirs.pth", "export no-run --output"),
    "export a detector": ("theirs.onnx", "export detector --output"),
    "report": ("theirs.html", "report detector --output"),
    "convert": ("theirs.json", "convert train.json --output"),
    "probe": ("theirs.json", "probe no-run --data . --output"),
    "evaluate": ("theirs.json", "evaluate detector --data train.json --output"),
    "evaluate, predictions": ("theirs.json", "evaluate detector --data train.json --save-predictions"),
    "inspect": ("theirs.png", "inspect proposals images --output"),
    "inspect detections": ("theirs.png", "inspect detections train.json --predictions found.json --output"),
}
FOLDERS = {
    "pretrain": f"pretrain images {PRETRAIN} --output",
    "finetune": f"finetune train.json {FINETUNE} --output",
    "finetune, compared": f"finetune . {FINETUNE} --seeds 2 --output",
    "predict": f"predict detector images {CPU} --output",
    "pack": "pack images --output",
    "demo": "demo images --output",
    "ablate": f"ablate table5c images --epochs 2 --batch-size 4 {CPU} --output",
    "reproduce own-data": f"reproduce own-data --data . {CPU} --output",
}


WRONG = {
    "propose": "propose gone --output new/deep/a.parquet",
    "propose, made elsewhere": "propose images --from gone --output new/deep/a.parquet",
    "propose, other images": "propose images --from other.json --output new/deep/a.parquet",
    "convert": "convert gone --output new/deep/a.json --save-images new/images",
    "export": "export gone --output new/deep/a.pth",
    "report": "report gone --output new/deep/a.html",
    "report, data": "report detector --data gone --output new/deep/a.html",
    "probe": "probe gone --data . --output new/deep/a.json",
    "evaluate": "evaluate gone --data train.json --output new/deep/a.json --save-predictions new/other/b.json",
    "evaluate, data": f"evaluate detector --data other.json {CPU} --output new/deep/a.json",
    "inspect": "inspect proposals gone --output new/deep/a.png",
    "inspect detections": "inspect detections train.json --predictions gone --output new/deep/a.png",
    "pretrain": f"pretrain gone {PRETRAIN} --output new/deep/a",
    "pretrain, proposals": f"pretrain images {PRETRAIN} --proposals gone --output new/deep/a",
    "pretrain, weights": f"pretrain images {PRETRAIN} --start-from other.json --output new/deep/a",
    "finetune": f"finetune other.json {FINETUNE} --output new/deep/a",
    "finetune, weights": f"finetune train.json --init other.json {FINETUNE} --output new/deep/a",
    "finetune, compared": f"finetune . {FINETUNE} --seeds 2 --init a=other.json --output new/deep/a",
    "predict": f"predict detector gone {CPU} --output new/deep/a",
    "pack": "pack broken --output new/deep/a",
    "demo": "demo gone --output new/deep/a",
    "ablate": f"ablate table5c images --proposals gone --epochs 2 --batch-size 4 {CPU} --output new/deep/a",
    "reproduce own-data": f"reproduce own-data --data . --images broken {CPU} --output new/deep/a",
    "reproduce own-data, weights": (
        f"reproduce own-data --data . --weights other.json --weights-backbone resnet18 {CPU} --output new/deep/a"
    ),
}


def spellings(path: Path) -> list[str]:
    """Spellings of an existing path: through missing folders, through links, or with a trailing slash; links to it."""
    above = path.parent
    (above / "beside").symlink_to(above, target_is_directory=True)
    (above / "to it").symlink_to(path)
    (above / "deep" / "down").mkdir(parents=True)
    (above / "far").symlink_to(above / "deep" / "down")
    name = path.name
    return [
        str(path),
        f"{above}/new/../{name}",
        f"{above}/new/deeper/../../{name}",
        f"{above}/beside/{name}",
        f"{above}/beside/new/../{name}",
        f"{above}/far/../../{name}",  # `..` of a link is the parent of its target
        f"{above}/./{name}/",
        f"{above}//{name}",
    ]


def refused(capsys, command, spelled):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), spelled])
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "socodet: error" in line]
    assert "theirs" in line or "to it" in line


@pytest.mark.parametrize("name", FILES)
def test_no_command_replaces_a_file(tmp_path, monkeypatch, capsys, given, name):
    monkeypatch.chdir(given)
    file, command = FILES[name]
    theirs = tmp_path / file
    theirs.write_bytes(b"theirs")
    link = tmp_path / f"to it{theirs.suffix}"
    link.symlink_to(theirs)
    for spelled in (*spellings(theirs), str(link)):
        refused(capsys, command, spelled)
    assert theirs.read_bytes() == b"theirs"
    assert not (tmp_path / "new").exists()
    assert link.is_symlink()


@pytest.mark.parametrize("name", {**FILES, **FOLDERS})
def test_no_command_replaces_a_pipe_or_a_device(tmp_path, monkeypatch, capsys, given, name):
    monkeypatch.chdir(given)
    file, command = FILES.get(name, ("theirs", FOLDERS.get(name)))
    pipe = tmp_path / file
    os.mkfifo(pipe)
    refused(capsys, f"{command.replace(' --', ' --overwrite --', 1)}", str(pipe))
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("name", FOLDERS)
def test_no_command_writes_into_a_folder_with_other_files(tmp_path, monkeypatch, capsys, given, name):
    monkeypatch.chdir(given)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").touch()
    for spelled in (
        *spellings(theirs)[1::3],
        str(tmp_path / "to it"),
    ):  # not all: parsing hundreds of flags takes a while
        refused(capsys, FOLDERS[name], spelled)
    refused(capsys, FOLDERS[name].replace("--output", "--overwrite --output"), f"{tmp_path}/new/../theirs")
    assert [file.name for file in theirs.iterdir()] == ["thesis.tex"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", WRONG)
def test_a_command_that_refuses_its_input_creates_nothing(monkeypatch, given, name):
    monkeypatch.chdir(given)
    with pytest.raises(SystemExit) as ended:
        main(WRONG[name].split())
    assert ended.value.code == 2
    assert not Path("new").exists()


def python_functions(given):
    """Name of a function → a call that writes to the given file or folder."""
    data, images, run = given / "train.json", given / "images", given / "detector"
    from socodet.finetuning.evaluate import evaluate
    from socodet.finetuning.finetune import finetune
    from socodet.images.pack import pack
    from socodet.probing.probe import probe
    from socodet.probing.settings import ProbeData
    from socodet.reports.inspect_detections import inspect_detections
    from socodet.reports.report import report

    settings = FinetuneSettings("retinanet_r50_fpn", iterations=1, batch_size=2, size=32)
    return {
        "propose": lambda to: socodet.propose(images, to),
        "export": lambda to: socodet.export(given, to),
        "export_detector": lambda to: socodet.export_detector(run, to),
        "convert": lambda to: socodet.convert(data, to),
        "inspect": lambda to: socodet.inspect("proposals", images, to),
        "inspect_detections": lambda to: inspect_detections(data, given / "found.json", to),
        "report": lambda to: report([run], to),
        "probe": lambda to: probe(run, ProbeData(given), output=to),
        "evaluate": lambda to: evaluate(run, data, output=to),
        "pretrain": lambda to: socodet.pretrain(images, "tiny", to),
        "finetune": lambda to: finetune(data, to, settings, model=NARROW),
        "predict": lambda to: socodet.predict(run, images, to),
        "pack": lambda to: pack(images, to),
        "demo": lambda to: socodet.demo(images, to),
        "compare": lambda to: socodet.compare(given, to, [socodet.Init("scratch", "scratch")], settings, model=NARROW),
        "ablate": lambda to: socodet.ablate("table5c", images, to, socodet.Budget(epochs=1, batch_size=2, width=0.1)),
        "reproduce_own_data": lambda to: socodet.reproduce_own_data(given, to),
    }


FOLDER_FUNCTIONS = ("pretrain", "finetune", "predict", "pack", "demo")
SUFFIXES = {"propose": ".parquet", "export": ".pth", "export_detector": ".onnx", "report": ".html"}
SUFFIXES |= dict.fromkeys(("inspect", "inspect_detections"), ".png")


@pytest.mark.parametrize("name", [*SUFFIXES, "convert", "probe", "evaluate", *FOLDER_FUNCTIONS])
def test_python_functions_overwrite_nothing_either(tmp_path, given, name):
    theirs = tmp_path / f"theirs{'' if name in FOLDER_FUNCTIONS else SUFFIXES.get(name, '.json')}"
    if name in FOLDER_FUNCTIONS:
        theirs.mkdir()
        (theirs / "thesis.tex").touch()
    else:
        theirs.write_bytes(b"theirs")
    with pytest.raises(InputError, match="theirs"):
        python_functions(given)[name](f"{tmp_path}/new/../{theirs.name}")
    assert not (tmp_path / "new").exists()
    assert theirs.is_dir() or theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize("name", ["pretrain", "finetune", "predict", "compare", "ablate", "reproduce_own_data"])
def test_a_folder_in_use_by_another_process_is_refused(tmp_path, given, name):
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"):
            python_functions(given)[name](tmp_path)
    finally:
        os.close(handle)
    assert not list(tmp_path.iterdir())


def test_a_card_shared_by_names_in_different_case_is_not_replaced(tmp_path, monkeypatch, capsys, given):
    monkeypatch.chdir(given)
    card = tmp_path / "theirs-torchvision.md"
    card.write_text("theirs")
    for name in ("theirs.pth", "theirs.PTH"):
        refused(capsys, "export detector --format torchvision --output", str(tmp_path / name))
    assert card.read_text() == "theirs"
    assert not list(tmp_path.glob("*.[pP]*"))


def test_converting_saves_no_images_into_a_folder_with_other_files(tmp_path, given):
    from test_datasets_huggingface import save

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").touch()
    data = save(tmp_path / "set")
    with pytest.raises(InputError, match="theirs"):
        socodet.convert(data, tmp_path / "a.json", save_images=f"{tmp_path}/new/../theirs")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "a.json").exists()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a file system that not even root can write to")
@pytest.mark.parametrize("name", sorted({*FILES, *FOLDERS} - {"probe"}))  # needs a pretraining run first
def test_an_unwritable_output_is_one_line(monkeypatch, capsys, given, name):
    """In Linux's /sys, where nobody can create a file or a folder."""
    monkeypatch.chdir(given)
    file, command = FILES.get(name, ("theirs", FOLDERS.get(name)))
    command = command.replace("no-run", "detector")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), f"/sys/kernel/{file}"])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("socodet: error:")
    assert "/sys/kernel" in last
