"""A pretraining run that starts from weights on disk: only at its first step, and never from others on resume."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from narrow_models import narrow_resnet18

import socodet
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.reading import PixelReading
from socodet.images.source import open_images, with_reading
from socodet.pretraining import pretrain as pretraining
from socodet.pretraining.preparation import absolute_location, prepare
from socodet.pretraining.recipes import Recipe, recipe
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")


def short() -> Recipe:
    """The tiny recipe with 2 steps of 4 images."""
    tiny = recipe("tiny")
    return dataclasses.replace(
        tiny, training=dataclasses.replace(tiny.training, batch_size=4, epochs=0.7, warmup_epochs=0.0)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    socodet.propose(photographs(), folder / "proposals.parquet", show_progress=False)
    for seed, name in enumerate(("one.pth", "other.pth")):
        torch.manual_seed(seed)
        torch.save(narrow_resnet18().state_dict(), folder / name)
    return folder


def run_short(files, output, start_from, max_steps=None, **keywords):
    return pretraining.pretrain(
        photographs(),
        short(),
        output,
        proposals=files / "proposals.parquet",
        start_from=None if start_from is None else files / start_from,
        execution=ExecutionSettings(device="cpu", workers=0, max_steps=max_steps, log_every=1),
        **keywords,
    )


def test_both_networks_start_from_supervised_weights_and_resuming_does_not_reload_them(
    files, tmp_path, monkeypatch, capsys
):
    initial_states: list[dict[str, torch.Tensor]] = []
    trainer = pretraining.Trainer

    def trainer_with_copy(soco, *rest, **keywords):
        initial_states.append({name: value.clone() for name, value in soco.state_dict().items()})
        return trainer(soco, *rest, **keywords)

    monkeypatch.setattr(pretraining, "Trainer", trainer_with_copy)
    assert run_short(files, tmp_path / "parts", "one.pth", max_steps=1).steps == 1
    assert "loaded  backbone.body (120 tensors)" in capsys.readouterr().err
    supervised = torch.load(files / "one.pth", weights_only=True)
    for name, value in supervised.items():
        if not name.startswith("fc."):
            for network in ("online", "target"):
                assert torch.equal(initial_states[0][f"{network}.encoder.backbone.body.{name}"], value), name

    with pytest.raises(InputError, match=r"parts: holds a run of other settings: --start-from .*other\.pth") as caught:
        run_short(files, tmp_path / "parts", "other.pth")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds a run of other settings: --start-from"):
        run_short(files, tmp_path / "parts", None)

    assert run_short(files, tmp_path / "parts", "one.pth").finished
    assert "starting from" not in capsys.readouterr().err
    assert run_short(files, tmp_path / "whole", "one.pth", show_progress=False).finished
    parts, whole = (RunFolder(tmp_path / name).load_checkpoint()["model"] for name in ("parts", "whole"))
    assert all(torch.equal(value, whole[name]) for name, value in parts.items())
    description = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert len(description["start"]["sha256"]) == 64
    assert description["start"]["from"] == str((files / "one.pth").resolve())


def test_run_resumes_after_its_starting_run_has_changed_or_gone(files, tmp_path):
    def from_first(max_steps):
        return run_short(files, tmp_path / "second", tmp_path / "first", max_steps=max_steps, show_progress=False)

    assert run_short(files, tmp_path / "first", None, max_steps=1, show_progress=False).steps == 1
    assert from_first(1).steps == 1
    assert run_short(files, tmp_path / "first", None, show_progress=False).finished
    shutil.rmtree(tmp_path / "first")
    assert from_first(None).finished


def test_pretraining_started_before_a_setting_existed_resumes(files, tmp_path):
    run = tmp_path / "run"
    assert run_short(files, run, None, max_steps=1, show_progress=False).steps == 1
    described = json.loads((run / "run.json").read_text())
    assert described["recipe"]["training"].pop("backbone_lr") == 1.0
    (run / "run.json").write_text(json.dumps(described))
    assert run_short(files, run, None, show_progress=False).finished
    described["recipe"]["training"]["backbone_lr"] = 0.5
    (run / "run.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="--backbone-lr"):
        run_short(files, run, None, show_progress=False)


def test_online_proposals_are_another_run_and_broken_images_are_one_line(files, tmp_path):
    assert run_short(files, tmp_path / "run", None, max_steps=1, show_progress=False).steps == 1
    with pytest.raises(InputError, match="holds a run of other settings: --proposals"):
        pretraining.pretrain(photographs(), short(), tmp_path / "run", proposals="online", show_progress=False)
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / "broken" / f"{number}.jpg").write_bytes(b"not an image")
    one = dataclasses.replace(short().training, epochs=4)
    with pytest.raises(InputError, match=r"can be read .*check the files") as caught:
        pretraining.pretrain(
            tmp_path / "broken", dataclasses.replace(short(), training=one), tmp_path / "none", proposals="online"
        )
    assert "\n" not in str(caught.value)


def test_unsuitable_weights_are_refused_before_an_earlier_run_is_cleared(files, tmp_path):
    assert run_short(files, tmp_path / "run", None, max_steps=1, show_progress=False).steps == 1
    torch.save({"conv1.weight": torch.zeros(1)}, files / "bad.pth")
    with pytest.raises(InputError, match=r"conv1\.weight is"):
        run_short(files, tmp_path / "run", "bad.pth", overwrite=True)
    assert len(RunFolder(tmp_path / "run").checkpoints()) == 1
    assert run_short(files, tmp_path / "run", "one.pth", max_steps=1, overwrite=True, show_progress=False).steps == 1


def test_more_epochs_are_refused_with_a_hint(files, tmp_path):
    run, source, chosen = RunFolder(tmp_path / "run"), open_images(photographs()), short()
    asked = {"proposals": files / "proposals.parquet", "start": None, "overwrite": False, "show_progress": False}
    prepare(run, source, chosen, **asked)
    run.save_checkpoint(2, {"step": 2})
    longer = dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, epochs=1.4))
    with pytest.raises(InputError, match=r"a run of 0\.7 epochs, not 1\.4.*--start-from .*run --output another"):
        prepare(run, source, longer, **asked)


def test_run_resumes_after_it_and_its_starting_weights_were_moved(files, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    shutil.copy(files / "one.pth", here)
    assert run_short(files, here / "run", here / "one.pth", max_steps=1, show_progress=False).steps == 1
    here.rename(there)
    with pytest.raises(InputError, match="--start-from"):
        run_short(files, there / "run", "other.pth", show_progress=False)
    assert run_short(files, there / "run", there / "one.pth", show_progress=False).finished


def test_proposals_of_images_read_differently_are_not_reused(tmp_path):
    """A run without checkpoint is replaced; its table is reused only for the same images, read in the same way."""
    chosen, run = short(), RunFolder(tmp_path / "run")
    chosen = dataclasses.replace(chosen, proposals=dataclasses.replace(chosen.proposals, method="grid"))
    keywords = {"overwrite": False, "show_progress": False}
    prepare(run, open_images(photographs()), chosen, None, None, **keywords)
    made = run.proposals.read_bytes()
    others = with_reading(open_images(photographs()), PixelReading(bands=(3, 2, 1)))
    with pytest.raises(InputError, match="the way images are read"):
        prepare(run, others, chosen, None, None, **keywords)
    assert run.proposals.read_bytes() == made
    prepare(run, open_images(photographs()), chosen, None, None, **keywords)
    assert run.proposals.read_bytes() == made


def test_location_of_images_is_normalised_unless_links_forbid_it(tmp_path):
    (tmp_path / "far" / "images").mkdir(parents=True)
    (tmp_path / "far" / "inner").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "inner")
    plain = f"{tmp_path}/near/../far/images"
    assert absolute_location(plain) == f"{tmp_path}/far/images"
    linked = f"{tmp_path}/near/link/../images"  # far/images; near/images does not exist
    assert Path(absolute_location(linked)).samefile(tmp_path / "far" / "images")
