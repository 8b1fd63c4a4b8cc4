"""Several processes or machines make the same table as one, even if some die or start late."""

import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from socodet.cli import main
from socodet.errors import InputError
from socodet.proposals import make_table, part_files, shares
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.shares import Share, merge_shares, propose_share, propose_together
from socodet.runtime.world import World

IMAGES = 200  # four parts
SETTINGS = ProposalSettings("single", work_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (4, 5 + number % 3, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(root / f"{number:03}.jpg")
    (root / "070.jpg").write_bytes(b"\xff\xd8\xffno")
    return root


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table made by a single process."""
    output = tmp_path_factory.mktemp("whole") / "p.parquet"
    return propose(folder, output, settings=SETTINGS, workers=1, show_progress=False).table.read_bytes()


def part_names(output: Path) -> list[str]:
    return sorted(path.stem.lstrip("0") or "0" for path in output.parent.glob(f".{output.name}.*/*.parquet"))


@pytest.mark.parametrize("count", [0, 1, 4, 7, 20])
@pytest.mark.parametrize("total", [1, 2, 3, 8, 25])
def test_shares_cover_all_parts_once_and_are_of_similar_size(count: int, total: int) -> None:
    cut = [Share(number, total).parts(count) for number in range(1, total + 1)]
    assert [part for share in cut for part in share] == list(range(count))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3"])
def test_malformed_shares_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard: .* give i/n"):
        Share.parse(text)
    assert Share.parse("2/8") == Share(2, 8)


def test_shares_made_one_by_one_merge_into_the_table_of_one_process(folder: Path, tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "p.parquet"
    with pytest.raises(InputError, match=r"p\.parquet: none of its shards exist"):
        merge_shares(folder, output, settings=SETTINGS)
    for number, images in ((3, 64 + 8), (1, 64)):
        summary = propose_share(folder, output, Share(number, 3), settings=SETTINGS, show_progress=False)
        assert summary.images == images
    with pytest.raises(InputError, match=r"1 of 4 parts are missing, of shard 2/3 \(1 part\)"):
        merge_shares(folder, output, settings=SETTINGS)
    assert part_names(output) == ["0", "128", "192"]
    assert not output.exists()
    propose_share(folder, output, Share(2, 3), settings=SETTINGS, show_progress=False)
    summary = merge_shares(folder, output, settings=SETTINGS)
    assert summary.made == 0
    assert "images/s" not in str(summary)
    assert output.read_bytes() == whole
    assert (summary.images, [key for key, _ in summary.unreadable]) == (IMAGES, ["070.jpg"])
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]
    with pytest.raises(InputError, match="exists; give another"):
        merge_shares(folder, output, settings=SETTINGS)


def test_a_share_cannot_be_made_twice_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_row, tried = make_table._make_row, []
    output = tmp_path / "p"
    job = {"settings": SETTINGS, "show_progress": False}

    def meanwhile(source, index, settings):
        if index == 0:
            for call in (partial(propose_share, share=Share(1, 4)), merge_shares, propose):
                with pytest.raises(InputError, match="another process is writing"):
                    call(folder, output, settings=SETTINGS)
            propose_share(folder, output, Share(2, 4), **job)
            tried.append(index)
        return make_row(source, index, settings)

    monkeypatch.setattr(make_table, "_make_row", meanwhile)
    propose_share(folder, output, Share(1, 4), **job)
    assert tried
    assert part_names(output) == ["0", "64"]


def test_a_second_job_of_several_processes_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object) -> int:
        with pytest.raises(InputError, match="another process is writing"):
            propose_together(folder, tmp_path / "p", World(0, 2), settings=SETTINGS)
        raise KeyError

    monkeypatch.setattr(shares, "_make_share", meanwhile)
    with pytest.raises(KeyError):
        propose_together(folder, tmp_path / "p", World(0, 2), settings=SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_share_resumes_where_it_stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_row, made = make_table._make_row, []

    def interrupted(source, index, settings):
        if len(made) == 100:
            raise KeyboardInterrupt
        made.append(index)
        return make_row(source, index, settings)

    monkeypatch.setattr(make_table, "_make_row", interrupted)
    job = {"settings": SETTINGS, "workers": 1, "show_progress": False}
    with pytest.raises(KeyboardInterrupt):
        propose_share(folder, tmp_path / "p", Share(1, 2), **job)
    assert part_names(tmp_path / "p") == ["0"]
    first, made[:] = list(made), []
    propose_share(folder, tmp_path / "p", Share(1, 2), **job)
    assert (first, made) == (list(range(100)), list(range(64, 128)))


def test_the_first_process_waits_for_the_others_and_names_them(
    folder: Path, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shares, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(shares, "QUIET_SECONDS", 0.1)
    output = tmp_path / "p.parquet"
    first = threading.Thread(target=propose_together, args=(folder, output, World(0, 3)), kwargs={"settings": SETTINGS})
    first.start()
    assert propose_together(folder, output, World(2, 3), settings=SETTINGS) is None
    said = ""
    deadline = time.monotonic() + 30
    while "no new part" not in said and time.monotonic() < deadline:
        time.sleep(0.02)
        said += capsys.readouterr().err
    assert "waiting for shard" in said
    assert "1 of 4 are missing, of shard 2/3 (1 part)" in said
    assert not output.exists()
    assert propose_together(folder, output, World(1, 3), settings=SETTINGS) is None
    first.join(30)
    assert output.read_bytes() == whole
    assert (
        propose_together(folder, output, World(1, 3), settings=SETTINGS) is None
    )  # it came late and has nothing to do
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]
    with pytest.raises(InputError, match="exists; give another"):
        propose_together(folder, output, World(0, 3), settings=SETTINGS)


def test_a_process_that_starts_during_the_merge_has_nothing_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts_vanish(job: part_files.Job, *rest: object) -> int:
        shutil.rmtree(job.folder)
        raise FileNotFoundError

    monkeypatch.setattr(shares, "_make_share", parts_vanish)
    assert propose_together(folder, tmp_path / "p", World(1, 2), settings=SETTINGS) is None
    with pytest.raises(FileNotFoundError):
        propose_together(folder, tmp_path / "p", World(0, 2), settings=SETTINGS)


def test_there_may_be_more_processes_than_parts(folder: Path, tmp_path: Path, whole: bytes) -> None:
    for rank in reversed(range(6)):
        summary = propose_together(folder, tmp_path / "p", World(rank, 6), settings=SETTINGS, show_progress=False)
    assert summary is not None
    assert summary.table.read_bytes() == whole


def test_a_damaged_part_is_made_again(folder: Path, tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "p.parquet"
    propose_share(folder, output, Share(2, 2), settings=SETTINGS, show_progress=False)
    last = max(tmp_path.glob(".p.parquet.*/*.parquet"))
    last.write_bytes(last.read_bytes()[:50])
    job = part_files.Job.of(folder, output, SETTINGS, False)
    assert job.missing(range(job.count)) == [0, 1, 3]
    for rank in (1, 0):
        propose_together(folder, output, World(rank, 2), settings=SETTINGS, show_progress=False)
    assert output.read_bytes() == whole


# Runs the command line; the second process is killed as soon as its first part exists.
DYING = """
import os, signal
from socodet.cli import main
from socodet.proposals.part_files import Job
write = Job.write
def write_and_die(*part):
    write(*part)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
Job.write = write_and_die
main()
"""


def test_a_torchrun_process_may_be_killed_and_restarted(folder: Path, tmp_path: Path, whole: bytes) -> None:
    output = tmp_path / "p.parquet"
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["propose", str(folder), "--output", str(output), "--work-size", "32"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    first = subprocess.run([*torchrun, str(script), *arguments], capture_output=True, text=True, env=env)
    assert first.returncode != 0
    assert not output.exists()
    assert [name for name in part_names(output) if int(name) >= 128] == ["128"]

    second = subprocess.run([*torchrun, "-m", "socodet", *arguments], capture_output=True, text=True, env=env)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count(f"boxes of {IMAGES} images") == 1
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dying.py", "p.parquet"]


def test_the_commands_make_and_merge_shares(
    folder: Path, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["propose", str(folder), "--output", str(tmp_path / "p"), "--work-size", "32"]
    main([*job, "--shard", "1/2"])
    assert f"shard 1/2: {128} images" in capsys.readouterr().out
    missing = (
        f"socodet: error: {tmp_path / 'p'}: 2 of 4 parts are missing, of shard 2/2 (2 parts); make them with --shard"
    )
    assert error_of([*job, "--merge"], capsys).startswith(missing)
    assert "--shard: '3/2' is not a share" in error_of([*job, "--shard", "3/2"], capsys)
    assert "cannot be combined" in error_of([*job, "--shard", "1/2", "--merge"], capsys)
    main([*job, "--shard=2/2"])
    main([*job, "--merge"])
    assert (tmp_path / "p").read_bytes() == whole
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert "need a single process, not 2" in error_of([*job, "--merge"], capsys)


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    return capsys.readouterr().err.splitlines(keepends=True)[-1]


def test_a_process_checks_only_the_image_files_of_its_share(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose_share(folder, tmp_path / "p", Share(1, 1), settings=SETTINGS, show_progress=False)
    sizes, checked = part_files.digest_sizes, []
    monkeypatch.setattr(
        part_files, "digest_sizes", lambda source, indices: checked.extend(indices) or sizes(source, indices)
    )
    assert propose_together(folder, tmp_path / "p", World(1, 2), settings=SETTINGS, show_progress=False) is None
    assert checked == list(range(128, IMAGES))
    checked.clear()
    summary = propose_together(folder, tmp_path / "p", World(0, 2), settings=SETTINGS, show_progress=False)
    assert summary is not None
    assert (summary.made, checked) == (0, list(range(IMAGES)))  # the first process checks that all images are present
