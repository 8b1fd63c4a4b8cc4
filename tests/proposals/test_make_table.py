"""Making a table: the same bytes with any number of workers and interruptions; bad images are never fatal."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from socodet.errors import InputError
from socodet.images.source import open_images
from socodet.proposals import make_table, part_files
from socodet.proposals.image_boxes import OnlineProposals, propose_boxes
from socodet.proposals.make_table import propose
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.shares import Share, merge_shares, propose_share
from socodet.proposals.table import ProposalTable
from socodet.runtime.extensions import register

IMAGES = 21
SETTINGS = ProposalSettings(work_size=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG images, one of them in a subfolder and one truncated."""
    root = tmp_path_factory.mktemp("images")
    (root / "below").mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (6 + number % 3, 8, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        path = root / (f"below/{number:02}.png" if number == 7 else f"{number:02}.png")
        Image.fromarray(pixels).save(path)
    damaged = root / "10.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return root


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "PART", 4)
    monkeypatch.setattr(part_files, "ROW_GROUP", 8)
    monkeypatch.setattr(make_table, "TASK", 3)


def test_there_is_one_row_per_image_in_the_order_of_the_source(folder: Path, tmp_path: Path) -> None:
    summary = propose(folder, tmp_path / "new" / "p.parquet", settings=SETTINGS, show_progress=False)
    table = ProposalTable.read(summary.table)
    source = open_images(folder)
    assert table.keys == [source.key(index) for index in range(len(source))]
    assert table.settings == SETTINGS
    assert (summary.images, summary.boxes) == (IMAGES, sum(len(table.boxes(key)) for key in table.keys))
    assert [key for key, _ in summary.unreadable] == ["10.png"]
    assert table.unreadable.get("10.png") == summary.unreadable[0][1]
    assert (len(table.boxes("10.png")), table.size("10.png")) == (0, (0, 0))
    pixels = np.asarray(Image.open(folder / "below/07.png"))
    assert table.size("below/07.png") == (80, 70)
    np.testing.assert_array_equal(table.boxes("below/07.png"), propose_boxes(pixels, SETTINGS))
    assert [path.name for path in summary.table.parent.iterdir()] == ["p.parquet"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("settings", [SETTINGS, ProposalSettings("random")])
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    folder: Path, tmp_path: Path, settings: ProposalSettings
) -> None:
    tables = [
        propose(folder, tmp_path / f"{n}", settings=settings, workers=n, show_progress=False).table for n in (1, 2, 5)
    ]
    assert len({table.read_bytes() for table in tables}) == 1


def test_random_boxes_of_an_image_do_not_depend_on_other_images(folder: Path, tmp_path: Path) -> None:
    settings = ProposalSettings("random")
    every = ProposalTable.read(propose(folder, tmp_path / "every", settings=settings, show_progress=False).table)
    one = tmp_path / "one"
    one.mkdir()
    for name in ("03.png", "06.png"):  # of equal size
        (one / name).write_bytes((folder / name).read_bytes())
    two = ProposalTable.read(propose(one, tmp_path / "two", settings=settings, show_progress=False).table)
    np.testing.assert_array_equal(two.boxes("06.png"), every.boxes("06.png"))
    assert not np.array_equal(two.boxes("03.png"), two.boxes("06.png"))


@pytest.mark.usefixtures("small_parts")
def test_images_replaced_before_resuming_get_new_boxes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "images"
    shutil.copytree(folder, own)
    make_row = make_table._make_row

    def interrupted_make_row(source, index, settings):
        if index == 14:
            raise KeyboardInterrupt
        return make_row(source, index, settings)

    monkeypatch.setattr(make_table, "_make_row", interrupted_make_row)
    with pytest.raises(KeyboardInterrupt):
        propose(own, tmp_path / "p.parquet", settings=SETTINGS, workers=1, show_progress=False)
    monkeypatch.setattr(make_table, "_make_row", make_row)
    other = next(path for path in sorted(own.iterdir())[5:] if path.stat().st_size != (own / "05.png").stat().st_size)
    (own / "05.png").write_bytes(other.read_bytes())
    resumed = propose(own, tmp_path / "p.parquet", settings=SETTINGS, workers=1, show_progress=False)
    whole = propose(own, tmp_path / "whole", settings=SETTINGS, show_progress=False)
    assert resumed.table.read_bytes() == whole.table.read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_call_resumes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = propose(folder, tmp_path / "whole", settings=SETTINGS, show_progress=False).table.read_bytes()
    output = tmp_path / "p.parquet"
    make_row = make_table._make_row
    made: list[int] = []

    def interrupted_make_row(source, index, settings):
        if len(made) == 14:
            raise KeyboardInterrupt
        made.append(index)
        return make_row(source, index, settings)

    monkeypatch.setattr(make_table, "_make_row", interrupted_make_row)
    with pytest.raises(KeyboardInterrupt):
        propose(folder, output, settings=SETTINGS, workers=1, show_progress=False)
    assert not output.exists()
    first_run, made = made, []
    summary = propose(folder, output, settings=SETTINGS, workers=1, show_progress=False)
    assert summary.made == IMAGES - 12  # only these count for the printed speed
    assert f"{summary.made / summary.seconds:.1f} images/s" in str(summary)
    assert output.read_bytes() == whole
    assert made == list(range(12, IMAGES))  # three parts of four images were complete
    assert first_run == list(range(14))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet", "whole"]


@pytest.mark.usefixtures("small_parts")
def test_part_files_of_another_job_are_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "p.parquet"
    monkeypatch.setattr(part_files.Job, "merge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        propose(folder, output, settings=ProposalSettings("grid"), show_progress=False)
    monkeypatch.undo()
    propose(folder, output, settings=SETTINGS, show_progress=False)
    assert ProposalTable.read(output).settings == SETTINGS
    propose(folder, output, settings=ProposalSettings("grid"), overwrite=True, show_progress=False)
    assert ProposalTable.read(output).settings.method == "grid"


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("small_parts")
def test_a_concurrent_call_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_row, refused = make_table._make_row, []
    output = tmp_path / "new" / "p"

    def meanwhile(source, index, settings):
        if index == 13:
            for second in (propose, merge_shares, partial(propose_share, share=Share(1, 1))):
                with pytest.raises(InputError, match="another process is writing"):
                    second(folder, output, settings=SETTINGS)
                refused.append(second)
        return make_row(source, index, settings)

    alone = propose(folder, tmp_path / "alone", settings=SETTINGS, show_progress=False).table
    monkeypatch.setattr(make_table, "_make_row", meanwhile)
    propose(folder, output, settings=SETTINGS, show_progress=False)
    assert len(refused) == 3
    assert output.read_bytes() == alone.read_bytes()
    assert [path.name for path in output.parent.iterdir()] == ["p"]


def test_output_that_another_job_wrote_meanwhile_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(source, index, settings):
        (tmp_path / "p").write_bytes(b"another's")
        return make_row(source, index, settings)

    make_row = make_table._make_row
    monkeypatch.setattr(make_table, "_make_row", meanwhile)
    with pytest.raises(InputError, match="exists"):
        propose(folder, tmp_path / "p", settings=SETTINGS, show_progress=False)
    assert (tmp_path / "p").read_bytes() == b"another's"


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_file_is_made_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "p.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(part_files.Job, "merge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            propose(folder, output, settings=SETTINGS, show_progress=False)
    part = sorted(tmp_path.glob(".p.parquet.*/*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:100])
    propose(folder, output, settings=SETTINGS, show_progress=False)
    assert ProposalTable.read(output).keys == [open_images(folder).key(index) for index in range(IMAGES)]


HANGING_JOB = """
import sys, time
from socodet.proposals import make_table, part_files
from socodet.proposals.settings import ProposalSettings
part_files.PART, part_files.ROW_GROUP, make_table.TASK = 4, 8, 3
make_row = make_table._make_row
def hang(source, index, settings):
    if index == 10:
        time.sleep(100)
    return make_row(source, index, settings)
make_table._make_row = hang
make_table.propose(sys.argv[1], sys.argv[2], settings=ProposalSettings(work_size=48), workers=1)
"""


@pytest.mark.usefixtures("small_parts", "signals_heard")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_call_resumes(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "p.parquet"
    job = subprocess.Popen([sys.executable, "-c", HANGING_JOB, folder, output], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".p.parquet.*/*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(job.pid, number)
    _, complaint = job.communicate(timeout=20)
    assert job.returncode == -number
    assert ("KeyboardInterrupt" in complaint) == (number == signal.SIGINT)
    assert len(list(tmp_path.glob(".p.parquet.*/*.parquet"))) == 2
    assert not output.exists()
    propose(folder, output, settings=SETTINGS, show_progress=False)
    whole = propose(folder, tmp_path / "whole", settings=SETTINGS, show_progress=False).table
    assert output.read_bytes() == whole.read_bytes()


def test_an_existing_output_is_not_overwritten_unless_asked(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.parquet"
    output.write_text("precious")
    with pytest.raises(InputError, match=r"p\.parquet: exists; give another"):
        propose(folder, output, settings=SETTINGS)
    assert output.read_text() == "precious"
    propose(folder, output, settings=SETTINGS, overwrite=True, show_progress=False)
    assert len(ProposalTable.read(output)) == IMAGES
    with pytest.raises(InputError, match="workers must be at least 1"):
        propose(folder, tmp_path / "other", workers=0)
    with pytest.raises(InputError, match="is a folder"):
        propose(folder, tmp_path, settings=SETTINGS, overwrite=True)


def test_an_output_that_is_a_link_is_written_through(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("other/p")
    settings = ProposalSettings("grid")
    propose(folder, tmp_path / "link", settings=settings, show_progress=False)
    propose(folder, tmp_path / "plain", settings=settings, show_progress=False)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "other" / "p").read_bytes() == (tmp_path / "plain").read_bytes()


def test_the_progress_bar_counts_every_image(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    propose(folder, tmp_path / "p.parquet", settings=ProposalSettings("grid"))
    assert f"proposals: {IMAGES}/{IMAGES}" in capsys.readouterr().err


def fails(image, rng):
    return [[0, 0, 10, 10 / abs(len(image) - 70)]]


def opens_a_file(image, rng):
    return open("no-such-weights")


def gives_points(image, rng):
    return [[1, 2]]


def gives_shares(image, rng):
    return [[0.1, 0.1, 0.6, 0.7], [0, 0, 1, 1]]


def gives_widths(image, rng):
    return [[50, 40, 30, 20]]


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (fails, "ZeroDivisionError"),
        (opens_a_file, "FileNotFoundError"),
        (gives_points, r"gives \(1, 2\)"),
        (gives_shares, r"\(0\.1, 0\.1, 0\.6, 0\.7\)"),
        (gives_widths, r"\(50, 40, 30, 20\)"),
    ],
)
def test_a_users_function_that_fails_is_named_with_the_image(own, why, folder, tmp_path):
    settings = ProposalSettings(register(own))
    with pytest.raises(InputError, match=rf"{own.__name__}: .*({why}.*0[01]\.png|0[01]\.png.*{why})") as caught:
        propose(folder, tmp_path / "p.parquet", settings=settings, workers=1)
    assert "\n" not in str(caught.value)
    assert (caught.value.__cause__ is None) == (own not in (fails, opens_a_file))
    online = OnlineProposals(settings)
    with pytest.raises(InputError, match=own.__name__):
        online.look_up("01.png", (folder / "01.png").read_bytes())


@pytest.mark.usefixtures("small_parts")
def test_resuming_checks_each_image_file_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network drive, checking a million files takes half an hour."""
    propose_share(folder, tmp_path / "p", Share(1, 1), settings=SETTINGS, show_progress=False)
    sizes, looked_at = part_files.digest_sizes, []
    monkeypatch.setattr(
        part_files, "digest_sizes", lambda source, indices: looked_at.extend(indices) or sizes(source, indices)
    )
    assert propose(folder, tmp_path / "p", settings=SETTINGS, show_progress=False).made == 0
    assert looked_at == list(range(IMAGES))
