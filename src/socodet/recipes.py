"""The runs one can ask for by name: a function a recipe, put together from the settings of each room."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

from socodet.errors import InputError, SettingError
from socodet.models.settings import ModelSettings
from socodet.proposals.settings import ProposalSettings
from socodet.training.settings import TrainingSettings
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned; two runs of equal recipes on equal images are the same run."""

    name: str
    sample: SampleSettings = dataclasses.field(default_factory=SampleSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    proposals: ProposalSettings = dataclasses.field(default_factory=ProposalSettings)

    def __post_init__(self) -> None:
        batch, smallest = self.training.batch_size, min(view.size for view in self.sample.views)
        if batch * self.sample.boxes_per_image < 2 or batch * math.ceil(smallest / 32) ** 2 < 2:
            raise SettingError(
                f"batch_size must be above {batch} with {self.sample.boxes_per_image} boxes an image and views of "
                f"{smallest} pixels: batch norm needs two values"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def fpn_100ep() -> Recipe:
    """SoCo-R50-FPN, 100 epochs: Tables 1, 4 and 5 of the paper (42.3 AP with Mask R-CNN, COCO 1x).

    socodet pretrain IMAGENET/train --recipe fpn_100ep --output runs/fpn_100ep
    """
    return Recipe("fpn_100ep")


def fpn_400ep() -> Recipe:
    """SoCo-R50-FPN, 400 epochs: Table 1 of the paper (43.0 AP with Mask R-CNN, COCO 1x).

    socodet pretrain IMAGENET/train --recipe fpn_400ep --output runs/fpn_400ep
    """
    return Recipe("fpn_400ep", training=TrainingSettings(epochs=400))


def fpn_star_400ep() -> Recipe:
    """SoCo*-R50-FPN, 400 epochs, a fourth view: Table 1 of the paper (43.2 AP with Mask R-CNN, COCO 1x).

    V4 is another random crop of V1, at 192 pixels (section 4.3).

    socodet pretrain IMAGENET/train --recipe fpn_star_400ep --output runs/fpn_star_400ep
    """
    three = SampleSettings()
    fourth = ViewSettings("crop", 192, three.views[1].photometric)
    return Recipe(
        "fpn_star_400ep",
        sample=dataclasses.replace(three, views=(*three.views, fourth)),
        training=TrainingSettings(epochs=400),
    )


def c4_100ep() -> Recipe:
    """SoCo-R50-C4, 100 epochs: Table 2 of the paper (40.4 AP with Mask R-CNN R50-C4, COCO 1x).

    Boxes are pooled from C4, the fifth residual block is the head, V3 is left out (section 3.3).

    socodet pretrain IMAGENET/train --recipe c4_100ep --output runs/c4_100ep
    """
    return Recipe(
        "c4_100ep",
        sample=SampleSettings(views=SampleSettings().views[:2], level_rule="single"),
        model=ModelSettings(architecture="c4"),
    )


def c4_400ep() -> Recipe:
    """SoCo-R50-C4, 400 epochs: Table 2 of the paper (40.9 AP with Mask R-CNN R50-C4, COCO 1x).

    socodet pretrain IMAGENET/train --recipe c4_400ep --output runs/c4_400ep
    """
    return dataclasses.replace(c4_100ep(), name="c4_400ep", training=TrainingSettings(epochs=400))


def tiny() -> Recipe:
    """ResNet-18-FPN on small views: the same code path in minutes on two CPU cores.

    Views of 96 and 48 pixels, with the blur scaled to them and level limits at which every pyramid level has its
    share of the boxes (section 3.3's, scaled, would leave P5 nearly empty); narrower pyramid, head and MLPs. The
    learning rate is high because LARS moves a layer by a fixed share of its length a step, and a short run has
    few steps.

    socodet pretrain IMAGES --recipe tiny --output runs/tiny
    """
    first = PhotometricSettings(blur_sigma=(0.1, 0.9))
    other = dataclasses.replace(first, blur_probability=0.1, solarize_probability=0.2)
    return Recipe(
        "tiny",
        sample=SampleSettings(
            views=(
                ViewSettings("whole", 96, first),
                ViewSettings("crop", 96, other),
                ViewSettings("previous", 48, other),
            ),
            level_limits=(20, 32, 48),
            min_box_side=6,
        ),
        model=ModelSettings(
            backbone="resnet18",
            fpn_channels=64,
            head_channels=64,
            representation_size=256,
            hidden_size=512,
            embedding_size=128,
        ),
        training=TrainingSettings(epochs=100, warmup_epochs=5, batch_size=12, base_lr=1.0 * 256 / 12),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    f.__name__: f for f in (fpn_100ep, fpn_400ep, fpn_star_400ep, c4_100ep, c4_400ep, tiny)
}


def recipe(name: str) -> Recipe:
    """The recipe of that name. InputError for an unknown one."""
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def list_recipes() -> str:
    """A line a recipe: its name and the first line of what it is."""
    width = max(map(len, RECIPES))
    return "\n".join(f"{name:<{width}}  {_first_line(function)}" for name, function in RECIPES.items())


def describe_recipe(name: str) -> str:
    """What a recipe is, and every field of it, by the name the command line gives it."""
    chosen = recipe(name)
    fields = chosen.as_dict()
    lines = [inspect.getdoc(RECIPES[name]) or "", ""]
    for room in ("sample", "model", "training", "proposals"):
        prefix = "proposals." if room == "proposals" else ""
        lines += [f"--{prefix}{field} {value}" for field, value in _flags(fields[room])]
    return "\n".join(lines)


def _first_line(function: Callable[[], Recipe]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]


def _flags(value: dict[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (flag, value) pairs."""
    flags: list[tuple[str, str]] = []
    for key, item in value.items():
        name = key.replace("_", "-")
        if isinstance(item, dict):
            flags += [(f"{name}.{inner}", text) for inner, text in _flags(item)]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            nested = _flags({str(i): part for i, part in enumerate(item)})
            flags += [(f"{name}.{inner}", text) for inner, text in nested]
        elif isinstance(item, list):
            flags.append((name, " ".join(map(str, item))))
        else:
            flags.append((name, str(item)))
    return flags
