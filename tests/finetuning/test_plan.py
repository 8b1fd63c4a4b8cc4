"""What is shown before a run's first step."""

import re

import pytest
from hand_made_sets import made_image, made_set
from narrow_models import NARROW

from socodet.errors import InputError
from socodet.finetuning.labelled_sets import images_trained_on
from socodet.finetuning.plan import large_step_note, plan_lines
from socodet.finetuning.run import FinetuneRecipe
from socodet.finetuning.settings import FinetuneSettings


def test_objects_that_are_trained_on_and_not_scored_are_counted_as_such():
    """Difficult ones; crowd regions are neither."""
    marks = [(1, ""), (2, "difficult"), (2, "difficult"), (3, "crowd")]
    data = made_set([made_image(1, [(0, 0, 9, 9, label, mark) for label, mark in marks])], "voc", classes=3)
    settings = FinetuneSettings("faster_rcnn_fpn", "voc_24k")
    recipe = FinetuneRecipe(settings, NARROW, settings.resolved_schedule(1))
    lines = list(plan_lines(recipe, data, data, init="scratch", every=None, patience=None))
    (objects,) = [line for line in lines if line.startswith("  objects")]
    assert objects.endswith("3 in 3 classes: kind 2 2, kind 1 1; none of kind 3")
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
def test_a_step_that_few_cpus_have_the_memory_for_is_told_with_what_makes_it_smaller(settings, device, flags):
    """As by default, 16 images of 800 pixels: with a ResNet-50, more than 20 GB."""
    note = large_step_note(FinetuneRecipe(settings, NARROW, settings.resolved_schedule(100)), device)
    assert (None if note is None else set(re.findall("--[a-z-]+", note))) == flags


@pytest.mark.parametrize(("fraction", "fix"), [(None, "annotations"), (0.1, "--fraction")])
def test_what_to_do_where_no_image_has_an_object(fraction, fix):
    """A small fraction may have left out all that have one."""
    with pytest.raises(InputError, match=f"no image has an object.*{fix}"):
        images_trained_on(made_set([made_image(1, [])], "coco"), FinetuneSettings(fraction=fraction))
