"""The recipe `auto`: settings chosen from the images and the machine, each with its reason.

All rules are here, with their sources. Our own measurements behind them are in docs/results.md.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from socodet.errors import InputError
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.recipes import AUTO
from socodet.pretraining.recipes.choices import NAMED_SECONDS, Choice, Given, few_images_note
from socodet.pretraining.recipes.practical import tiny
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.recipes.whole_images import image_level_choices, image_level_recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.survey import SMALLER_SCALE, ImageSurvey, Machine
from socodet.proposals.settings import ONLINE, ProposalSettings
from socodet.runtime.counted import counted, rounded
from socodet.runtime.progress import duration
from socodet.views.settings import PhotometricSettings, SampleSettings, three_views
from socodet.weights.pretrained_run import PUBLISHED_STEPS

GREY_SHARE = 0.9
"""With at least this share of grey images, colours are not augmented."""
FEW_BOXES_SHARE = 0.25
"""If more than this share of the images has too few proposals within the paper's filter, smaller ones are kept too."""
LARGE_SET = 100_000
"""With at least this many images the paper's loss is used unchanged. We measured nothing between our small datasets and
the paper's 1.3 million images; the number is a guess between the two."""
RESNET50_IMAGES = 20_000
"""With at least this many images, and a GPU of at least `RESNET50_GIB`, the backbone is a ResNet-50."""
RESNET50_GIB = 30.0
BATCH_ON_GPU, BATCH_ON_CPU = 256, 64
HALF_LIVES = 450
"""Half-lives of the target's moving average per run. SoCo's 100 epochs have 906, BYOL's 300 epochs 453."""
STEPS_ON_GPU, STEPS_ON_CPU = PUBLISHED_STEPS, 1_500
"""When neither hours nor epochs are given. Published runs on small datasets have 20,000 to 30,000 steps. On a CPU, the
length of runs that gave better detectors; twice the steps at 96 pixels were no better (docs/results.md)."""
SIDE_ON_CPU, SIDE_OF_GIVEN_WEIGHTS = 64, 96
"""Of the first view, for the same reason. Runs that start from ImageNet weights were measured at 96 pixels and more."""
FEWEST_STEPS = 1_000
STARTED_BACKBONE_LR = 0.1
"""Factor on the backbone's learning rate in a run that starts from another run. At the full rate, LARS changes a layer
by 0.001 of its norm times the learning rate per step, so little of it would be left after a few thousand steps."""
GIVEN_BACKBONE_LR = 0.0
"""The same in a run that starts from a file, such as ImageNet weights: the backbone keeps them, and the FPN and the box
head learn on top. From few folds of short runs: on NEU-DET both ended lower at 0.1 than at 0
(docs/results_in_full.md)."""
VARIANCE_WEIGHT, COVARIANCE_WEIGHT = 4 / 3, 0.2 / 3
"""Per view. Three times as much also keeps the rank up, but weakens the agreement too much
(docs/results_in_full.md)."""

Chose = Callable[[str, object, str], None]
"""Records a choice: what, its value, and why."""


@dataclass(frozen=True)
class Plan:
    """A recipe and the choices behind it."""

    recipe: Recipe
    choices: tuple[Choice, ...]
    proposal_seconds: float = 0.0
    """How long this machine takes to make the run's proposals, before the first step."""

    def lines(self, images: int, seconds_per_step: float | None = None, replaced: Collection[str] = ()) -> list[str]:
        """What is shown before a run on this many images: each choice, the length, and what to expect of it.

        `replaced`: flags with which the user overrides the plan.
        """
        training = self.recipe.training
        steps = training.steps(training.epochs, images)
        what, value = (max(len(getattr(choice, name)) for choice in self.choices) for name in ("what", "value"))
        shown = [choice.replaced_by(replaced) for choice in self.choices]
        lines = [f"{one.what:<{what}}  {one.value:<{value}}  {one.reason}" for one in shown]
        length = f"{counted(steps, 'step')} of {counted(training.batch_size, 'image')}"
        length += f": each image is seen {counted(steps * training.batch_size / images, 'time')}"
        if seconds_per_step is not None:
            length += f"; about {duration(steps * seconds_per_step)} at {rounded(seconds_per_step, 2)} s per step"
            if self.proposal_seconds >= NAMED_SECONDS:
                length += f", after about {duration(self.proposal_seconds)} for the proposals"
        return [*lines, length, expectation(steps), *few_images_note(images)]


def plan(
    survey: ImageSurvey,
    machine: Machine,
    given: Given | None = None,
    *,
    seconds_per_step: float | None = None,
    largest_batch: int | None = None,
) -> Plan:
    """Chooses everything that is not given. `hours` needs `seconds_per_step`, measured.

    `largest_batch`: the largest batch that fits into memory, if that was tried. InputError if the run would be shorter
    than one step.
    """
    given = given or Given()
    choices: list[Choice] = []

    def chose(what: str, value: object, reason: str) -> None:
        choices.append(Choice(what, str(value), reason))

    model = _network(survey, machine, given, chose)
    sample = _views(survey, machine, given, chose)
    batch = _batch(survey, machine, given.batch, largest_batch, chose)
    steps = _steps(survey, machine, batch, given, seconds_per_step, chose)
    epochs = given.epochs or (steps + 0.5) * batch / survey.count
    training = _training(survey, epochs, batch, steps, chose)
    if given.accumulate is not None:
        chose("micro-batches", given.accumulate, "given")
        training = dataclasses.replace(training, accumulate=given.accumulate)
    if given.starts_from is not None:
        frozen = given.model is None and not given.whole_images  # unless nothing but the backbone learns
        rate = GIVEN_BACKBONE_LR if frozen else STARTED_BACKBONE_LR
        value = f"{rate:g} of the others'" if rate else "0: frozen"
        chose("backbone lr", value, "to keep the weights it starts from")
        training = dataclasses.replace(training, backbone_lr=rate)
    objective = _objective(survey, chose)
    proposals = _proposals(survey, given, chose)
    seconds = survey.count * survey.proposal_seconds / machine.cores if given.proposals is None else 0.0
    recipe = Recipe(AUTO, sample, model, training, proposals, objective)
    if given.whole_images:
        recipe = image_level_recipe(recipe)
        choices = image_level_choices(choices, recipe)
    return Plan(recipe, tuple(choices), seconds)


def recipe_for_timing(
    survey: ImageSurvey, machine: Machine, given: Given | None = None, largest_batch: int | None = None
) -> Recipe:
    """A recipe with the plan's networks, views and batch, to time a step with; its length is arbitrary."""
    of_any_length = dataclasses.replace(given or Given(), epochs=None, hours=None, steps=10)
    return plan(survey, machine, of_any_length, largest_batch=largest_batch).recipe


def expectation(steps: int) -> str:
    """What to expect of a run of this many steps."""
    if steps < FEWEST_STEPS:
        return f"expect little: no run below {FEWEST_STEPS:,} steps was seen to help; raise --epochs or --hours"
    if steps < STEPS_ON_GPU:
        return f"a short run: it may help with few labels; published ones on small datasets have {STEPS_ON_GPU:,} steps"
    return "as long as published runs on small datasets"


def _network(survey: ImageSurvey, machine: Machine, given: Given, chose: Chose) -> ModelSettings:
    if given.model is not None and given.backbone in (None, given.model.backbone):
        chose("network", f"{given.model.backbone}, FPN and head", "as in the run that it starts from")
        return dataclasses.replace(given.model, architecture="fpn", rpn_weight=0.0)
    if machine.device == "cpu":
        model, rest = tiny().model, "narrow FPN and head"
        why = "no GPU: a small network"
    else:
        large = survey.count >= RESNET50_IMAGES and machine.memory_gib >= RESNET50_GIB
        model, rest = ModelSettings(backbone="resnet50" if large else "resnet18"), "detector's FPN and head"
        why = f"{survey.count:,} images and {machine.memory_gib:.0f} GiB"
    if given.backbone is not None:
        model = dataclasses.replace(model, backbone=given.backbone)
        why = "the backbone is given" + ("; the rest is small, as there is no GPU" if machine.device == "cpu" else "")
    chose("network", f"{model.backbone}, {rest}", why)
    return model


def _side(survey: ImageSurvey, machine: Machine, given: Given) -> tuple[int, str]:
    """Side of the first view, and why."""
    if given.size is not None:
        return given.size, "the size of the first is given"
    why = f"median shorter side: {survey.short_side} pixels"
    if machine.device == "cpu":
        from_a_file = given.starts_from is not None and given.model is None
        if from_a_file and survey.short_side >= SIDE_OF_GIVEN_WEIGHTS:
            return SIDE_OF_GIVEN_WEIGHTS, f"no GPU; {why}"
        return SIDE_ON_CPU, "no GPU: larger ones took longer and were no better"
    return 224 if survey.short_side >= 160 else 128, why


def _views(survey: ImageSurvey, machine: Machine, given: Given, chose: Chose) -> SampleSettings:
    size, why = _side(survey, machine, given)
    chose("views", f"{size}, {size}, {size // 2} pixels", why)
    first = PhotometricSettings(blur_sigma=(0.1, min(20.0, max(0.1, round(2.0 * size / 224, 2)))))
    colours = "as in the paper"
    if survey.grey >= GREY_SHARE:
        first = dataclasses.replace(first, hue=0.0, saturation=0.0, grayscale_probability=0.0)
        colours = "brightness and contrast only"
    chose("colours", colours, f"{survey.grey:.0%} of {survey.surveyed} sampled images are grey")
    whole, views = SampleSettings(), three_views(size, first)
    if size == whole.views[0].size:
        return dataclasses.replace(whole, views=views)
    # The limits of `tiny`, scaled from its 96 pixels, give every level its share of the boxes; the paper's, scaled,
    # would leave P5 nearly empty.
    a, b, c = (limit * size / 96 for limit in tiny().sample.level_limits)
    return SampleSettings(views=views, level_limits=(a, b, c), min_box_side=max(4.0, size / 16))


def _batch(survey: ImageSurvey, machine: Machine, given: int | None, largest: int | None, chose: Chose) -> int:
    if given is not None:
        chose("batch", given, "given")
        return given
    usual = BATCH_ON_GPU if machine.device == "cuda" else BATCH_ON_CPU
    batch: int = min(usual, max(8, 1 << (survey.count.bit_length() - 1)))
    if largest is not None and largest < batch:
        chose("batch", largest, f"{2 * largest} do not fit into memory")
        return largest
    chose("batch", batch, "the usual size on this device" if batch == usual else f"there are {survey.count} images")
    return batch


def _steps(
    survey: ImageSurvey,
    machine: Machine,
    batch: int,
    given: Given,
    seconds_per_step: float | None,
    chose: Chose,
) -> int:
    if given.steps is not None:
        steps = given.steps
        chose("steps", f"{steps:,}", "given")
    elif given.epochs is not None:
        steps = math.floor(given.epochs * survey.count / batch + 1e-9)
        chose("steps", f"{steps:,}", f"--epochs {given.epochs:g}")
    elif given.hours is not None:
        if seconds_per_step is None:
            raise InputError("--hours needs the time of a step, which was not measured; give --epochs")
        steps = math.floor(given.hours * 3600 / seconds_per_step)
        chose("steps", f"{steps:,}", f"--hours {given.hours:g} at {rounded(seconds_per_step, 2)} s per step")
    else:
        steps = STEPS_ON_GPU if machine.device == "cuda" else STEPS_ON_CPU
        chose("steps", f"{steps:,}", "the usual length on this device; --hours or --epochs sets it")
    if steps < 1:
        raise InputError(
            f"{survey.count} images with batches of {batch}: the run would have no step; raise --epochs or --hours"
        )
    return steps


def _training(survey: ImageSurvey, epochs: float, batch: int, steps: int, chose: Chose) -> TrainingSettings:
    paper = TrainingSettings()
    rate = paper.lr * math.sqrt(batch / paper.batch_size)
    chose("learning rate", f"{rate:.3g}", f"LARS: the paper's {paper.lr:g} x sqrt({batch}/{paper.batch_size})")
    momentum = min(paper.target_momentum, 0.5 ** (HALF_LIVES / max(steps, FEWEST_STEPS)))
    short = momentum < paper.target_momentum
    why = f"{HALF_LIVES} half-lives in {max(steps, FEWEST_STEPS):,} steps, as in BYOL" if short else "the paper's"
    if steps < FEWEST_STEPS:
        lived = HALF_LIVES * steps / FEWEST_STEPS
        why += f"; shorter runs use the same value, so {counted(steps, 'step')} have {lived:.0f}"
    chose("target momentum", f"{momentum:.3g}", why)
    # norms and biases keep the plain learning rate: 0.024 of it, as in Barlow Twins, did harm (docs/results.md)
    training = TrainingSettings(
        epochs=epochs,
        warmup_epochs=0.05 * epochs,
        batch_size=batch,
        base_lr=rate * 256 / batch,
        target_momentum=momentum,
    )
    warmup = training.steps(training.warmup_epochs, survey.count)
    chose("warm-up", counted(warmup, "step"), "a twentieth of the run")
    return training


def _objective(survey: ImageSurvey, chose: Chose) -> ObjectiveSettings:
    if survey.count >= LARGE_SET:
        chose("objective", "the paper's", f"{survey.count:,} images")
        return ObjectiveSettings()
    why = (
        f"{counted(survey.count, 'image')}: without these terms, short runs on few images collapse to a few dimensions"
    )
    chose("objective", "with variance and covariance terms", why)
    return ObjectiveSettings(variance_weight=VARIANCE_WEIGHT, covariance_weight=COVARIANCE_WEIGHT)


def _proposals(survey: ImageSurvey, given: Given, chose: Chose) -> ProposalSettings:
    paper = ProposalSettings()
    if given.proposals is not None and given.proposals != ONLINE:
        chose("proposals", "of a table", f"{given.proposals} is given")
        return paper
    if survey.few_boxes > FEW_BOXES_SHARE:
        why = f"{survey.few_boxes:.0%} of images have too few larger ones"
        if survey.no_boxes > FEW_BOXES_SHARE:
            why += f"; {survey.no_boxes:.0%} have none at all: look at them with socodet inspect proposals"
        chose("proposals", f"from {SMALLER_SCALE:g} of the image", why)
        return dataclasses.replace(paper, min_scale=SMALLER_SCALE)
    chose("proposals", f"{paper.min_scale:g} to {paper.max_scale:g} of the image", "the paper's; enough in most images")
    return paper
