"""What `socodet reproduce own-data` compares: the starts, how each is pretrained, and how detectors are fine-tuned."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from socodet.errors import SettingError
from socodet.finetuning.settings import SCRATCH, FinetuneSettings
from socodet.models.settings import WITH_PYRAMID, ObjectiveSettings
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.recipes.whole_images import of_whole_images
from socodet.runtime.settings import PositiveInt, Seed, Settings
from socodet.weights.hub import downloaded, is_on_hub

if TYPE_CHECKING:
    from socodet.images.source import ImageSource
    from socodet.pretraining.survey import ImageSurvey, Machine

IMAGE, SOCO, SOCO_PAPER, SOCO_RPN = "image", "soco", "soco_paper", "soco_rpn"
SOCO_BACKBONE = f"{SOCO}_backbone"
ADAPTED = f"{SOCO}_adapted"
"""After the name of the given weights: SoCo started from them, the backbone learning too, though slowly."""
WHOLE_IMAGES = "table4_whole_image"
"""The recipe whose row the image level is."""
NAME = "imagenet"
"""Of the weights that are given, where the user does not name them."""
OF_TRAINING = "of the training set"
"""In the note: of the images pretrained on, where none were given."""
FRACTIONS = (0.1, 0.05, 0.25, 1.0)
FOLDS = (0, 1, 2, 3, 4)


def pretrained_as(start: str) -> str:
    """The start whose pretraining a start takes: its own, or another's."""
    return SOCO if start == SOCO_BACKBONE else start


@dataclass(frozen=True)
class Weights:
    """Weights that the user has already, to start from and to compare with."""

    path: str | Path
    """A file of the backbone, here or on the Hub, as `finetune --init` takes it."""
    backbone: str
    """What the file is the weights of, as `pretrain --backbone` takes it."""
    name: str = NAME
    """What tables call them."""

    def __post_init__(self) -> None:
        path = downloaded(self.path) if is_on_hub(self.path) else Path(self.path)
        object.__setattr__(self, "path", path)
        taken = {SCRATCH, IMAGE, SOCO, SOCO_BACKBONE, SOCO_PAPER, SOCO_RPN}
        if self.name.casefold() in taken or not self.name.isidentifier():  # macOS makes one folder of soco and SoCo
            raise SettingError(
                f"--weights-name must be letters, digits and underscores, and none of {', '.join(sorted(taken))}, "
                f"not {self.name!r}"
            )


@dataclass(frozen=True)
class OwnDataSettings(Settings):
    """All that decides the figures, except the data, the weights that are given, and the folds.

    `socodet reproduce own-data --help-all` explains each field.
    """

    steps: PositiveInt = 3000
    """Steps of SoCo's pretraining. The image-level baseline gets as many more as make its compute equal."""
    backbone: str | None = None
    """Backbone of all starts except those from --weights; by default what the recipe `auto` chooses."""
    size: PositiveInt | None = None
    """Side of the first view in pixels; by default what the recipe `auto` chooses."""
    pretraining_seed: Seed = 0
    """Random seed for pretraining; each start is pretrained once, for all folds."""
    shortest: PositiveInt = 300
    """Shortest fine-tuning from scratch that is tried, in steps."""
    longest: PositiveInt = 9600
    """Longest fine-tuning from scratch that is tried. If it is below twice the shortest, the shortest is used without
    a trial."""
    rise: float = 0.05
    """AP from scratch has stopped rising when twice the steps raise it by no more than this share."""
    finetuning: FinetuneSettings = field(
        default_factory=lambda: FinetuneSettings(
            "faster_rcnn_fpn", "voc_24k", batch_size=8, size=200, rois_per_image=64, precise_bn=10
        )
    )
    """Of every detector; its length is found from scratch, and its seed and share of the labels are the fold's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given, own = self.finetuning, ("iterations", "epochs", "fraction")
        for name in own:
            if getattr(given, name) is not None:
                raise SettingError(f"--finetuning.{name}: is found by the protocol; leave it out")
        if given.seed:
            raise SettingError("--finetuning.seed: each detector takes its fold's number; choose the --folds instead")
        self._require(self.rise >= 0, "rise", "0 or more")
        self._require(self.longest >= self.shortest, "longest", f"at least shortest ({self.shortest})")


@dataclass(frozen=True)
class Start:
    """First weights of a detector."""

    name: str
    what: str
    recipe: Recipe | None = None
    """How they are pretrained; None for scratch and for the given weights themselves."""
    start_from: Path | None = None
    """What pretraining starts from."""
    weights: Path | None = None
    """The given weights, where nothing is pretrained."""
    own_backbone: bool = False
    """Whether the backbone is that of the given weights."""
    backbone_only: bool = False
    """Whether a detector gets the backbone alone."""
    on_request: bool = False
    """Whether it is left out unless it is asked for by name."""


def start_names(weights: Weights | None) -> list[str]:
    """Names of all starts, before anything is planned."""
    own = [SCRATCH, IMAGE, SOCO, SOCO_BACKBONE, SOCO_PAPER, SOCO_RPN]
    return (
        own if weights is None else [*own, weights.name, *(f"{weights.name}_{one}" for one in (SOCO, IMAGE, ADAPTED))]
    )


def starts(
    settings: OwnDataSettings, weights: Weights | None, source: "ImageSource", survey: "ImageSurvey", machine: "Machine"
) -> tuple[Start, ...]:
    """All starts, in the order of the table. The arithmetic of a step is counted to make compute equal."""
    from socodet.pretraining.recipes.auto import STARTED_BACKBONE_LR

    soco, image = _recipes(settings, settings.backbone, source, survey, machine, starts_from=None)
    found = [
        Start(SCRATCH, "no pretraining"),
        Start(IMAGE, "the image-level baseline (Table 4's first row) at equal compute: backbone only", image),
        Start(SOCO, "SoCo as the recipe auto sets it", soco),
        Start(SOCO_BACKBONE, "like soco, of which a detector gets the backbone alone", soco, backbone_only=True),
        Start(SOCO_PAPER, "like soco, with the paper's loss alone", replace(soco, objective=ObjectiveSettings())),
    ]
    if soco.model.architecture in WITH_PYRAMID:
        model = replace(soco.model, rpn_weight=1.0)
        what = "SoCo as the recipe auto sets it, and an RPN head beside it"
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
                f"SoCo started from {name}, the backbone's rate {STARTED_BACKBONE_LR:g} of the others'",
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
    """SoCo's and the image level's, the second as much longer as makes their arithmetic equal."""
    from socodet.pretraining.recipes.auto import STARTED_BACKBONE_LR, plan
    from socodet.pretraining.recipes.given import Given
    from socodet.pretraining.step_time import flops_per_image

    def planned(steps: int) -> Recipe:
        given = Given(steps=steps, backbone=backbone, size=settings.size, starts_from=starts_from)
        made = plan(survey, machine, given).recipe
        return replace(made, training=replace(made.training, seed=settings.pretraining_seed))

    def baseline(soco: Recipe) -> Recipe:  # whose backbone is all that learns
        made = of_whole_images(soco if starts_from is None else _at_rate(soco, STARTED_BACKBONE_LR))
        return replace(made, name=WHOLE_IMAGES)

    soco = planned(settings.steps)
    ratio = flops_per_image(soco, source) / flops_per_image(baseline(soco), source)
    return soco, baseline(planned(round(settings.steps * ratio)))


def _at_rate(recipe: Recipe, backbone_lr: float) -> Recipe:
    return replace(recipe, training=replace(recipe.training, backbone_lr=backbone_lr))
