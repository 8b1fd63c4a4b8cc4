import json
import shutil
from pathlib import Path

import pytest
import torch

from socodet.errors import InputError
from socodet.runtime.differences import differences
from socodet.runtime.files import write_atomically
from socodet.training import run_folder
from socodet.training.run_folder import RunFolder


def test_two_newest_checkpoints_are_kept_and_the_newest_is_read(tmp_path):
    run = RunFolder(tmp_path)
    for step in (1, 5, 12):
        run.save_checkpoint(step, {"step": step, "model": {"w": torch.full((2,), float(step))}})
    assert [p.name for p in run.checkpoints()] == ["step-00000005.pt", "step-00000012.pt"]
    state = run.load_checkpoint()
    assert state["step"] == 12
    assert state["model"]["w"].tolist() == [12.0, 12.0]


def test_damaged_newest_checkpoint_is_replaced_by_the_one_before(tmp_path):
    run = RunFolder(tmp_path)
    run.save_checkpoint(1, {"step": 1})
    newest = run.save_checkpoint(2, {"step": 2})
    newest.write_bytes(newest.read_bytes()[:40])
    assert run.load_checkpoint() == {"step": 1}
    run.checkpoints()[0].write_bytes(b"")
    with pytest.raises(InputError, match=r"step-00000002\.pt .*not a readable checkpoint"):
        run.load_checkpoint()


def test_checkpoint_still_listed_after_its_removal(tmp_path, monkeypatch):
    """A network drive's listing of a folder may be half a minute old."""
    run, pauses, real = RunFolder(tmp_path), [], RunFolder.checkpoints
    run.save_checkpoint(3, {"step": 3})
    gone = run.checkpoint(2)
    monkeypatch.setattr(RunFolder, "checkpoints", lambda run: [gone] if sum(pauses) < 30 else real(run))
    monkeypatch.setattr(run_folder.time, "sleep", pauses.append)
    assert run.load_checkpoint() == {"step": 3}
    pauses.clear()
    monkeypatch.setattr(RunFolder, "checkpoints", lambda run: [gone])
    with pytest.raises(FileNotFoundError, match=gone.name):
        run.load_checkpoint()
    assert 60 <= sum(pauses) < 120


@pytest.mark.parametrize("command", [None, 3, ["socodet"], {}])
def test_other_settings_without_a_recorded_command_are_refused_in_one_line(tmp_path, command):
    """run.json may come from anywhere, so its command may be anything."""
    run = RunFolder(tmp_path)
    run.write_description({"recipe": {}, "command": command})
    with pytest.raises(InputError, match="other settings"):
        run.refuse_other({"recipe": {"epochs": 1}}, {"recipe": {"epochs": 2}})


def test_checkpoints_never_unpickle_code(tmp_path):
    run = RunFolder(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000001.pt"
    path.parent.mkdir()
    torch.save({"step": 1, "trap": RunFolder(tmp_path)}, path)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run.load_checkpoint()


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_folder_that_is_not_a_run_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not a run"):
        RunFolder(tmp_path).describe()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        RunFolder(tmp_path).describe()
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="has no recipe"):
        RunFolder(tmp_path).describe()


def test_truncated_log_line_is_dropped(tmp_path):
    run = RunFolder(tmp_path)
    run.log.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert list(run.log_lines()) == [{"step": 1}]


def test_differences_are_named_by_the_flags_that_set_them():
    ours = {"sample": {"views": [{"size": 224}, {"size": 112}]}, "settings": {"epochs": None, "batch_size": 2}}
    theirs = {"sample": {"views": [{"size": 224}, {"size": 96}]}, "settings": {"epochs": 1.0, "batch_size": 2}}
    assert differences(ours, ours) is None
    assert differences({"recipe": ours}, {"recipe": theirs}) == (
        "--views.1.size (112 now, 96 there), --epochs (not given now, 1.0 there)"
    )
    tiny, auto = ({"recipe": {"name": name, **one}} for name, one in (("tiny", ours), ("auto", theirs)))
    assert differences({**tiny, "table": "online"}, auto) == (
        "--recipe (tiny now, auto there), --proposals (online now, not given there)"
    )
    assert differences({"socodet": "2"}, {"socodet": "1"}) == "socodet's version (2 now, 1 there)"
    assert differences({"init": "/here"}, {}) == "--init (/here now, not given there)"
    assert differences({"settings": {"detector": "fcos"}}, {"settings": {"detector": "detr"}}).startswith("--detector ")
    assert differences({"a": [1]}, {"a": [1, 2]}) == "--a (1 now, 1 2 there)"
    assert differences({"data": {"images": 2, "sha256": "ab"}}, {"data": {"images": 6, "sha256": "cd"}}) == (
        "images of the annotated dataset (2 now, 6 there), contents of the annotated dataset (not the same as there)"
    )
    follows = {"settings": {"epochs": 1.0}, "schedule": {"iterations": 9}}
    assert differences(follows, {"settings": {"epochs": 2.0}, "schedule": {"iterations": 18}}) == (
        "--epochs (1.0 now, 2.0 there)"
    )
    assert "iterations" in differences(follows, {**follows, "schedule": {"iterations": 18}})


def test_unreadable_images_are_listed_once_over_all_calls(tmp_path):
    run = RunFolder(tmp_path)
    run.note_skipped([])
    assert not (tmp_path / "skipped.jsonl").exists()
    run.note_skipped([("a.jpg", "the file is empty"), ("b\udcff.jpg", "gone")])
    run.note_skipped([("b\udcff.jpg", "gone"), ("c.jpg", "gone")])
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(line["path"], line["reason"]) for line in lines] == [
        ("a.jpg", "the file is empty"),
        ("b\udcff.jpg", "gone"),
        ("c.jpg", "gone"),
    ]


@pytest.mark.parametrize("clears", range(6))
def test_run_killed_while_being_cleared_has_no_checkpoint(tmp_path, monkeypatch, clears):
    """Killed before removing file number `clears`: the folder still counts as a run, and nothing of it resumes."""
    run = RunFolder(tmp_path)
    run.write_description({"recipe": {}})
    for step in (1, 2):
        run.save_checkpoint(step, {"step": step})
    run.save_best({"step": 1})
    run.log.touch()
    (run.tensorboard / "events").mkdir(parents=True)
    left = iter(range(clears))
    unlink, rmtree = Path.unlink, shutil.rmtree

    def interrupted(remove):
        def removing(*given, **options):
            if next(left, None) is None:
                raise KeyboardInterrupt
            remove(*given, **options)

        return removing

    monkeypatch.setattr(Path, "unlink", interrupted(unlink))
    monkeypatch.setattr(shutil, "rmtree", interrupted(rmtree))
    with pytest.raises(KeyboardInterrupt):
        run.clear()
    monkeypatch.undo()
    run.refuse_foreign()
    assert len(run.checkpoints()) == (0 if clears else 2)
    run.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_checkpoint_removed_while_being_read_is_replaced_by_a_newer_one(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.save_checkpoint(1, {"step": 1})
    read = run_folder.read_state

    def read_and_continue(path):
        if path.name == "step-00000001.pt":
            run.save_checkpoint(2, {"step": 2})
            path.unlink()
        return read(path)

    monkeypatch.setattr(run_folder, "read_state", read_and_continue)
    assert run.load_checkpoint() == {"step": 2}
    (tmp_path / "checkpoints" / "step-00000009.pt").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        run.load_checkpoint()
