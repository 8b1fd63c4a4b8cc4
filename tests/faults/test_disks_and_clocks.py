"""A disk that becomes read-only, files truncated at any byte, and a clock that jumps."""

import errno
import os
import time

import pytest
import torch
from small_pretraining import GRID, go, make_images

import socodet
from socodet.errors import InputError
from socodet.images.pack import pack
from socodet.images.source import open_images
from socodet.proposals import part_files
from socodet.proposals.table import ProposalTable
from socodet.runtime import files as writing
from socodet.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_images(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(files):
    go(files, "undisturbed", 3, log_every=1)
    return weights(files / "undisturbed")


def weights(run):
    return {name: tensor.tolist() for name, tensor in RunFolder(run).load_checkpoint()["model"].items()}


class Call:
    """A log sink that calls a function with the number of each step."""

    def __init__(self, call):
        self.call = call

    def write(self, step, line):
        self.call(step)

    def close(self):
        pass


def test_a_disk_turned_read_only_loses_only_the_steps_since_the_last_checkpoint(
    files, undisturbed, monkeypatch, capsys
):
    class ReadOnly(writing._Output):
        def __init__(self, path, mode):
            raise OSError(errno.EROFS, "Read-only file system", str(path))

    def remount(step):
        if step == 2:
            monkeypatch.setattr(writing, "_Output", ReadOnly)

    with pytest.raises(InputError, match=r"step-00000003.pt: cannot be written \(Read-only file system\)") as ended:
        go(files, "run", 3, checkpoint_every=1, log_every=1, sinks=[Call(remount)])
    assert "step-00000001.pt" in str(ended.value)  # the newest one; step 2's would have been written after the remount
    assert "training continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert go(files, "run", 3).finished
    assert weights(files / "run") == undisturbed


def test_a_table_truncated_at_any_byte_is_one_line(files, tmp_path):
    whole = (files / "table.parquet").read_bytes()
    cut = tmp_path / "table.parquet"
    step = max(1, len(whole) // 400)
    for length in {*range(0, len(whole), step), *range(len(whole) - 40, len(whole)), *range(40)}:
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError) as told:
            ProposalTable.read(cut)
        assert "\n" not in str(told.value)


def test_a_part_of_the_proposals_truncated_at_any_byte_is_made_again(files, tmp_path, monkeypatch):
    monkeypatch.setattr(part_files, "PART", 2)
    job = part_files.Job.of(files / "images", tmp_path / "table.parquet", GRID, False)
    socodet.propose(files / "images", tmp_path / "whole.parquet", settings=GRID, workers=1, show_progress=False)
    whole = (tmp_path / "whole.parquet").read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        with monkeypatch.context() as patch:
            patch.setattr(part_files.Job, "merge", lambda job: (0, []))
            socodet.propose(job.source, job.output, settings=GRID, workers=1, show_progress=False)
        part = sorted(job.folder.glob("*.parquet"))[0]
        os.truncate(part, int(share * part.stat().st_size))
        socodet.propose(job.source, job.output, settings=GRID, workers=1, show_progress=False)
        assert job.output.read_bytes() == whole
        job.output.unlink()


def test_a_part_with_damaged_contents_is_removed_and_made_again(files, tmp_path, monkeypatch):
    job = part_files.Job.of(files / "images", tmp_path / "table.parquet", GRID, False)
    with monkeypatch.context() as patch:
        patch.setattr(part_files.Job, "merge", lambda job: (0, []))
        socodet.propose(job.source, job.output, settings=GRID, workers=1, show_progress=False)
    (part,) = job.folder.glob("*.parquet")
    content = bytearray(part.read_bytes())
    content[4:200] = bytes(196)
    part.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        socodet.propose(job.source, job.output, settings=GRID, workers=1, show_progress=False)
    assert not job.output.exists()
    socodet.propose(job.source, job.output, settings=GRID, workers=1, show_progress=False)
    assert len(ProposalTable.read(job.output)) == 4


def test_a_clock_that_jumps_changes_no_weight_and_loses_no_log_line(files, undisturbed, monkeypatch):
    now = time.time()
    jumps = iter([now, *[now - 86_400] * 50, *[now + 1e9] * 10_000])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    for steps in (1, 2):
        go(files, "jumps", 3, max_steps=steps, log_every=1)
    run = RunFolder(files / "jumps")
    assert weights(files / "jumps") == undisturbed
    assert [line["step"] for line in run.log_lines()] == [1, 2, 3]
    events = sorted(run.tensorboard.iterdir(), key=lambda file: file.name)
    assert [file.stat().st_mtime_ns for file in events] == sorted(file.stat().st_mtime_ns for file in events)
    assert len(events) == 2  # TensorBoard reads them in order of name, which must be the order of writing


def test_files_dated_in_the_future_or_long_ago_are_used(files, tmp_path):
    pack(files / "images", tmp_path / "packed", workers=1, show_progress=False)
    (shard,) = (tmp_path / "packed").glob("*.tar")
    expected = open_images(shard).read(1)
    for moment in (0, 4_000_000_000, 1):
        os.utime(shard, (moment, moment))
        assert open_images(shard).read(1) == expected
        index = shard.with_name(f".{shard.name}.index")
        os.utime(index, (moment, moment))
        assert open_images(shard).read(1) == expected
    run = RunFolder(tmp_path / "run")
    for step in (1, 2):
        run.save_checkpoint(step, {"step": torch.tensor(step)})
    os.utime(run.checkpoint(2), (1, 1))
    assert run.load_checkpoint()["step"] == 2
