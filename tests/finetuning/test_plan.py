"""The plan shown before a run's first step."""

import re

import pytest
from hand_made_sets import made_image, made_set
from narrow_models import NARROW

from socodet.errors import InputError
from socodet.finetuning.labelled_sets import images_trained_on
from socodet.finetuning.plan import large_step_note, plan_lines
from socodet.finetuning.run import FinetuneRecipe
from socodet.finetuning.settings import FinetuneSettings


def test_objects_trained_on_but_not_scored_are_counted_separately():
    """Difficult objects are; crowd regions are neither trained on nor scored."""
    marks = [(1, ""), (2, "difficult"), (2, "difficult"), (3, "crowd")]
    data = made_set([made_image(1, [(0, 0, 9, 9, label, mark) for label, mark in marks])], "voc", classes=3)
    settings = FinetuneSettings("faster_rcnn_fpn", "voc_24k")
    recipe = FinetuneRecipe(settings, NARROW, settings.resolved_schedule(1))
    lines = list(plan_lines(recipe, data, data, init="scratch", every=None, patience=None))
    (objects,) = [line for line in lines if line.startswith("  objects")]
    assert objects.endswith("3 in 2 of 3 classes: kind 2 2, kind 1 1; none of kind 3")
    (scored,) = [line for line in lines if line.startswith("  scored")]
    assert "(1 image, 1 object)" in scored


@pytest.mark.parametrize(
    ("settings", "device", "flags"),
    [
        (FinetuneSettings(), "cpu", {"--size", "--batch-size", "--rois-per-image"}),
        (FinetuneSettings("retinanet_fpn"), "cpu", {"--size", "--batch-size"}),
        (FinetuneSettings(), "cuda", None),
        (FinetuneSettings(size=320, batch_size=4), "cpu", None),
    ],
)
def test_step_too_large_for_most_cpus_gets_a_note_with_flags_that_shrink_it(settings, device, flags):
    """The default, 16 images of 800 pixels, needs more than 20 GB with a ResNet-50."""
    note = large_step_note(FinetuneRecipe(settings, NARROW, settings.resolved_schedule(100)), device)
    assert (None if note is None else set(re.findall("--[a-z-]+", note))) == flags


@pytest.mark.parametrize(("fraction", "fix"), [(None, "annotations"), (0.1, "--fraction")])
def test_no_image_with_an_object_gets_a_hint(fraction, fix):
    """A small fraction may contain none of those that have one."""
    with pytest.raises(InputError, match=f"no image has an object.*{fix}"):
        images_trained_on(made_set([made_image(1, [])], "coco"), FinetuneSettings(fraction=fraction))
