"""Fine-tuning settings and the resulting schedules, against section 4.2 and MMDetection's values."""

from dataclasses import replace

import pytest
from hand_made_sets import made_image, made_set
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.voc import VOC_CLASSES
from socodet.detection.detectors.schedules import SCHEDULES, ScheduleSettings
from socodet.errors import InputError
from socodet.finetuning.auto_schedule import schedule_of, steps_between_evaluations
from socodet.finetuning.settings import FinetuneSettings

RCNN, RETINA, FCOS = "mask_rcnn_fpn", "retinanet_fpn", "fcos_fpn"


def resolved(schedule, detector, *, images=0, **asked):
    return FinetuneSettings(detector, schedule, **asked).resolved_schedule(images)


@pytest.mark.parametrize(
    ("name", "iterations", "drops"),
    [
        ("coco_1x", 90_000, (60_000, 80_000)),
        ("coco_2x", 180_000, (120_000, 160_000)),
        ("coco_4x", 360_000, (240_000, 320_000)),
        ("coco_6x", 540_000, (360_000, 480_000)),
        ("mini_coco", 90_000, (60_000, 80_000)),
        ("voc_24k", 24_000, (18_000, 22_000)),
        ("lvis_1x", 180_000, (120_000, 160_000)),
        ("lvis_2x", 360_000, (240_000, 320_000)),
        ("lvis_90k", 90_000, (60_000, 80_000)),
    ],
)
def test_schedules_have_the_published_lengths_and_drops(name, iterations, drops):
    settings = resolved(name, RCNN)
    assert settings.iterations == iterations
    first, second = drops
    rates = [settings.rate(step) for step in (first - 1, first, second - 1, second, iterations - 1)]
    assert rates == pytest.approx([0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_schedules_are_exactly_these():
    assert set(SCHEDULES) == {
        *("coco_1x", "coco_2x", "coco_4x", "coco_6x"),
        *("auto", "mini_coco", "voc_24k", "lvis_1x", "lvis_2x", "lvis_90k"),
    }


def test_warm_up_is_linear_over_the_first_thousand_steps():
    settings = resolved("coco_1x", RCNN)
    assert settings.rate(0) == pytest.approx(0.02 * 0.001)
    assert settings.rate(500) == pytest.approx(0.02 * (0.001 * 0.5 + 0.5))
    assert settings.rate(1000) == 0.02


def test_other_values_of_section_4_2():
    coco, voc, lvis = (resolved(name, RCNN) for name in ("coco_1x", "voc_24k", "lvis_1x"))
    assert (coco.weight_decay, voc.weight_decay) == (2.5e-5, 1e-4)
    assert (coco.short_sides[0], coco.short_sides[-1], coco.max_side) == (640, 800, 1333)
    assert (voc.short_sides[0], voc.short_sides[-1], voc.warmup_iterations) == (480, 800, 100)
    assert (lvis.detections, lvis.repeat_threshold) == (300, 0.001)
    assert (coco.momentum, coco.precise_bn) == (0.9, 200)


def test_single_stage_detectors_follow_mmdetections_defaults():
    retina, fcos = resolved("coco_1x", RETINA), resolved("coco_1x", FCOS)
    epoch = 7330  # 117,266 images in batches of 16
    for settings in (retina, fcos):
        assert settings.iterations == 12 * epoch
        rates = [settings.rate(step) for step in (500, 8 * epoch - 1, 8 * epoch, 11 * epoch - 1, 11 * epoch)]
        assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001])
        assert (settings.weight_decay, settings.decay_norms, settings.short_sides) == (1e-4, True, (800,))
    assert retina.rate(0) == pytest.approx(1e-5)
    assert retina.rate(250) == pytest.approx(0.01 * 0.5005)
    assert (retina.bias_lr, retina.decay_biases, retina.clip_norm) == (1.0, True, None)
    assert [fcos.rate(step) for step in (0, 499)] == pytest.approx([0.01 / 3, 0.01 / 3])
    assert (fcos.bias_lr, fcos.decay_biases, fcos.clip_norm) == (2.0, False, 35.0)
    assert resolved("coco_2x", RETINA).iterations == 24 * epoch


def test_rt_detr_has_its_authors_rates_constant_after_warm_up():
    settings = resolved("coco_6x", "rt_detr")
    assert [settings.rate(step) for step in (1000, 2000, 539_999)] == pytest.approx([5e-5, 1e-4, 1e-4], rel=1e-3)
    assert (settings.weight_decay, settings.clip_norm, settings.ema_decay, settings.ema_warmup) == (
        1e-4,
        0.1,
        0.9999,
        2000,
    )
    assert (settings.short_sides, settings.test_short_side) == ((640,), 640)
    assert resolved("coco_6x", "rt_detr", size=320).short_sides == (320,)


def test_batch_size_keeps_the_number_of_images_and_scales_the_rate():
    settings = resolved("coco_1x", RCNN, batch_size=8)
    assert (settings.iterations, settings.lr, settings.warmup_iterations) == (180_000, 0.01, 2000)
    assert resolved("coco_1x", RCNN, batch_size=32).lr == 0.04
    assert resolved("coco_1x", RCNN, batch_size=4, base_lr=0.4).lr == pytest.approx(0.1)


def test_iterations_and_epochs_shorten_a_schedule():
    settings = resolved("coco_1x", RCNN, batch_size=4, epochs=2.5, images=100)
    assert (settings.iterations, settings.warmup_iterations, settings.precise_bn) == (62, 6, 62)
    rates = [settings.rate(step) for step in (40, 41, 54, 55)]  # drops at 2/3 and 8/9 of 62, to the nearest step
    assert rates == pytest.approx([0.005, 0.0005, 0.0005, 0.00005])
    assert resolved("voc_24k", RCNN, iterations=3).warmup_iterations == 0
    assert resolved("voc_24k", RCNN, iterations=3).rate(0) == 0.02
    assert resolved("voc_24k", RCNN, iterations=9000, precise_bn=0).precise_bn == 0


def test_smaller_size_shrinks_all_sides_in_proportion():
    settings = resolved("coco_1x", RCNN, size=200)
    assert settings.short_sides == (160, 168, 176, 184, 192, 200)
    assert (settings.test_short_side, settings.max_side) == (200, 333)
    assert resolved("coco_1x", RCNN, size=401).short_sides[0] == 321  # 640 * 401 / 800 is 320.8


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"iterations": 5, "epochs": 1.0}, "give one of them"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"epochs": float("nan")}, "epochs must be finite"),
        ({"base_lr": -1.0}, "lr must be above 0"),
        ({"size": 4}, "size must be at least 32"),
        ({"rois_per_image": 3}, "rois_per_image must be at least 4"),  # a quarter of them are positive: of three, none
        ({"fraction": 1.5}, "fraction must be at most 1"),
        ({"precise_bn": -1}, "precise_bn must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(asked, problem):
    with pytest.raises(InputError, match=problem):
        resolved("coco_1x", RCNN, **asked)


def test_rois_per_image_are_only_for_detectors_with_a_box_head():
    for asked, expected in (({}, 512), ({"rois_per_image": 64}, 64)):
        settings = FinetuneSettings(RCNN, "voc_24k", **asked)
        assert settings.inference(settings.resolved_schedule()).rois_per_image == expected
    with pytest.raises(InputError, match="--rois-per-image: retinanet_fpn has no box head"):
        resolved("voc_24k", RETINA, rois_per_image=64)


def test_unknown_schedule_is_refused():
    with pytest.raises(InputError, match=r"schedule must be one of auto, .*, not '3x'"):
        resolved("3x", RCNN)
    assert ScheduleSettings(10).rate(9) == pytest.approx(0.02 * (0.001 * (1 - 9 / 1000) + 9 / 1000))


@pytest.mark.parametrize(
    ("images", "steps"),
    [(5, 500), (100, 763), (1000, 3611), (16_551, 24_000), (117_266, 90_000), (1_000_000, 90_000)],
)
def test_length_of_auto_follows_from_the_number_of_images(images, steps):
    """VOC and COCO have their own lengths; values in between by hand: 24,000 (N / 16,551)^0.675."""
    assert resolved("auto", RCNN, images=images).iterations == pytest.approx(steps, rel=0.003)
    assert resolved("auto", RCNN, images=images, batch_size=8).iterations == pytest.approx(2 * steps, rel=0.003)


def test_given_settings_override_auto_and_the_rest_is_coco_1x():
    ours, coco = (resolved(name, RETINA, images=100, epochs=8.0, batch_size=4) for name in ("auto", "coco_1x"))
    assert replace(ours, precise_bn=coco.precise_bn) == coco
    assert (ours.iterations, ours.precise_bn) == (200, 4)
    assert resolved("auto", RCNN, images=100, precise_bn=9).precise_bn == 9


def dataset_of(names, style, images):
    one = made_set([made_image("a", [(10, 10, 30, 40, 1)])], style)
    categories = tuple(Category(number, name) for number, name in enumerate(names, 1))
    return replace(one, categories=categories, images=one.images * images)


def test_papers_datasets_get_its_schedules_but_samples_of_them_do_not():
    coco = sorted({*FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]} - {"__background__", "N/A"})
    assert len(coco) == 80
    voc, lvis = VOC_CLASSES, [str(k) for k in range(1203)]
    assert schedule_of(dataset_of(coco, "coco", 117_266)) == "coco_1x"
    assert schedule_of(dataset_of(voc, "voc", 16_551)) == "voc_24k"
    assert schedule_of(dataset_of(lvis, "lvis", 100_170)) == "lvis_1x"
    for names, style in ((coco, "coco"), (voc, "voc"), (lvis, "lvis")):
        assert schedule_of(dataset_of(names, style, 128)) == "auto"
    assert schedule_of(dataset_of(["cat"], "coco", 60_000)) == "auto"
    assert schedule_of(dataset_of(["card"], "voc", 6_000)) == "auto"


@pytest.mark.parametrize(
    ("steps", "batch", "scored", "every"),
    [
        (500, 16, 100, 50),
        (37, 2, 67, 37),
        (37, 16, 67, 37),
        (400, 16, 67, 40),
        (400, 4, 0, 40),
        (1, 16, 5, 1),
        (90_000, 16, 5000, 9000),
        (100, 4, 50, 25),  # half of the 400 images trained on are scored, in four evaluations
        (101, 16, 5, 21),
    ],
)
def test_evaluations_take_no_longer_than_training(steps, batch, scored, every):
    assert steps_between_evaluations(steps, batch, scored) == every
