"""`socodet push`, and `hub:USER/NAME` wherever a run or weights are read, with the Hub's real client."""

import json
import os
import pickle
import shutil
import sys

import pytest
import safetensors.torch
import torch
import yaml
from narrow_models import NARROW
from photograph_sets import coco_file

import socodet
from hub_stand_in import TOKEN, Hub
from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.finetuning.run import SCORES, FinetuneRecipe, prepare_folder
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.settings import ObjectiveSettings
from socodet.models.soco import build_soco
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.studies.inits import named_inits
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile
from socodet.weights.hub import download, hub_errors, origin, with_downloads

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub, and a logged-in user."""
    from huggingface_hub import constants

    hub = Hub()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, narrow_networks):
    """A pretraining run of narrow networks, whose records contain folders of somebody's machine."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "first")
    soco = build_soco(NARROW, 3, ObjectiveSettings())
    run.write_description(
        {
            "recipe": to_json(Recipe("custom", model=NARROW)),
            "images": {"count": 12, "names_sha256": "ab" * 32},
            "location": "/home/somebody/birds",
            "command": "socodet pretrain /home/somebody/birds --output first --embedding-size 8",
            "start": {"from": "/home/somebody/r18.pth", "file": "r18.pth", "sha256": "cd" * 32},
        }
    )
    run.save_checkpoint(
        30, {"step": 30, "total_steps": 100, "model": soco.state_dict(), "optimizer": {"x": torch.ones(3)}}
    )
    run.log.write_text('{"step": 30, "loss": -2.25}\n')
    return run.path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, narrow_networks):
    """A fine-tuning run of narrow networks."""
    folder = tmp_path_factory.mktemp("tuned")
    data = open_detection_set(coco_file(folder / "set.json"))
    settings = FinetuneSettings("faster_rcnn_fpn", "coco_1x", iterations=9, size=96, rois_per_image=32)
    recipe = FinetuneRecipe(settings, NARROW, settings.resolved_schedule(6))
    run = RunFolder(folder / "run")
    prepare_folder(run, recipe, data, None, overwrite=False)
    network = new_detector("faster_rcnn_fpn", NARROW, 4, inference=recipe.inference, seed=5)
    run.save_checkpoint(9, {"step": 9, "total_steps": 9, "detector": network.state_dict()})
    return run.path


def card_of(hub, name):
    _, front, text = hub.repositories[name][-1]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_pushed_pretraining_run_is_read_like_its_folder(hub, pretrained, tmp_path, capsys):
    main(["push", str(pretrained), "user/birds-run", "--license", "cc-by-4.0", "--datasets", "user/birds"])
    assert "--init hub:user/birds-run" in capsys.readouterr().out
    files = hub.repositories["user/birds-run"][-1]
    assert set(files) == {"README.md", "run.json", "log.jsonl", "checkpoints/step-00000030.safetensors"}
    assert b"/home/somebody" not in b"".join(files.values())
    assert b"socodet pretrain" not in files["run.json"]
    front, text = card_of(hub, "user/birds-run")
    assert (front["license"], front["library_name"], front["datasets"]) == ("cc-by-4.0", "socodet", ["user/birds"])
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert "30 of 100 steps" in text
    assert "hub:user/birds-run" in text

    name = "hub:user/birds-run"
    there = socodet.load_pretrained(detector := socodet.build_detector(name, num_classes=4), name, show_report=False)
    here = socodet.load_pretrained(
        twin := socodet.build_detector(pretrained, num_classes=4), pretrained, show_report=False
    )
    assert there.loaded_modules == here.loaded_modules
    loaded = [key for key in detector.state_dict() if key.startswith(tuple(there.loaded_modules))]
    assert len(loaded) > 100
    assert all(torch.equal(detector.state_dict()[key], twin.state_dict()[key]) for key in loaded)

    main(["export", name, "--output", str(tmp_path / "there.safetensors")])
    main(["export", str(pretrained), "--output", str(tmp_path / "here.safetensors")])
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()
    (init,) = named_inits([name])
    assert init.name == "birds-run"
    assert RunFolder(tmp_path.joinpath(init.source)).checkpoints()


TEXTS = {
    "cannot read /home/somebody/my birds/a.jpg: gone": "cannot read a.jpg: gone",
    "began at=/home/somebody/a.pth and '/home/somebody/b.pth', then": "began at=a.pth and 'b.pth', then",
    "see file:///home/somebody/a.html, or https://example.org/home/a.html": "see a.html, or https://example.org/home/a.html",
    r"from C:\Users\somebody\my birds\a.jpg, C:/somebody/b.jpg (2), \\somebody\c\d.jpg": "from a.jpg, b.jpg (2), d.jpg",
    "60 km/h, 3 / 4, runs/first, timm/resnet18": "60 km/h, 3 / 4, runs/first, timm/resnet18",
}


def test_only_the_last_part_of_paths_in_texts_is_pushed(hub, pretrained, tmp_path):
    run = RunFolder(shutil.copytree(pretrained, tmp_path / "run"))
    run.write_description({**run.describe(), "notes": [*TEXTS]})
    run.log.write_text("\n".join(json.dumps({"step": 1, "note": text}) for text in TEXTS))
    socodet.push(run.path, "user/notes")
    files = hub.repositories["user/notes"][-1]
    logged = [json.loads(line)["note"] for line in files["log.jsonl"].splitlines()]
    assert json.loads(files["run.json"])["notes"] == logged == [*TEXTS.values()]


def test_hub_names_on_the_command_line_are_replaced_by_paths(hub, tmp_path):
    weights = safetensors.torch.save({"a": torch.ones(1)})
    sha = hub.put("me/file", {"model.safetensors": weights})
    given = [
        "set",
        "--init",
        "hub:me/file",
        "--init=hub:me/file@main",
        "--init",
        "b=hub:me/file",
        "--x=hub:me/file",
        "y",
    ]
    path = tmp_path / "cache" / "models--me--file" / "snapshots" / sha / "model.safetensors"
    assert with_downloads(given) == [
        *("set", "--init", f"file={path}", f"--init=file={path}", "--init", f"b={path}", f"--x={path}", "y"),
    ]
    assert path.read_bytes() == weights


def test_a_pushed_detector_detects_the_same_and_has_its_scores(hub, tuned, tmp_path):
    run = RunFolder(tmp_path / "det")
    run.write_description(RunFolder(tuned).describe())
    run.save_checkpoint(9, RunFolder(tuned).load_checkpoint())
    run.log.write_text('{"step": 9, "box_AP": 41.25, "box_AP50": null, "best_f1_score": 0.4}\n')
    (run.path / SCORES).write_text('{"data": "birds <val>"}')
    first = socodet.push(run.path, "me/detector", private=True)
    assert first.commit == hub.sha("me/detector")
    assert hub.private == {"me/detector"}
    front, text = card_of(hub, "me/detector")
    assert (front["pipeline_tag"], front["metrics"]) == ("object-detection", ["box_AP"])
    (result,) = front["model-index"][0]["results"]
    assert (result["metrics"][0]["value"], result["dataset"]["name"]) == (41.25, "birds <val>")
    assert "41.25" in text

    state = RunFolder(tuned).load_checkpoint()
    state["detector"] = {name: value * 0 for name, value in state["detector"].items()}
    run.save_checkpoint(10, {**state, "step": 10})
    socodet.push(run.path, "me/detector", checkpoint="last")
    assert set(hub.repositories["me/detector"][-1]) == {
        *("README.md", "run.json", "log.jsonl", SCORES, "checkpoints/step-00000010.safetensors")
    }
    detector = socodet.load_detector(f"{first.name}@{first.commit}", device="cpu")
    local = socodet.load_detector(tuned, device="cpu")
    assert all(
        torch.equal(value, local.network.state_dict()[key]) for key, value in detector.network.state_dict().items()
    )
    assert socodet.load_detector(first.name, device="cpu").step == 10

    for of_this_run in (run.log, run.path / SCORES):  # as left by an earlier run that has not been scored yet
        of_this_run.unlink()
    socodet.push(run.path, "me/detector", checkpoint="last")
    assert set(hub.repositories["me/detector"][-1]) == {
        *("README.md", "run.json", "checkpoints/step-00000010.safetensors")
    }


def test_a_private_push_to_a_public_repository_uploads_nothing(hub, pretrained):
    hub.put("me/open", {"README.md": b"here"})
    with pytest.raises(InputError, match=r"me/open.*public"):
        socodet.push(pretrained, "me/open", private=True)
    assert hub.repositories["me/open"] == [{"README.md": b"here"}]
    hub.put("me/hidden", {})
    hub.private.add("me/hidden")
    socodet.push(pretrained, "me/hidden", private=True)
    assert "run.json" in hub.repositories["me/hidden"][-1]


def test_a_run_records_the_hub_name_of_its_weights_and_not_the_commit(hub, tmp_path):
    for version in (b"1", b"2"):
        hub.put("me/file", {"model.safetensors": version})
        hub.put("me/folder", {"run.json": version})
        for name in ("hub:me/file", "hub:me/folder"):
            path = with_downloads(["--start-from", name])[1]
            assert origin(path) == named_inits([f"a={path}"])[0].place == named_inits([name])[0].place == name
    assert WeightsFile.find(file := download("hub:me/file@main")).describe(file)["from"] == "hub:me/file@main"
    assert origin(tmp_path / "x") == str(tmp_path / "x")


def test_variants_in_folders_are_not_downloaded(hub, pretrained, tmp_path):
    socodet.push(pretrained, "me/run")
    nested = {
        f"{folder}/{name}": b"{}" for folder in ("onnx", "checkpoints/old", "a/b") for name in ("x.json", "x.jsonl")
    }
    nested |= {path.replace(".jsonl", ".safetensors"): b"{}" for path in nested}
    run = hub.repositories["me/run"][-1]
    hub.put("me/run", {**run, **nested})
    hub.put("me/model", {"model.safetensors": b"{}", "checkpoints/x.safetensors": b"{}", **nested})
    for name, expected in (("me/run", {*run} - {"README.md"}), ("me/model", {"model.safetensors"})):
        download(f"hub:{name}")
        snapshot = tmp_path / "cache" / f"models--{name.replace('/', '--')}" / "snapshots" / hub.sha(name)
        assert {one.relative_to(snapshot).as_posix() for one in snapshot.rglob("*.*")} == expected


def test_weights_from_other_repositories_are_read_but_not_their_code(hub, pretrained, tmp_path):
    backbone = new_detector("faster_rcnn_fpn", NARROW, 4).backbone.body.state_dict()
    weights = safetensors.torch.save({name: value.clone() for name, value in backbone.items()})
    timms = {"architecture": "resnet18", "pretrained_cfg": {"license": "apache-2.0"}}
    code = {"pytorch_model.bin": pickle.dumps(print), "train.py": b"1/0"}
    hub.put("timm/resnet18", {"model.safetensors": weights, "config.json": json.dumps(timms).encode(), **code})
    detector = socodet.build_detector(pretrained, num_classes=4)
    assert socodet.load_pretrained(detector, "hub:timm/resnet18", show_report=False).loaded_modules
    assert socodet.Weights("hub:timm/resnet18", "resnet18").path.read_bytes() == weights
    assert not list((tmp_path / "cache").rglob("*.bin")) + list((tmp_path / "cache").rglob("*.py"))

    hub.put("some/pickle", code)
    with pytest.raises(InputError, match="some/pickle"):
        socodet.load_pretrained(detector, "hub:some/pickle")
    hub.put("some/page", {"model.safetensors": b"<!doctype html>"})
    with pytest.raises(InputError, match="web page"):
        socodet.load_pretrained(detector, "hub:some/page")


@pytest.mark.parametrize("about", [b"{}", b'{"network": "model", "step": -1, "total_steps": 3}', b"[[[", None])
def test_a_damaged_run_is_one_line(hub, pretrained, tmp_path, about):
    socodet.push(pretrained, "me/damaged")
    files = dict(hub.repositories["me/damaged"][-1])
    weights = files.pop("checkpoints/step-00000030.safetensors")
    if about is not None:
        weights = safetensors.torch.save({"a": torch.ones(1)}, {"socodet": about.decode()})
    hub.put(
        "me/damaged", {**files, "checkpoints/step-00000030.safetensors": weights[:-8] if about is None else weights}
    )
    with pytest.raises(InputError, match="step-00000030"):
        socodet.export("hub:me/damaged", tmp_path / "x.pth")
    with pytest.raises(InputError, match="step-00000030"):
        socodet.probe("hub:me/damaged", tmp_path)


def refused(capsys, *argv):
    with pytest.raises(SystemExit):
        main([*argv])
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_refusals_of_the_hub_are_one_line(hub, pretrained, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    read = ["predict", "hub:me/nothing", str(tmp_path), "--output", str(tmp_path / "found")]
    assert "no such repository" in refused(capsys, *read)
    assert "hub:me" in refused(capsys, "predict", "hub:me", *read[2:])
    hub.put("me/there", {"run.json": b"{}"})
    assert "no such revision" in refused(capsys, "predict", "hub:me/there@v9", *read[2:])
    assert "socodet push" in refused(capsys, "pretrain", str(tmp_path), "--output", "hub:me/there")
    assert "403" in refused(capsys, "push", str(pretrained), "somebody/birds")
    assert "no such folder" in refused(capsys, "push", str(tmp_path / "no"), "me/birds")
    assert "USER/NAME" in refused(capsys, "push", str(pretrained), "birds")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "hf auth login" in refused(capsys, "push", str(pretrained), "me/birds")
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in refused(capsys, "push", str(pretrained), "me/birds")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(capsys, *read)
    assert "HF_HUB_OFFLINE" in refused(capsys, "push", str(pretrained), "me/birds")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(capsys, *read)


def test_a_missing_package_is_one_line(pretrained, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    for call in (lambda: socodet.push(pretrained, "me/birds"), lambda: socodet.load_detector("hub:me/birds")):
        with pytest.raises(InputError, match=r"socodet\[hub\]"):
            call()


def test_missing_steps_are_noted_only_for_runs_that_can_resume(hub, tuned, tmp_path, caplog, capsys):
    """The best weights are seldom the last, and a pushed run cannot be resumed."""
    run = RunFolder(shutil.copytree(tuned, tmp_path / "run"))
    run.save_best(run.load_checkpoint() | {"step": 5})
    assert socodet.push(run.path, "me/best").unfinished is None
    assert socodet.load_detector("hub:me/best", device="cpu").step == 5
    assert "steps" not in caplog.text

    last = RunFolder(tuned).load_checkpoint() | {"step": 4}
    shutil.rmtree(run.path / "checkpoints")
    run.save_checkpoint(4, last)
    main(["push", str(run.path), "me/unfinished"])
    said = capsys.readouterr().err
    assert said.count("4 of 9 steps") == 1
    assert "repeat its command" not in said
    socodet.load_detector(run.path, device="cpu")
    assert "4 of 9 steps; repeat its command" in caplog.text


def test_a_card_rejected_by_the_hub_is_one_line(hub, pretrained, capsys):
    line = refused(capsys, "push", str(pretrained), "me/birds", "--license", "CC BY")
    assert '"license" must be one of [cc-by-4.0, another-0' in line
    assert "--license" in line.partition("another-0")[2]
    assert len(line) < 500
    assert hub.repositories["me/birds"] == [{}]
    hub.behind_a_proxy = True
    assert "network" in refused(capsys, "push", str(pretrained), "me/birds")
    assert hub.repositories["me/birds"] == [{}]


def test_names_that_are_not_utf_8_are_pushed_escaped(hub, tuned, tmp_path):
    run = RunFolder(shutil.copytree(tuned, tmp_path / "run"))
    run.write_description({**run.describe(), "train": os.fsdecode(b"caf\xe9")})
    socodet.push(run.path, "me/coffee")
    assert "fine-tuned on caf\\udce9," in hub.repositories["me/coffee"][-1]["README.md"].decode()
    assert socodet.load_detector("hub:me/coffee", device="cpu").step == 9


def test_errors_are_one_line_with_the_oldest_supported_package_too(monkeypatch):
    """Versions before 2.0 lack RevisionResolutionError."""
    from huggingface_hub import errors

    monkeypatch.delattr(errors, "RevisionResolutionError", raising=False)
    with pytest.raises(InputError, match=r"^hub:a/b: no such name$"), hub_errors("hub:a/b"):
        raise errors.HFValidationError("no such name")


def test_downloads_are_read_offline(hub, pretrained, tmp_path, monkeypatch):
    from huggingface_hub import constants

    socodet.push(pretrained, "me/birds")
    assert socodet.build_detector("hub:me/birds", num_classes=4)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert named_inits(["a=hub:me/birds"])[0].name == "a"
    assert len(hub.asked) == asked
