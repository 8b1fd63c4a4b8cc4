"""Defaults are the paper's; values out of range are refused in one line with the field's name."""

import dataclasses

import pytest
import tyro

from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings


def test_defaults_are_those_of_sections_3_2_and_4_1() -> None:
    settings = SampleSettings()
    assert [(v.window, v.size) for v in settings.views] == [("whole", 224), ("crop", 224), ("previous", 112)]
    assert [v.flip_probability for v in settings.views] == [0.5] * 3
    assert settings.crop_scale == (0.5, 1.0)
    assert (settings.boxes_per_image, settings.jitter, settings.jitter_probability) == (4, 0.1, 0.5)
    assert settings.level_limits == (48, 96, 192)
    assert settings.object_sets == (0, 0, 0)
    assert [v.cutout_probability for v in settings.views] == [0, 0, 0]
    colors = [v.photometric for v in settings.views]
    for c in colors:  # BYOL, appendix B
        assert (c.brightness, c.contrast, c.saturation, c.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (c.jitter_probability, c.grayscale_probability, c.blur_sigma) == (0.8, 0.2, (0.1, 2.0))
    assert [c.blur_probability for c in colors] == [1.0, 0.1, 0.1]
    assert [c.solarize_probability for c in colors] == [0.0, 0.2, 0.2]


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (SampleSettings, "boxes_per_image", 0),
        (SampleSettings, "views", (ViewSettings(),)),
        (SampleSettings, "views", (ViewSettings("previous"), ViewSettings())),
        (SampleSettings, "crop_scale", (0.8, 0.5)),
        (SampleSettings, "crop_scale", (0.5, 1.5)),
        (SampleSettings, "crop_aspect", (0.0, 1.0)),
        (SampleSettings, "jitter", 1.0),
        (SampleSettings, "jitter_probability", 1.5),
        (SampleSettings, "min_visible", -0.1),
        (SampleSettings, "min_box_side", 100.0),
        (SampleSettings, "level_limits", (96.0, 48.0, 192.0)),
        (ViewSettings, "size", 0),
        (ViewSettings, "flip_probability", 2.0),
        (ViewSettings, "cutout_probability", -0.5),
        (ViewSettings, "cutout_area", (0.3, 0.1)),
        (PhotometricSettings, "hue", 0.6),
        (PhotometricSettings, "brightness", -0.1),
        (PhotometricSettings, "blur_sigma", (0.0, 1.0)),
        (PhotometricSettings, "solarize_threshold", 300),
        (PhotometricSettings, "blur_probability", 1.1),
    ],
)
def test_values_out_of_range_name_their_field(settings: type, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field}[.\w]* must be [^\n]+$"):
        settings(**{field: value})


def test_every_field_is_a_flag_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = tyro.cli(
        SampleSettings,
        args=["--views.1.size", "96", "--boxes-per-image", "8", "--views.2.photometric.hue", "0"],
    )
    assert (parsed.views[1].size, parsed.boxes_per_image, parsed.views[2].photometric.hue) == (96, 8, 0)
    with pytest.raises(SystemExit):
        tyro.cli(SampleSettings, args=["--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(SampleSettings):
        if field.name != "views":
            assert f"--{field.name.replace('_', '-')}" in shown


def test_objects_per_window_need_a_whole_first_view() -> None:
    with pytest.raises(ValueError, match=r"^objects must be all_views if view 0 is a crop, not each_window$"):
        SampleSettings(views=(ViewSettings("crop"), ViewSettings("crop")), objects="each_window")


def test_every_new_window_has_its_own_objects() -> None:
    whole, crop, previous = ViewSettings(), ViewSettings("crop"), ViewSettings("previous", 112)

    def sets(*views: ViewSettings) -> tuple[int, ...]:
        return SampleSettings(views=views, objects="each_window").object_sets

    assert sets(whole, crop) == (0, 0)
    assert sets(whole, crop, crop) == (0, 0, 1)
    assert sets(whole, crop, previous, crop) == (0, 0, 0, 1)
    assert sets(whole, crop, crop, previous, whole) == (0, 0, 1, 1, 2)
