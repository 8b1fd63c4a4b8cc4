"""Settings survive a round trip through JSON; anything else is refused in one line that names the field."""

import copy
import json
from dataclasses import asdict, fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socodet.detection.detectors.schedules import SCHEDULES, ScheduleSettings
from socodet.errors import InputError
from socodet.models.settings import ModelSettings, ObjectiveSettings
from socodet.pretraining.recipes import RECIPES, Recipe, recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.serialization import from_json, to_json
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

shares = st.floats(0, 1) | st.integers(0, 1)
views = st.builds(
    ViewSettings,
    window=st.sampled_from(["whole", "crop"]),
    size=st.integers(16, 300),
    photometric=st.builds(
        PhotometricSettings, brightness=shares, hue=st.floats(0, 0.5), solarize_threshold=st.integers(0, 256)
    ),
    flip_probability=shares,
    cutout_area=st.tuples(st.floats(0.1, 0.5), st.floats(0.5, 1)),
)
recipes = st.builds(
    Recipe,
    name=st.text(),
    sample=st.builds(
        SampleSettings,
        views=st.lists(views, min_size=2, max_size=4).map(tuple),
        level_rule=st.sampled_from(["scale_aware", "canonical", "single"]),
    ),
    model=st.builds(ModelSettings, architecture=st.sampled_from(["fpn", "c4", "c5", "fpn_no_head"])),
    training=st.builds(
        TrainingSettings,
        epochs=st.floats(10, 1e6) | st.integers(10, 1000),
        batch_size=st.integers(2, 5000),
        trust_clip=st.booleans(),
        seed=st.integers(0, 2**63 - 1),
    ),
    proposals=st.builds(ProposalSettings, max_overlap=st.floats(0.1, 1), seed=st.integers(0, 2**40)),
    objective=st.builds(ObjectiveSettings, loss=st.sampled_from(["cosine", "infonce"])),
)
schedules = st.builds(
    replace,
    st.sampled_from(list(SCHEDULES.values())),
    clip_norm=st.none() | st.floats(0.1, 10),
    drops=st.lists(shares, max_size=3).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(recipes | schedules)
def test_settings_survive_a_round_trip_through_json(value):
    text = json.dumps(to_json(value))
    assert text == json.dumps(asdict(value))
    back = from_json(type(value), json.loads(text), "run.json")
    assert back == value
    assert json.dumps(to_json(back)) == text
    assert hash(back) == hash(value)  # tuples again, not lists


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_a_round_trip(name):
    assert from_json(Recipe, json.loads(json.dumps(to_json(recipe(name)))), "run.json") == recipe(name)


def test_a_missing_field_takes_its_default():
    assert from_json(ScheduleSettings, {"iterations": 3}, "run.json") == ScheduleSettings(3)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("training.epochs", "four", "training.epochs must be a number, not 'four'"),
        ("training.seed", True, "training.seed must be a whole number, not True"),
        ("training.trust_clip", 1, "training.trust_clip must be true or false, not 1"),
        ("training.optimizer", "adam", "training.optimizer must be one of lars, sgd, not 'adam'"),
        ("training.rate", 1, "training.rate is unknown"),
        ("training.momentum", 2, "training.momentum must be "),
        ("sample.views.1.size", 224.5, "sample.views.1.size must be a whole number, not 224.5"),
        ("sample.views.1.size", 1, "sample.views.1.size must be "),
        ("sample.views", "abc", "sample.views must be a list, not 'abc'"),
        ("sample.views.0", [], "sample.views.0 must be an object with the fields of ViewSettings"),
        ("sample.level_limits", [1, 2], "sample.level_limits must be a list of 3, not [1, 2]"),
        ("sample.level_limits.1", None, "sample.level_limits.1 must be a number, not None"),
        ("model", None, "model must be an object with the fields of ModelSettings"),
        ("name", 3, "name must be text, not 3"),
    ],
)
def test_a_wrong_field_is_named(path, value, problem):
    data = copy.deepcopy(to_json(recipe("tiny")))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = data
    for part in way:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(InputError) as refused:
        from_json(Recipe, data, "here/run.json")
    assert str(refused.value).startswith(f"here/run.json: field {problem}")
    assert "\n" not in str(refused.value)


def test_a_field_without_a_default_is_required():
    with pytest.raises(InputError, match="x: field name is missing"):
        from_json(Recipe, {}, "x")


def fields_of(cls):
    for field in fields(cls):
        yield field.name, field.type


@pytest.mark.parametrize("wrong", [object(), {}, b"bytes"])
def test_fields_refuse_values_of_wrong_types(wrong):
    for room, cls in fields_of(Recipe):
        if not is_dataclass(cls):
            continue
        for field, _ in fields_of(cls):
            with pytest.raises(InputError, match=f"field {room}.{field} must be"):
                from_json(Recipe, {"name": "x", room: {field: wrong}}, "x")
