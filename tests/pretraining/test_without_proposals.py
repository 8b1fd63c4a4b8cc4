"""Images without proposals are counted and named, and refused if nearly all are such."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from narrow_models import NARROW
from PIL import Image

import socodet
from socodet.errors import InputError
from socodet.images.source import open_images
from socodet.models.settings import ModelSettings
from socodet.pretraining.preparation import note_no_proposals, readable_images
from socodet.pretraining.recipes import Recipe
from socodet.proposals.conversion import convert_proposals
from socodet.proposals.table import ProposalTable
from socodet.training.settings import ExecutionSettings


def write(folder, flat, others):
    """Writes images of one colour, images with a bright square, and a broken file."""
    folder.mkdir()
    for number in range(flat + others):
        pixels = np.full((64, 64, 3), 90, np.uint8)
        if number >= flat:
            pixels[16:48, 16:48] = 240
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "zz.png").write_bytes(b"no image")
    return folder


def table_of(folder, tmp_path):
    return ProposalTable.read(socodet.propose(folder, tmp_path / "p.parquet", show_progress=False).table)


def test_images_without_proposals_are_counted_and_named(tmp_path, capsys):
    folder = write(tmp_path / "set", 3, 2)
    table = table_of(folder, tmp_path)
    assert "3 of 6 images have no proposal (first: 00.png)" in capsys.readouterr().err
    assert table.without_boxes == {"00.png", "01.png", "02.png"}
    note_no_proposals(table, open_images(folder), Recipe("one", model=NARROW))
    assert "3 of 6 images have no proposal (first: 00.png); their only box is the region" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_images_without_proposals_may_have_names_that_are_not_utf_8(tmp_path, capsys):
    folder = write(tmp_path / "set", 1, 1)
    flat, broken = (b"f\xe9" + name for name in (b"1.png", b"2.png"))
    os.rename(folder / "00.png", os.fsencode(folder) + b"/" + flat)
    os.rename(folder / "zz.png", os.fsencode(folder) + b"/" + broken)
    table, source = table_of(folder, tmp_path), open_images(folder)
    capsys.readouterr()
    readable, failed = readable_images(source, table)
    assert [source.key(int(index)) for index in readable] == ["01.png", os.fsdecode(flat)]
    assert [key for key, _ in failed] == [os.fsdecode(broken)]
    note_no_proposals(table, source, Recipe("one", model=NARROW))
    assert "1 of 3 images have no proposal" in capsys.readouterr().err
    imported = convert_proposals(folder, table.path, tmp_path / "imported.parquet", show_progress=False)
    assert (imported.boxes, imported.unknown) == (sum(len(table.boxes(key)) for key in table.keys), ())


@pytest.mark.usefixtures("narrow_networks")
def test_run_that_makes_its_table_reports_it_once(tmp_path, capsys):
    short = replace(socodet.recipe("tiny").with_(batch_size=2, epochs=1), model=NARROW)
    execution = ExecutionSettings("cpu", workers=0, max_steps=1)
    socodet.pretrain(write(tmp_path / "set", 3, 3), short, tmp_path / "run", execution=execution)
    assert capsys.readouterr().err.count("3 of 7 images have no proposal") == 1


def test_dataset_of_nearly_only_such_images_is_refused(tmp_path):
    folder = write(tmp_path / "set", 40, 1)
    table = table_of(folder, tmp_path)
    with pytest.raises(InputError, match=r"40 of 42 images have no proposal .*--value-range"):
        note_no_proposals(table, open_images(folder), Recipe("one", model=NARROW))
    note_no_proposals(table, open_images(folder), Recipe("image level", model=ModelSettings(architecture="image")))
