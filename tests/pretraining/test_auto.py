"""The recipe `auto`: the survey of the images, and the choices."""

import dataclasses
import io
import re
import time

import numpy as np
import pytest
from PIL import Image

from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.models.soco import build_soco
from socodet.pretraining import step_time, survey
from socodet.pretraining.recipes.auto import expectation, plan
from socodet.pretraining.recipes.choices import Given
from socodet.pretraining.recipes.practical import tiny
from socodet.pretraining.step_time import seconds_per_step, seconds_with_data
from socodet.pretraining.survey import ImageSurvey, Machine, survey_images
from socodet.pretraining.trainer import Trainer
from socodet.proposals import image_boxes
from socodet.training.settings import ExecutionSettings

CPU = Machine("cpu", 0.0)
H200 = Machine("cuda", 139.0)
SMALL_GPU = Machine("cuda", 8.0)
FEW = ImageSurvey(count=1400, surveyed=48, short_side=200, grey=0.0, few_boxes=0.0)


class GeneratedImages:
    """Any number of images generated in memory."""

    location = "made"

    def __init__(self, count: int, colour: bool) -> None:
        self.count, self.colour = count, colour
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> bytes:
        self.reads += 1
        noise = np.random.default_rng(index).integers(0, 256, (12, 16, 3 if self.colour else 1), dtype=np.uint8)
        pixels = np.repeat(np.repeat(noise, 10, axis=0), 10, axis=1)
        file = io.BytesIO()
        Image.fromarray(pixels if self.colour else pixels[..., 0]).save(file, "PNG")
        return file.getvalue()


def test_survey_samples_evenly_and_finds_greyness_and_size():
    grey, coloured = GeneratedImages(50_000, colour=False), GeneratedImages(50, colour=True)
    first, second = survey_images(grey), survey_images(coloured)
    assert (first.count, first.surveyed, first.short_side, first.grey) == (50_000, 48, 120, 1.0)
    assert (second.count, second.grey) == (50, 0.0)
    assert grey.reads == 48  # not 50,000


def test_whole_images_plan_one_box_and_only_a_backbone():
    soco = plan(FEW, CPU, Given(steps=100, backbone="resnet18", size=64)).recipe
    made = plan(FEW, CPU, Given(steps=100, backbone="resnet18", size=64, whole_images=True))
    sample = made.recipe.sample
    assert made.recipe.model == dataclasses.replace(soco.model, architecture="image")
    assert (made.recipe.training, made.recipe.objective) == (soco.training, soco.objective)
    assert (len(sample.views), sample.boxes_per_image, sample.jitter) == (2, 1, 0.0)
    assert [view.size for view in sample.views] == [64, 64]
    assert [view.photometric for view in sample.views] == [view.photometric for view in soco.sample.views[:2]]
    chosen = {choice.what: (choice.value, choice.reason) for choice in made.choices}
    assert chosen["network"] == ("resnet18 alone", "the backbone is given")
    assert chosen["views"][0] == "64, 64 pixels"
    assert chosen["proposals"][0] == "not used"


def test_backbone_is_not_frozen_if_nothing_else_learns():
    for whole, rate in ((False, 0.0), (True, 0.1)):
        given = Given(steps=100, backbone="resnet18", starts_from="weights.pth", whole_images=whole)
        assert plan(FEW, CPU, given).recipe.training.backbone_lr == rate


def test_images_without_proposals_are_named_in_the_plan():
    class Flat(GeneratedImages):
        def read(self, index: int) -> bytes:
            if index % 2:
                return super().read(index)
            file = io.BytesIO()
            Image.new("RGB", (160, 120), (index, 0, 0)).save(file, "PNG")
            return file.getvalue()

    half = survey_images(Flat(16, colour=True))
    assert half.no_boxes == 0.5
    (row,) = [choice for choice in plan(half, CPU).choices if choice.what == "proposals"]
    assert "50% have none at all" in row.reason
    assert survey_images(GeneratedImages(4, colour=True)).no_boxes == 0


def test_unreadable_images_are_skipped_and_reported_unless_all_are(capsys):
    class Broken(GeneratedImages):
        def read(self, index: int) -> bytes:
            if index % 2 == 0 or self.count == 2:
                raise OSError
            return super().read(index)

    assert survey_images(GeneratedImages(48, colour=True)).surveyed == 48
    assert not capsys.readouterr().err
    assert survey_images(Broken(48, colour=True)).surveyed == 24
    assert "24 of 48 sampled" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 2 sampled"):
        survey_images(Broken(2, colour=True))


def test_grey_images_keep_their_hue():
    recipe = plan(dataclasses.replace(FEW, grey=1.0), CPU).recipe
    for view in recipe.sample.views:
        assert (view.photometric.hue, view.photometric.saturation, view.photometric.grayscale_probability) == (0, 0, 0)
        assert view.photometric.brightness == 0.4
    assert plan(FEW, CPU).recipe.sample.views[0].photometric.hue == 0.1


def test_device_decides_network_views_and_batch():
    small, large = plan(FEW, CPU).recipe, plan(dataclasses.replace(FEW, count=50_000, short_side=375), H200).recipe
    assert (small.model.backbone, small.sample.views[0].size, small.training.batch_size) == ("resnet18", 64, 64)
    assert (large.model.backbone, large.sample.views[0].size, large.training.batch_size) == ("resnet50", 224, 256)
    assert large.model.fpn_channels == 256
    assert plan(dataclasses.replace(FEW, count=50_000), SMALL_GPU).recipe.model.backbone == "resnet18"
    assert plan(FEW, H200).recipe.model.backbone == "resnet18"


@pytest.mark.parametrize("machine", [CPU, H200])
def test_rows_of_the_plan_name_what_is_used(machine):
    made = plan(FEW, machine, Given(backbone="timm/test_resnet", size=64, epochs=7))
    rows = {choice.what: choice for choice in made.choices}
    assert len(rows) == len(made.choices)
    assert made.recipe.model.backbone == "timm/test_resnet"
    assert not any("resnet18" in choice.value for choice in made.choices)
    assert rows["network"].value.startswith("timm/test_resnet, ")
    assert rows["views"].value == "64, 64, 32 pixels"
    steps = 7 * 1400 // made.recipe.training.batch_size
    half_lives = steps * np.log2(1 / made.recipe.training.target_momentum)
    assert rows["target momentum"].reason.endswith(f"{steps} steps have {half_lives:.0f}")


def test_length_follows_hours_or_epochs():
    by_hours = plan(FEW, CPU, Given(hours=2), seconds_per_step=1.5).recipe.training
    assert by_hours.steps(by_hours.epochs, 1400) == 4800
    by_epochs = plan(FEW, CPU, Given(epochs=100)).recipe.training
    assert by_epochs.steps(by_epochs.epochs, 1400) == 100 * 1400 // 64
    usual = plan(FEW, CPU).recipe.training
    assert usual.steps(usual.epochs, 1400) == 1500
    with pytest.raises(InputError, match="--epochs and --hours"):
        plan(FEW, CPU, Given(epochs=1, hours=1))
    with pytest.raises(InputError, match="no step"):
        plan(FEW, CPU, Given(epochs=0.001))


def test_lr_and_target_momentum_follow_batch_and_length():
    training = plan(FEW, CPU).recipe.training
    assert training.lr == pytest.approx(8 * (64 / 2048) ** 0.5)
    half_lives = 1500 * np.log2(1 / training.target_momentum)
    assert half_lives == pytest.approx(450)
    long = plan(FEW, CPU, Given(epochs=100_000)).recipe.training
    assert long.target_momentum == 0.99


def test_given_weights_learn_more_slowly_than_fresh_modules():
    """A backbone from a file is frozen; one from a run learns slowly, as it may need other view sizes or more steps."""
    fresh = plan(FEW, CPU)
    assert fresh.recipe.training.backbone_lr == 1
    from_a_run = Given(starts_from="run", model=fresh.recipe.model)
    for given, rate, side in ((Given(starts_from="weights.pth"), 0, 96), (from_a_run, 0.1, 64)):
        planned = plan(FEW, CPU, given)
        assert planned.recipe.training.backbone_lr == rate
        assert planned.recipe.sample.views[0].size == side
        assert dataclasses.replace(planned.recipe.training, backbone_lr=1.0) == fresh.recipe.training
        row = next(choice for choice in planned.choices if choice.what == "backbone lr")
        assert row.settings() == {"backbone_lr"}


def test_backbone_of_the_first_run_keeps_its_other_sizes():
    first = dataclasses.replace(tiny().model, backbone="resnet34")
    sizes = [
        plan(FEW, H200, Given(starts_from="run", model=first, backbone=backbone)).recipe.model
        for backbone in (None, "resnet34", "resnet18")
    ]
    assert sizes[:2] == [first, first]
    assert sizes[2].backbone == "resnet18"


def test_few_images_get_extra_loss_terms_and_many_the_papers_loss():
    assert plan(FEW, CPU).recipe.objective.variance_weight > 0
    assert plan(dataclasses.replace(FEW, count=1_281_167), H200).recipe.objective.variance_weight == 0


def test_images_with_few_large_proposals_get_smaller_ones():
    assert plan(FEW, CPU).recipe.proposals.min_scale == 0.3
    assert plan(dataclasses.replace(FEW, few_boxes=0.6), CPU).recipe.proposals.min_scale == 0.1


@pytest.mark.parametrize("count", [1, 2, 50, 1_000_000])
@pytest.mark.parametrize("machine", [CPU, SMALL_GPU, H200])
@pytest.mark.parametrize("short_side", [16, 130, 1000])
def test_any_images_get_a_recipe_and_a_plan_with_one_line_per_choice(count, machine, short_side):
    made = plan(dataclasses.replace(FEW, count=count, short_side=short_side), machine)
    lines = made.lines(count, 0.5)
    assert len(lines) == len(made.choices) + 2 + (count < 200)
    assert f"{made.recipe.training.batch_size} image" in lines[len(made.choices)]
    assert (" few: " in lines[-1]) == (count < 200)
    assert {choice.what for choice in made.choices} >= {"network", "views", "batch", "steps", "objective", "proposals"}


def test_plan_shows_the_given_first_view():
    made = plan(FEW, CPU, Given(size=64, epochs=2.5))
    (views,) = [choice.value for choice in made.choices if choice.what == "views"]
    assert views == "64, 64, 32 pixels"
    assert [view.size for view in made.recipe.sample.views] == [64, 64, 32]
    assert "seen 2.47 times" in "\n".join(made.lines(1400))  # 54 steps of 64 images


@pytest.mark.parametrize("size", [16, 2241, 4096])
def test_first_views_of_any_size_are_planned(size):
    survey = ImageSurvey(count=1000, surveyed=48, short_side=5000, grey=0, few_boxes=0)
    assert plan(survey, Machine("cpu", 0.0), Given(size=size)).recipe.sample.views[0].size == size


def test_longer_runs_promise_more():
    assert len({expectation(steps) for steps in (200, 5_000, 40_000)}) == 3
    assert "little" in expectation(200)


@pytest.mark.usefixtures("narrow_networks")
def test_step_time_is_measured_on_real_samples():
    training = dataclasses.replace(tiny().training, batch_size=4)
    recipe = dataclasses.replace(tiny(), training=training)
    seconds = seconds_per_step(recipe, open_images(photographs()), ExecutionSettings(device="cpu"))
    assert 0.001 < seconds < 60


@pytest.mark.parametrize("online", [False, True])
def test_step_is_timed_on_images_of_the_whole_dataset_including_online_proposals(monkeypatch, online):
    read, searched = [], []
    source, propose = GeneratedImages(1000, colour=True), image_boxes.propose_boxes
    monkeypatch.setattr(source, "read", lambda index: read.append(index) or GeneratedImages.read(source, index))
    monkeypatch.setattr(image_boxes, "propose_boxes", lambda *some: searched.append(some[-1]) or propose(*some))
    monkeypatch.setattr(step_time, "_step_seconds", lambda *_: [0.0] * 5)
    recipe = tiny().with_(batch_size=8)
    seconds_per_step(recipe, source, ExecutionSettings(device="cpu", workers=0), online=online)
    assert sorted(set(read)) == [0, 125, 250, 375, 500, 625, 750, 875]  # the first images may differ from the others
    assert len(searched) == (16 if online else 8)  # once to compile the kernels, once timed


def test_survey_times_the_proposals_of_an_image(monkeypatch):
    def slow(*_):
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass
        return np.zeros((9, 4), np.float32)

    monkeypatch.setattr(survey, "propose_boxes", slow)
    found = survey_images(GeneratedImages(8, colour=True))
    assert 0.02 <= found.proposal_seconds < 0.2
    many = plan(dataclasses.replace(found, count=360_000), dataclasses.replace(CPU, cores=2))
    assert many.proposal_seconds == pytest.approx(180_000 * found.proposal_seconds)


@pytest.mark.parametrize(
    ("workers", "cores", "on_cpu", "seconds"),
    [
        (4, 16, False, 2.0),  # 4 workers prepare 8 CPU seconds of samples in 2 s; the step takes 1 s
        (16, 16, False, 1.0),
        (64, 4, False, 2.0),  # no more workers than cores
        (0, 16, False, 9.0),  # samples and step take turns
        (0, 16, True, 9.0),
        (16, 16, True, 1.5),  # the workers keep the cores from the step for half a second
        (1, 16, True, 8.0),
    ],
)
def test_step_time_accounts_for_data_workers(workers, cores, on_cpu, seconds):
    assert seconds_with_data(1.0, 8.0, workers=workers, cores=cores, on_cpu=on_cpu) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("count", "given"),
    [
        (1400, Given(steps=30)),
        (1400, Given(steps=1312)),
        (40, Given(steps=1, batch=32)),
        (1400, Given(epochs=7)),
        (999, Given(hours=1)),
        (48, Given(steps=3000, batch=32)),
        (32, Given(steps=1, batch=32)),
    ],
)
def test_steps_and_epochs_shown_are_those_of_the_run(count, given):
    made = plan(dataclasses.replace(FEW, count=count), CPU, given, seconds_per_step=7.0)
    training = made.recipe.training
    trainer = Trainer(build_soco(tiny().model, 0), training, count, ExecutionSettings("cpu"))
    rows = {choice.what: choice.value for choice in made.choices}
    assert int(rows["steps"].replace(",", "")) == trainer.total
    assert int(rows["warm-up"].split()[0].replace(",", "")) == trainer.warmup
    passes = trainer.total * training.batch_size / count
    (shown,) = re.findall(r"each image is seen ([\d,.]+) times?(?:;|$)", "\n".join(made.lines(count)), re.MULTILINE)
    assert float(shown.replace(",", "")) == pytest.approx(passes, rel=0.005)
    assert not shown.endswith(".0")
