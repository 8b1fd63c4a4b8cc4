"""What `socodet reproduce` runs: methods, their recipes at a budget, and how a detector is fine-tuned.

The settings of the `cpu` budget were chosen on a split of the training images (docs/results.md has what was tried, with
the results); those of `gpu` have not been run yet.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from socodet.errors import SettingError
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.pretraining.recipes import Recipe, recipe
from socodet.proposals.settings import Method as ProposalMethod
from socodet.proposals.settings import ProposalSettings
from socodet.studies.ablation.budget import Budget

Boxes = ProposalMethod | Literal["annotated"]
"""Where boxes come from: a proposal method, or the annotated objects, as a ceiling."""
LADDER = ("selective_search", "fpn", "head", "scale_aware", "box_jitter")
"""Table 4's rows between its first, the image-level baseline, and its last, SoCo."""


@dataclass(frozen=True)
class PretrainingMethod:
    """A way to pretrain."""

    name: str
    what: str
    recipe: Recipe
    """At the budget; the seed is each run's own."""
    boxes: str = "single"
    """Which boxes it learns from: a proposal method, or `annotated`."""
    finetuned: bool = False
    """Whether a detector is fine-tuned from it."""


@dataclass(frozen=True)
class Protocol:
    """All that decides the figures, except the images and the seeds."""

    name: str
    pretraining: Budget
    """What every method may cost; SoCo's epochs are the others' too, but for the equal-compute baseline's."""
    compute_ratio: float
    """FLOPs of a SoCo step over those of an image-level step at this budget, by torch's counter, of a batch with
    boxes on every level; a test recounts that of `cpu`."""
    ladder: bool = False
    """Whether the rows of Table 4 between the first and the last are run."""
    boxes: tuple[Boxes, ...] = ()
    """Other boxes that SoCo is pretrained with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    fractions: tuple[float, ...] = (0.1,)
    """Fractions of the labels that a detector is fine-tuned on."""
    finetuned: tuple[str, ...] = ("soco",)
    """Methods that a detector is fine-tuned from, besides scratch."""
    finetuning: FinetuneSettings = field(default_factory=FinetuneSettings)
    """Of every detector, except the seed and the fraction."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def __post_init__(self) -> None:
        unknown = set(self.finetuned) - {method.name for method in self.methods()}
        if unknown or not self.finetuned:
            raise SettingError(f"finetuned must name one or more of the methods, not {self.finetuned}")

    def methods(self) -> tuple[PretrainingMethod, ...]:
        """In the order they are run; each with every seed."""
        budget = self.pretraining
        soco, image = (budget.scaled(recipe(name)) for name in ("fpn_100ep", "table4_whole_image"))
        longer = replace(
            image,
            training=replace(
                image.training,
                epochs=image.training.epochs * self.compute_ratio,
                warmup_epochs=image.training.warmup_epochs * self.compute_ratio,
            ),
        )
        rows = [
            PretrainingMethod("soco", "SoCo, three views", soco),
            PretrainingMethod("image", "image-level baseline (Table 4's first row), equal epochs", image),
            PretrainingMethod(
                "image_compute", f"the same with {self.compute_ratio:g} times the epochs: equal compute", longer
            ),
        ]
        if self.ladder:
            rows += [
                PretrainingMethod(name, f"Table 4: {name.replace('_', ' ')}", budget.scaled(recipe(f"table4_{name}")))
                for name in LADDER
            ]
        for boxes in self.boxes:
            rows.append(_with_boxes(soco, boxes))
        return tuple(replace(row, finetuned=row.name in self.finetuned) for row in rows)


def _with_boxes(soco: Recipe, boxes: Boxes) -> PretrainingMethod:
    """SoCo with other boxes than the default proposals."""
    name = f"soco_{boxes}"
    if boxes == "annotated":
        return PretrainingMethod(name, "SoCo with the annotated boxes in place of proposals: a ceiling", soco, boxes)
    recipe = replace(soco, proposals=ProposalSettings(method=boxes))
    return PretrainingMethod(name, f"SoCo with {boxes} proposals", recipe, boxes)


PROTOCOLS = {
    "cpu": Protocol(
        "cpu",
        Budget(epochs=2, batch_size=16, base_lr=16.0, backbone="resnet18", width=0.25, size=96),
        compute_ratio=1.34,
        finetuning=FinetuneSettings(
            "faster_rcnn_fpn",
            "voc_24k",
            iterations=400,
            batch_size=8,
            size=160,
            precise_bn=20,
            rois_per_image=64,
        ),
        evaluation=EvaluationSettings(every=400),
    ),
    "gpu": Protocol(
        "gpu",
        Budget(epochs=200, batch_size=256, base_lr=1.0, backbone="resnet50", width=1.0, size=224),
        compute_ratio=1.6,
        ladder=True,
        boxes=("fast", "random", "annotated"),
        fractions=(0.05, 0.1, 1.0),
        finetuned=("image", "image_compute", "soco"),
        finetuning=FinetuneSettings("mask_rcnn_fpn", "voc_24k", epochs=24, size=480, precise_bn=100),
    ),
}
"""By budget: `cpu` for two cores, `gpu` for one card."""

if TYPE_CHECKING:
    ProtocolName = str
else:
    ProtocolName = Literal[tuple(PROTOCOLS)]
