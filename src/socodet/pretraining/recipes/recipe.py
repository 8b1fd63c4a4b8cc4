"""A recipe: everything that decides what is learned."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from socodet.errors import SettingError, which_instead
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.settings import Settings
from socodet.views.settings import SampleSettings

S = TypeVar("S")
ROOMS = ("sample", "model", "training", "objective")


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """Everything that decides what is learned; equal recipes on equal images give equal runs."""

    name: str
    sample: SampleSettings = dataclasses.field(default_factory=SampleSettings)
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    proposals: ProposalSettings = dataclasses.field(default_factory=ProposalSettings)
    objective: ObjectiveSettings = dataclasses.field(default_factory=ObjectiveSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts, smallest = self.training.accumulate, min(view.size for view in self.sample.views)
        batch = self.training.batch_size // parts
        if batch * self.sample.boxes_per_image < 2 or batch * math.ceil(smallest / 32) ** 2 < 2:
            name = "batch_size" if parts == 1 else "batch_size / accumulate"
            raise SettingError(
                f"{name} must be above {batch} with {self.sample.boxes_per_image} boxes an image and views of "
                f"{smallest} pixels: batch norm needs two values"
            )
        if self.model.architecture == "image" and max(self.sample.object_sets) > 0:
            raise SettingError("objects must be all_views where the whole image is the one box, not each_window")

    def with_(self, **changes: Any) -> "Recipe":
        """The recipe with other values, by the names that `socodet pretrain` has as flags.

        Nested settings are dicts, and views are told by their index: `with_(epochs=50, views={2: {"size": 96}},
        proposals={"method": "grid"})`. With fewer epochs, warm-up takes at most a tenth of them unless `warmup_epochs`
        is given. SettingError for a name that does not exist and for a value that its field cannot have.
        """
        homes = {field.name: room for room in ROOMS for field in dataclasses.fields(getattr(self, room))}
        new: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name == "proposals":
                new[name] = value
            elif name in homes:
                new.setdefault(homes[name], {})[name] = value
            else:
                raise SettingError(f"{name}: no such setting; {which_instead(name, [*homes, 'proposals'])}")
        epochs = changes.get("epochs")
        if isinstance(epochs, int | float) and "warmup_epochs" not in changes:
            new["training"]["warmup_epochs"] = self.training.warmup_for(epochs)
        return _changed(self, new)


def _changed(settings: S, changes: Mapping[Any, Any]) -> S:
    """Settings, or a tuple of them, with other values in some fields or places."""
    known: dict[Any, Any] = (
        dict(enumerate(settings))
        if isinstance(settings, tuple)
        else {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    )
    new = {}
    for name, value in changes.items():
        if name not in known:
            raise SettingError(f"{name}: no such setting; {which_instead(str(name), map(str, known))}")
        if isinstance(value, Mapping):
            value = _changed(known[name], value)
        new[name] = tuple(value) if isinstance(value, list) else value
    if isinstance(settings, tuple):
        return tuple({**known, **new}.values())  # type: ignore[return-value]
    return dataclasses.replace(settings, **new)  # type: ignore[type-var]
