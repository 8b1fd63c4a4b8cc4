"""What `socodet reproduce own-data` compares: the starts (initial weights), their pretraining, and the fine-tuning."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from socodet.errors import SettingError
from socodet.finetuning.settings import SCRATCH, FinetuneSettings
from socodet.models.settings import WITH_PYRAMID, ObjectiveSettings
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.recipes.whole_images import image_level_recipe
from socodet.runtime.settings import PositiveInt, Seed, Settings
from socodet.weights.hub import download, is_on_hub

if TYPE_CHECKING:
    from socodet.images.source import ImageSource
    from socodet.pretraining.survey import ImageSurvey, Machine

IMAGE, SOCO, SOCO_PAPER, SOCO_RPN = "image", "soco", "soco_paper", "soco_rpn"
SOCO_BACKBONE = f"{SOCO}_backbone"
ADAPTED = f"{SOCO}_adapted"
"""Suffix after the name of the given weights: SoCo started from them, with the backbone also learning, but slowly."""
WHOLE_IMAGES = "table4_whole_image"
"""The recipe of the image-level baseline."""
NAME = "imagenet"
"""Default name of the given weights."""
OF_TRAINING = "of the training set"
"""The note's entry for the images to pretrain on, if none were given."""
FRACTIONS = (0.1, 0.05, 0.25, 1.0)
FOLDS = (0, 1, 2, 3, 4)


def pretrained_as(start: str) -> str:
    """The start whose pretraining run a start uses: itself or another one."""
    return SOCO if start == SOCO_BACKBONE else start


@dataclass(frozen=True)
class Weights:
    """Weights that the user already has, to start from and to compare with."""

    path: str | Path
    """File with the backbone's weights, local or on the Hub, as for `finetune --init`."""
    backbone: str
    """The backbone that the weights belong to, as for `pretrain --backbone`."""
    name: str = NAME
    """Their name in tables."""

    def __post_init__(self) -> None:
        path = download(self.path) if is_on_hub(self.path) else Path(self.path)
        object.__setattr__(self, "path", path)
        taken = {SCRATCH, IMAGE, SOCO, SOCO_BACKBONE, SOCO_PAPER, SOCO_RPN}
        if self.name.casefold() in taken or not self.name.isidentifier():  # on macOS, soco and SoCo are one folder
            raise SettingError(
                f"--weights-name must consist of letters, digits and underscores, and be none of "
                f"{', '.join(sorted(taken))}, not {self.name!r}"
            )


@dataclass(frozen=True)
class OwnDataSettings(Settings):
    """Everything that determines the results, except the data, the given weights and the folds.

    `socodet reproduce own-data --help-all` explains each field.
    """

    steps: PositiveInt = 1500
    """Steps of SoCo's pretraining. The image-level baseline gets more steps, so that its compute is equal."""
    backbone: str | None = None
    """Backbone of all starts except those from --weights; by default the one that the recipe `auto` chooses."""
    size: PositiveInt | None = None
    """Side of the first view in pixels; by default the one that the recipe `auto` chooses."""
    pretraining_seed: Seed = 0
    """Random seed for pretraining; each start is pretrained once, for all folds."""
    shortest: PositiveInt = 300
    """Shortest length of fine-tuning that is tried from scratch, in steps."""
    longest: PositiveInt = 9600
    """Longest length that is tried, in steps. If it is below twice --shortest, --shortest is used without a trial."""
    rise: float = 0.05
    """AP from scratch counts as converged when twice the steps raise it by no more than this share."""
    finetuning: FinetuneSettings = field(
        default_factory=lambda: FinetuneSettings(
            "faster_rcnn_fpn", "voc_24k", batch_size=8, size=200, rois_per_image=64, precise_bn=10
        )
    )
    """Settings of every detector, except its length, which is found from scratch, and its seed and labels, which depend
    on the fold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given, own = self.finetuning, ("iterations", "epochs", "fraction")
        for name in own:
            if getattr(given, name) is not None:
                raise SettingError(f"--finetuning.{name}: is set by the protocol; leave it out")
        if given.seed:
            raise SettingError("--finetuning.seed: each detector takes its fold's number; choose the --folds instead")
        self._require(self.rise >= 0, "rise", "0 or more")
        self._require(self.longest >= self.shortest, "longest", f"at least shortest ({self.shortest})")


@dataclass(frozen=True)
class Start:
    """Initial weights of a detector."""

    name: str
    what: str
    recipe: Recipe | None = None
    """How they are pretrained; None for scratch and for the given weights themselves."""
    start_from: Path | None = None
    """What pretraining starts from."""
    weights: Path | None = None
    """The given weights, if nothing is pretrained."""
    own_backbone: bool = False
    """Whether the backbone is that of the given weights."""
    backbone_only: bool = False
    """Whether a detector gets only the backbone."""
    on_request: bool = False
    """Whether it runs only if it is requested by name."""


def start_names(weights: Weights | None) -> list[str]:
    """Names of all starts, before anything is planned."""
    own = [SCRATCH, IMAGE, SOCO, SOCO_BACKBONE, SOCO_PAPER, SOCO_RPN]
    return (
        own if weights is None else [*own, weights.name, *(f"{weights.name}_{one}" for one in (SOCO, IMAGE, ADAPTED))]
    )


def starts(
    settings: OwnDataSettings, weights: Weights | None, source: "ImageSource", survey: "ImageSurvey", machine: "Machine"
) -> tuple[Start, ...]:
    """All starts, in the order of the table. FLOPs are counted to give both methods equal compute."""
    from socodet.pretraining.recipes.auto import STARTED_BACKBONE_LR

    soco, image = _recipes(settings, settings.backbone, source, survey, machine, starts_from=None)
    found = [
        Start(SCRATCH, "no pretraining"),
        Start(IMAGE, "the image-level baseline (Table 4's first row) at equal compute: backbone only", image),
        Start(SOCO, "SoCo as the recipe auto sets it", soco),
        Start(SOCO_BACKBONE, "like soco, but a detector gets only the backbone", soco, backbone_only=True),
        Start(SOCO_PAPER, "like soco, with only the paper's loss", replace(soco, objective=ObjectiveSettings())),
    ]
    if soco.model.architecture in WITH_PYRAMID:
        model = replace(soco.model, rpn_weight=1.0)
        what = "SoCo as the recipe auto sets it, with an RPN head"
        found.append(Start(SOCO_RPN, what, replace(soco, model=model), on_request=True))
    if weights is not None:
        path = Path(weights.path)
        soco, image = _recipes(settings, weights.backbone, source, survey, machine, starts_from=path)
        name = weights.name
        adapted = _at_rate(soco, STARTED_BACKBONE_LR)
        found += [
            Start(name, f"the given weights of {weights.backbone}", weights=path, own_backbone=True),
            Start(f"{name}_{SOCO}", f"SoCo started from {name}", soco, path, own_backbone=True),
            Start(
                f"{name}_{IMAGE}",
                f"the image level started from {name}, at equal compute",
                image,
                path,
                own_backbone=True,
            ),
            Start(
                f"{name}_{ADAPTED}",
                f"SoCo started from {name}, with {STARTED_BACKBONE_LR:g} times the learning rate for the backbone",
                adapted,
                path,
                own_backbone=True,
                on_request=True,
            ),
        ]
    return tuple(found)


def _recipes(
    settings: OwnDataSettings,
    backbone: str | None,
    source: "ImageSource",
    survey: "ImageSurvey",
    machine: "Machine",
    *,
    starts_from: Path | None,
) -> tuple[Recipe, Recipe]:
    """The recipes of SoCo and of the image level, whose steps are chosen so that both need the same FLOPs."""
    from socodet.pretraining.recipes.auto import STARTED_BACKBONE_LR, plan
    from socodet.pretraining.recipes.choices import Given
    from socodet.pretraining.step_time import flops_per_image

    def planned(steps: int) -> Recipe:
        given = Given(steps=steps, backbone=backbone, size=settings.size, starts_from=starts_from)
        made = plan(survey, machine, given).recipe
        return replace(made, training=replace(made.training, seed=settings.pretraining_seed))

    def baseline(soco: Recipe) -> Recipe:  # only its backbone learns
        made = image_level_recipe(soco if starts_from is None else _at_rate(soco, STARTED_BACKBONE_LR))
        return replace(made, name=WHOLE_IMAGES)

    soco = planned(settings.steps)
    ratio = flops_per_image(soco, source) / flops_per_image(baseline(soco), source)
    return soco, baseline(planned(round(settings.steps * ratio)))


def _at_rate(recipe: Recipe, backbone_lr: float) -> Recipe:
    return replace(recipe, training=replace(recipe.training, backbone_lr=backbone_lr))
