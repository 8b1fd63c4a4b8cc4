"""Values that a field's annotation forbids are refused in one line that names the field."""

import dataclasses
import importlib
import math
import pkgutil
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import socodet
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.errors import SettingError
from socodet.models.settings import ModelSettings
from socodet.pretraining.settings import TrainingSettings
from socodet.probing.settings import ProbeData
from socodet.runtime.settings import Range, Settings, problem
from socodet.training.settings import ExecutionSettings
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

for module in pkgutil.walk_packages(socodet.__path__, "socodet."):
    if not module.name.startswith("socodet.commands") and "settings" in module.name:
        importlib.import_module(module.name)
REQUIRED = {str: "a", int: 1, Path: Path("a")}
CLASSES = sorted((cls for cls in Settings.__subclasses__() if cls.__module__.startswith("socodet")), key=str)


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (
            lambda: SampleSettings(level_rule="nonsense"),
            "level_rule must be one of scale_aware, canonical, single, ",
        ),
        (lambda: SampleSettings(views=ViewSettings()), "views must be a tuple, not ViewSettings("),
        (lambda: SampleSettings(views=(ViewSettings(), 3)), "views.1 must be of type ViewSettings, not 3"),
        (lambda: SampleSettings(crop_scale=(0.5,)), "crop_scale must be a tuple of 2, not (0.5,)"),
        (lambda: SampleSettings(level_limits=(1, 2, "3")), "level_limits.2 must be a number, not '3'"),
        (lambda: TrainingSettings(epochs="four"), "epochs must be a number, not 'four'"),
        (lambda: TrainingSettings(epochs=math.inf), "epochs must be finite, not inf"),
        (lambda: TrainingSettings(base_lr=math.nan), "base_lr must be finite, not nan"),
        (lambda: TrainingSettings(batch_size=2.0), "batch_size must be a whole number, not 2.0"),
        (lambda: TrainingSettings(batch_size=0), "batch_size must be at least 1, not 0"),
        (lambda: TrainingSettings(base_lr=0), "base_lr must be above 0, not 0"),
        (lambda: TrainingSettings(momentum=1.0), "momentum must be at least 0 and below 1, not 1.0"),
        (lambda: TrainingSettings(seed=True), "seed must be a whole number, not True"),
        (lambda: TrainingSettings(seed=2**63), "seed must be at least 0 and below 9223372036854775808, not"),
        (lambda: TrainingSettings(trust_clip=1), "trust_clip must be true or false, not 1"),
        (lambda: TrainingSettings(optimizer=None), "optimizer must be one of lars, sgd, not None"),
        (lambda: ModelSettings(architecture="x"), "architecture must be one of fpn,"),
        (lambda: ModelSettings(backbone=50), "backbone must be text, not 50"),
        (lambda: ExecutionSettings(precision="x"), "precision must be one of auto,"),
        (lambda: ExecutionSettings(workers=-1), "workers must be at least 0, not -1"),
        (lambda: ExecutionSettings(workers="4"), "workers must be a whole number, not '4'"),
        (lambda: PhotometricSettings(hue=0.6), "hue must be between 0 and 0.5, not 0.6"),
        (lambda: ScheduleSettings(10, drops=(0.5, "end")), "drops.1 must be a number, not 'end'"),
    ],
)
def test_wrong_values_are_named_in_one_line(build, line):
    with pytest.raises(SettingError) as refused:
        build()
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_float_fields_accept_integers_and_optional_fields_accept_none():
    assert TrainingSettings(epochs=200, warmup_epochs=0).epochs == 200
    assert ExecutionSettings(workers=None, max_steps=3).workers is None
    assert SampleSettings(crop_scale=(1, 1)).crop_scale == (1, 1)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_no_field_of_any_settings_accepts_an_arbitrary_object(cls):
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    given = {name: REQUIRED[hint] for name, hint in get_type_hints(cls).items() if name in required}
    for field in dataclasses.fields(cls):
        with pytest.raises(SettingError, match=rf"^{field.name} must be .*, not <object"):
            cls(**{**given, field.name: object()})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_ranges_are_checked_at_their_ends(cls):
    for name, hint in get_type_hints(cls, include_extras=True).items():
        hint = next((part for part in get_args(hint) if get_origin(part) is Annotated), hint)
        for rule in (rule for rule in get_args(hint) if isinstance(rule, Range)):
            for end in (rule.at_least, rule.at_most):
                assert not math.isfinite(end) or problem(name, end, hint) is None
            for outside in (rule.at_least - 1, rule.at_most + 1, rule.above, rule.below):
                assert not math.isfinite(outside) or f"{name} must be {rule}, not" in problem(name, outside, hint)


def test_numpy_numbers_and_lists_become_python_values():
    given = TrainingSettings(batch_size=np.int64(8), epochs=np.float32(20.5), base_lr=np.float64(0.1), seed=np.array(3))
    assert given == TrainingSettings(batch_size=8, epochs=20.5, base_lr=0.1, seed=3)
    assert {type(getattr(given, name)) for name in ("batch_size", "epochs", "base_lr", "seed")} == {int, float}
    assert TrainingSettings(trust_clip=np.True_).trust_clip is True
    for views in ([ViewSettings()] * 2, (ViewSettings(),) * 2):
        sample = SampleSettings(views=views, crop_scale=[0.5, np.float64(1)], level_limits=np.array([1.0, 2.0, 3.0]))
        assert sample == SampleSettings(
            views=(ViewSettings(),) * 2, crop_scale=(0.5, 1.0), level_limits=(1.0, 2.0, 3.0)
        )
        assert hash(sample) == hash(dataclasses.replace(sample))
    assert socodet.Budget(seeds=range(3)).seeds == (0, 1, 2)
    with pytest.raises(SettingError, match=r"seeds\.1 must be a whole number, not 'a'"):
        socodet.Budget(seeds=[0, "a"])


def test_path_fields_accept_strings():
    given = ProbeData("SET", val="val.json")
    assert (given.data, given.val, given.images) == (Path("SET"), Path("val.json"), None)
    with pytest.raises(SettingError, match="data must be"):
        ProbeData(3)
