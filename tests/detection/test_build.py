"""The detector built from a run is the one that fine-tuning trains."""

from dataclasses import replace

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from torchvision.ops import MultiScaleRoIAlign

from socodet.detection.build import build_detector
from socodet.detection.detectors.by_name import DETECTORS, detector_named, new_detector
from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.names import ALIASES, NAMES
from socodet.detection.detectors.pooling import AlignedRoIAlign
from socodet.errors import InputError
from socodet.finetuning import finetune as finetune_module
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.architectures import build_encoder
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime import extensions
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("pretrained"))
    run.write_description({"recipe": to_json(Recipe("custom", model=NARROW))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(NARROW), NARROW).state_dict()})
    return run.path


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "retinanet_fpn"])
def test_built_detector_is_the_one_that_finetune_trains(name, pretrained, tmp_path, monkeypatch):
    class Stop(Exception):  # noqa: N818
        pass

    trained = []

    def caught(network, *_args, **_kwargs):
        trained.append(network)
        raise Stop

    monkeypatch.setattr(finetune_module, "FineTuner", caught)
    with pytest.raises(Stop):
        finetune_module.finetune(
            coco_file(tmp_path / "set.json"),
            tmp_path / "run",
            FinetuneSettings(name, keep_head_scale=True),
            init=pretrained,
            execution=ExecutionSettings("cpu", workers=0),
            show_progress=False,
        )
    built = build_detector(pretrained, num_classes=4, detector=name, show_report=False)
    assert repr(built) == repr(trained[0])  # modules, pooling, transform
    ours, theirs = built.state_dict(), trained[0].state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_rt_detr_has_its_authors_sizes(tmp_path):
    model = replace(NARROW, backbone="timm/resnet18d")
    run = RunFolder(tmp_path)
    run.write_description({"recipe": to_json(Recipe("custom", model=model))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(model), model).state_dict()})
    built = build_detector(run.path, num_classes=4, detector="rt_detr", show_report=False)
    assert (built.side, min(built.training_sides), max(built.training_sides)) == (640, 480, 800)
    assert (built.detections, built.score_threshold) == (300, 0.001)


def test_pooling_is_that_of_pretraining_or_torchvisions_on_request(pretrained):
    asked = {"num_classes": 4, "show_report": False}
    heads = build_detector(pretrained, **asked).roi_heads
    assert type(heads.box_roi_pool) is type(heads.mask_roi_pool) is AlignedRoIAlign
    heads = build_detector(pretrained, pooling="torchvision", **asked).roi_heads
    assert type(heads.box_roi_pool) is type(heads.mask_roi_pool) is MultiScaleRoIAlign
    assert heads.box_roi_pool.sampling_ratio == 2
    with pytest.raises(InputError, match="fcos_fpn pools no boxes"):
        build_detector(pretrained, detector="fcos_fpn", pooling="torchvision", **asked)


@pytest.mark.parametrize("count", [1, 0, -2])
def test_fewer_than_one_class_beside_background_is_refused(count, pretrained):
    with pytest.raises(InputError, match=f"num_classes must be at least 2.* not {count}"):
        build_detector(pretrained, num_classes=count, show_report=False)


class NotAModule(Detector):
    def build(self, model, num_classes, inference):
        return lambda images: images


def test_custom_detector_must_build_a_module(monkeypatch):
    monkeypatch.setattr(extensions, "_REGISTERED", {})
    with pytest.raises(InputError, match="NotAModule: its build must return"):
        new_detector(extensions.register(NotAModule), NARROW, 3)


def test_the_papers_names_are_accepted():
    assert set(ALIASES.values()) == {*DETECTORS} - {"rt_detr"}  # not in the paper
    assert tuple(DETECTORS) == NAMES
    assert [name for name, one in DETECTORS.items() if one.has_box_head] == [name for name in NAMES if "rcnn" in name]
    assert detector_named("mask_rcnn_r50_c4") is DETECTORS["mask_rcnn_c4"]
