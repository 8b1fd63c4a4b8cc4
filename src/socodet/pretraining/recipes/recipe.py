"""A recipe: everything that decides what is learned."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from socodet.errors import SettingError, suggest_names
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.serialization import to_json
from socodet.runtime.settings import Settings
from socodet.runtime.shown import Shown, ShownTable
from socodet.views.settings import SampleSettings

S = TypeVar("S")
GROUPS = ("sample", "model", "training", "objective")


@dataclasses.dataclass(frozen=True)
class Recipe(Settings, Shown):
    """Everything that decides what is learned; equal recipes on equal images give equal runs.

    `print(recipe)` lists every setting; `socodet pretrain --help-all` explains each.
    """

    name: str
    """One of `socodet.recipes()`, or your own `module:name`."""
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
        if self.objective.loss == "infonce" and batch < 2:
            name = "batch_size" if parts == 1 else "batch_size / accumulate"
            raise SettingError(
                f"{name} must be 2 or more with the loss infonce: its negatives are objects of other images"
            )
        if self.model.architecture == "image" and max(self.sample.object_sets) > 0:
            raise SettingError("objects must be all_views, not each_window, if the whole image is the only box")

    if not TYPE_CHECKING:  # which report unknown names by themselves

        def __getattr__(self, name: str) -> Any:
            """AttributeError that says which part of the recipe has this name."""
            for part in dataclasses.fields(Recipe)[1:]:
                if name in getattr(part.default_factory, "__dataclass_fields__", ()):
                    raise AttributeError(f"a recipe has no {name} of its own; it is in .{part.name}.{name}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        return "\n".join([f"recipe {self.name}", *self.flags(brief=True)])

    def flags(self, *, brief: bool = False) -> list[str]:
        """Each setting as a flag of `socodet pretrain`; numbers are exact, or have six digits if `brief`."""
        return [f"--{name.replace('_', '-')} {value}" for name, value in self._settings(brief)]

    def shown(self) -> list[ShownTable]:
        """Each setting by its path."""
        return [ShownTable(list(self._settings(brief=True)))]

    def _settings(self, brief: bool = False) -> Iterator[tuple[str, str]]:
        for group in ("sample", "model", "objective", "training", "proposals"):
            yield from _texts(to_json(getattr(self, group)), brief, "proposals." if group == "proposals" else "")

    def with_(self, **changes: Any) -> "Recipe":
        """A copy of the recipe with other values, named as the flags of `socodet pretrain`.

        Nested settings are dicts, and views are addressed by index: `with_(epochs=50, views={2: {"size": 96}},
        proposals={"method": "grid"})`. The dotted names that `print(recipe)` shows work too:
        `with_(**{"views.2.size": 96})`. With fewer epochs, warm-up takes at most a tenth of them unless `warmup_epochs`
        is given. Raises SettingError for a name that does not exist or a value that its field cannot have.
        """
        homes = {field.name: group for group in GROUPS for field in dataclasses.fields(getattr(self, group))}
        new: dict[str, dict[str, Any]] = {}
        changes = _nested(changes)
        for name, value in changes.items():
            if name == "proposals":
                new[name] = value
            elif name in homes:
                new.setdefault(homes[name], {})[name] = value
            else:
                raise SettingError(f"{name}: no such setting{self._instead(name, [*homes, 'proposals'], '')}")
        epochs = changes.get("epochs")
        if isinstance(epochs, int | float) and "warmup_epochs" not in changes:
            new["training"]["warmup_epochs"] = self.training.warmup_for(epochs)
        return self._changed(self, new, "")

    def _changed(self, settings: S, changes: Mapping[Any, Any], path: str) -> S:
        """Settings, or a tuple of them, with `changes` applied. path: where in the recipe they are, ending in a dot."""
        known: dict[Any, Any] = (
            dict(enumerate(settings))
            if isinstance(settings, tuple)
            else {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
        )
        new = {}
        for name, value in changes.items():
            if name not in known and isinstance(settings, tuple):
                what = path.split(".")[-2]
                count = f"there are {len(known)} {what}, 0 to {len(known) - 1}"
                raise SettingError(f"{path}{name!r}: no such setting; {count}: {what}={{0: {{...}}}}")
            if name not in known:
                raise SettingError(f"{path}{name}: no such setting{self._instead(str(name), list(known), path)}")
            if isinstance(value, Mapping) and (dataclasses.is_dataclass(known[name]) or isinstance(known[name], tuple)):
                value = self._changed(known[name], value, "" if name in GROUPS else f"{path}{name}.")
            elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
                raise SettingError(f"{path}{name}: is a list of dicts; name one by its index, {name}={{0: {{...}}}}")
            new[name] = tuple(value) if isinstance(value, list) else value
        if isinstance(settings, tuple):
            return tuple({**known, **new}.values())  # type: ignore[return-value]
        try:
            return dataclasses.replace(settings, **new)  # type: ignore[type-var]
        except SettingError as error:
            named = str(error).partition(" ")[0].partition(".")[0] in known
            raise SettingError(f"{path}{error}" if named else str(error)) from None

    def _instead(self, name: str, known: list[str], path: str) -> str:
        """How to fix a name that does not exist at `path`: where it does, or the closest name at `path`."""
        at = path.split(".")[1] if path.startswith("views.") else "0"
        for place, _ in self._settings():
            keys = place.split(".")
            if name in keys:
                first, *inner = keys[: keys.index(name) + 1]
                return f" here; write {first}={_written([at if key == '0' else key for key in inner])}"
        return f"; {suggest_names(name, known, 'print(recipe) lists all')}"


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with dotted names, `views.2.size`, as nested dicts. SettingError if a setting is given twice."""
    nested: dict[str, Any] = {name: value for name, value in changes.items() if "." not in name}
    for name in changes.keys() - nested.keys():
        place: dict[Any, Any] = nested
        *path, last = (int(key) if key.isdigit() else key for key in name.split("."))
        for key in path:
            inner = place.get(key, {})
            if not isinstance(inner, Mapping):
                raise SettingError(f"{name}: {key} is given as a whole too; leave one out")
            place[key] = dict(inner)  # not the caller's own
            place = place[key]
        if last in place:
            raise SettingError(f"{name}: is given twice; leave one out")
        place[last] = changes[name]
    return nested


def _written(keys: list[str]) -> str:
    """Nested dicts in Python's syntax, down to the last key."""
    if not keys:
        return "..."
    first = keys[0] if keys[0].isdigit() else f'"{keys[0]}"'
    return f"{{{first}: {_written(keys[1:])}}}"


def _texts(value: dict[str, Any], brief: bool, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (path, value) pairs."""
    text = _brief if brief else _exact
    for name, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            item = {str(index): part for index, part in enumerate(item)}
        if isinstance(item, dict):
            yield from _texts(item, brief, f"{path}{name}.")
        else:
            yield f"{path}{name}", " ".join(map(text, item)) if isinstance(item, list) else text(item)


def _exact(value: Any) -> str:
    return _brief(value) if isinstance(value, float) and float(_brief(value)) == value else str(value)


def _brief(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
