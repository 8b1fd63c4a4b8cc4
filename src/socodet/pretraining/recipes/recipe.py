"""A recipe: everything that decides what is learned."""

import dataclasses
import math

from socodet.errors import SettingError
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.settings import Settings
from socodet.views.settings import SampleSettings


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
