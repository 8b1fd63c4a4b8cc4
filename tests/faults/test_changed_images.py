"""Images that change between `propose` and `pretrain`, or during training: always detected and counted."""

import json
import shutil

import pytest
from photograph_sets import coco_file
from PIL import Image
from small_pretraining import go, make_images

from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError
from socodet.finetuning.samples import TrainingImages
from socodet.runtime import notices


def delete(file):
    file.unlink()


def replace_by_another_size(file):
    Image.new("RGB", (90, 70), "red").save(file, "JPEG")


def grow(file):
    with Image.open(file) as image:
        image.resize((2 * image.width, 2 * image.height)).save(file, "JPEG")


def overwrite(file):
    file.write_bytes(b"junk")


def cut_to_nothing(file):
    file.write_bytes(b"")


def make_unreadable(file):
    """Works for root too, whom permissions do not stop."""
    file.unlink()
    file.mkdir()


def link_to_itself(file):
    file.unlink()
    file.symlink_to(file)


CHANGES = (delete, replace_by_another_size, grow, overwrite, cut_to_nothing, make_unreadable, link_to_itself)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, 8)
    return folder


@pytest.fixture
def files(made, tmp_path):
    notices.notice.cache_clear()
    shutil.copytree(made, tmp_path / "files")
    return tmp_path / "files"


def images(files):
    return sorted((files / "images").iterdir())


def skipped(run):
    return {
        (line := json.loads(text))["path"]: line["reason"] for text in (run / "skipped.jsonl").read_text().splitlines()
    }


class AfterStep:
    """A log sink that acts once, after the first step."""

    def __init__(self, act):
        self.act = act

    def write(self, step, line):
        if self.act is not None:
            self.act()
        self.act = None

    def close(self):
        pass


def test_images_changed_during_a_run_are_left_out_and_listed(files):
    changed = dict(zip(images(files), CHANGES, strict=False))

    def act():
        for file, change in changed.items():
            change(file)

    done = go(files, "run", 8, batch_size=2, sinks=[AfterStep(act)], log_every=1)
    assert done.finished
    assert {key for key, _ in done.unreadable} == {file.name for file in changed}
    assert skipped(files / "run").keys() == {file.name for file in changed}
    assert all("of the size" in reason for reason in skipped(files / "run").values())


def test_images_changed_after_propose_are_left_out_with_a_note_and_listed(files, capsys):
    first, second, third, *_ = images(files)
    delete(first)
    grow(second)
    overwrite(third)
    done = go(files, "run", 4, max_steps=4)
    assert {key for key, _ in done.unreadable} == {second.name, third.name}
    assert skipped(files / "run").keys() == {second.name, third.name}
    said = capsys.readouterr().err
    assert f"lacks 1 of the 8 images of {files / 'table.parquet'} (first: {first.name})" in said
    assert f"1 of 6 images are not of the size that it was made for: {second.name}" in said


def test_a_run_resumes_if_an_image_was_replaced_but_not_if_the_image_set_was(files, capsys):
    go(files, "run", 4, max_steps=1)
    replace_by_another_size(images(files)[0])
    assert go(files, "run", 4).finished
    assert images(files)[0].name in skipped(files / "run")
    delete(images(files)[0])
    with pytest.raises(InputError, match=r"count of the images \(7 now, 8 there\)"):
        go(files, "run", 4, count=8)
    for file in images(files):
        replace_by_another_size(file)
    with pytest.raises(InputError, match="made for other images"):
        go(files, "other", 4)


@pytest.mark.parametrize("change", CHANGES)
def test_images_changed_during_fine_tuning_are_replaced_and_listed_with_the_reason(tmp_path, change):
    names = ("astronaut", "chelsea")
    file = coco_file(tmp_path / "set.json", names, masks=False)
    photographs = (tmp_path / ".photographs").resolve()
    (tmp_path / ".photographs").unlink()
    (tmp_path / ".photographs").mkdir()
    for name in names:
        shutil.copy(photographs / f"{name}.jpg", tmp_path / ".photographs")
    data = open_detection_set(file)

    class Detector:
        has_masks = False

        def training_sample(self, pixels, target_at, settings, generator):
            return pixels, target_at(pixels.shape[:2])

    dataset = TrainingImages(data, Detector(), None, seed=0)
    assert dataset[0, 0][2] is None
    change(tmp_path / ".photographs" / "astronaut.jpg")
    pixels, _, problem = dataset[0, 0]
    assert pixels.shape == dataset[0, 1][0].shape  # the next image takes its place
    assert problem is not None
    assert problem[0].endswith("astronaut.jpg")
