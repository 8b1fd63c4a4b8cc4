"""The budget of an ablation, and the recipes of a table scaled to it."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from socodet.errors import InputError, SettingError, suggest_names
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import RECIPES, Recipe
from socodet.runtime.settings import PositiveFloat, PositiveInt, Range, Seed, Settings
from socodet.views.settings import SampleSettings, ViewSettings

Family = Literal["table4", "table5a", "table5b", "table5c", "table5d"]
FAMILIES: tuple[Family, ...] = get_args(Family)

PAPER = Recipe("paper")
"""The reference that budgets scale: section 4.1's settings."""
_BELOW = 1 - 1e-6
CANONICAL_LIMITS = (112.0 * _BELOW, 224.0 * _BELOW, 448.0 * _BELOW)
"""Mask R-CNN's rule, floor(4 + log2(√area / 224)), as limits of P2, P3 and P4 for a first view of 224 pixels.

That rule assigns a box exactly at a limit to the upper level, but `scale_aware_levels` to the lower one, so the limits
are slightly lower. The box of a whole view, the only one of an image without proposals, is exactly at a limit.
"""
SCALED_CHANNELS = ("fpn_channels", "head_channels", "representation_size", "hidden_size", "embedding_size")


@dataclass(frozen=True)
class Budget(Settings):
    """The budget for every row of an ablation; the defaults are the paper's.

    Every setting here changes all rows in the same proportion, so a row keeps its difference from the others.
    `socodet ablate --help-all` explains each field.
    """

    epochs: PositiveFloat = PAPER.training.epochs
    """Passes over the images; warm-up keeps its share of the run."""
    batch_size: PositiveInt = PAPER.training.batch_size
    """Images per step where the paper has 2048; Table 5(b)'s other batch sizes change in proportion."""
    accumulate: PositiveInt = 1
    """Number of micro-batches that a batch is split into, to save memory; must divide every row's batch size."""
    base_lr: PositiveFloat = PAPER.training.base_lr
    """Learning rate at batch size 256; it is scaled linearly with each row's batch size."""
    backbone: str = PAPER.model.backbone
    """Backbone of every row, as for `pretrain --backbone`."""
    width: Annotated[float, Range(above=0, at_most=4)] = 1.0
    """Channels of the pyramid, the box head and the MLPs, as a share of the paper's; the backbone is unchanged."""
    size: PositiveInt = PAPER.sample.views[0].size
    """Side of the first view in pixels; other views, blur, level limits and minimum box side change in proportion."""
    limit: PositiveInt | None = None
    """Use only this many images, the same for every row and seed."""
    seeds: tuple[Seed, ...] = (0,)
    """One or more seeds; every row runs once with each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        different = bool(self.seeds) and len(set(self.seeds)) == len(self.seeds)
        self._require(different, "seeds", "one or more different numbers")

    def scaled(self, recipe: Recipe) -> Recipe:
        """A row's recipe at this budget, with the same name and the first seed."""
        training = recipe.training
        return replace(
            recipe,
            sample=self._sample(recipe.sample),
            model=self._model(recipe.model),
            training=replace(
                training,
                epochs=self.epochs,
                warmup_epochs=training.warmup_epochs * self.epochs / training.epochs,
                batch_size=round(training.batch_size * self.batch_size / PAPER.training.batch_size),
                accumulate=self.accumulate,
                base_lr=training.base_lr * self.base_lr / PAPER.training.base_lr,
                seed=self.seeds[0],
            ),
        )

    def _model(self, model: ModelSettings) -> ModelSettings:
        narrower = {name: max(1, round(getattr(model, name) * self.width)) for name in SCALED_CHANNELS}
        return replace(model, backbone=self.backbone, **narrower)

    def _sample(self, sample: SampleSettings) -> SampleSettings:
        part = self.size / PAPER.sample.views[0].size
        if part == 1:
            return sample
        levels: tuple[float, float, float] = (
            CANONICAL_LIMITS if sample.level_rule == "canonical" else sample.level_limits
        )
        a, b, c = levels
        return replace(
            sample,
            views=tuple(_smaller(view, part) for view in sample.views),
            # The canonical rule's 224 is fixed, so at another size the rule is expressed as limits.
            level_rule="scale_aware" if sample.level_rule == "canonical" else sample.level_rule,
            level_limits=(a * part, b * part, c * part),
            min_box_side=max(1.0, sample.min_box_side * part),
        )


@dataclass(frozen=True)
class FamilyRow:
    """A row of one of the paper's tables at a budget."""

    name: str
    what: str
    """A description of the row, with the paper's numbers."""
    paper_ap: str
    """The paper's box AP with Mask R-CNN, COCO 1x; NaN if it diverged."""
    levels: str
    """The rule for a box's pyramid level."""
    recipe: Recipe


def family_rows(family: str, budget: Budget) -> list[FamilyRow]:
    """The rows of a table, in the paper's order. InputError for an unknown table or an impossible budget."""
    if family not in FAMILIES:
        raise InputError(f"{family}: no such ablation; {suggest_names(family, FAMILIES)}")
    rows = []
    for name, function in RECIPES.items():
        if not name.startswith(f"{family}_"):
            continue
        paper = vars(function)
        full = function()
        try:
            recipe = budget.scaled(full)
        except SettingError as error:
            raise SettingError(f"{name} at this budget: {error}") from None
        rows.append(FamilyRow(name, paper["what"], paper["paper_ap"], full.sample.level_rule, recipe))
    return rows


def _smaller(view: ViewSettings, part: float) -> ViewSettings:
    """The view at `part` of its size, with its blur scaled; the minimum blur stays, since less would be no blur."""
    low, high = view.photometric.blur_sigma
    photometric = replace(view.photometric, blur_sigma=(low, max(low, high * part)))
    return replace(view, size=math.floor(view.size * part + 0.5), photometric=photometric)
