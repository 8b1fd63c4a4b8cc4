"""Fine-tuning that continues from a fine-tuned detector, with other classes or for longer."""

from dataclasses import replace

import pytest
import torch
from hand_made_sets import made_image, made_set
from narrow_models import NARROW
from photograph_sets import coco_file
from torch import nn

from socodet.cli import main
from socodet.commands.finetune import defaults
from socodet.detection.datasets.annotations import Category
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.detector import Detector
from socodet.errors import InputError
from socodet.finetuning.continuation import CLASS_LAYERS, continue_from
from socodet.finetuning.finetune import finetune
from socodet.finetuning.run import FinetuneRecipe, prepare_folder
from socodet.finetuning.settings import FinetuneSettings
from socodet.runtime import extensions
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

HERE = ExecutionSettings(device="cpu", workers=0)


def model_of(detector):
    return replace(NARROW, backbone="timm/resnet18d") if detector == "rt_detr" else NARROW


def save_untrained(folder, detector, data, **more):
    """Writes a fine-tuning run with an untrained, random network, and returns the network's state."""
    settings = FinetuneSettings(detector, "coco_1x", iterations=3, size=32, **more)
    recipe = FinetuneRecipe(settings, model_of(detector), settings.resolved_schedule(6))
    run = RunFolder(folder)
    prepare_folder(run, recipe, data, None, overwrite=False)
    state = new_detector(
        detector, recipe.model, len(data.categories) + 1, inference=recipe.inference, seed=7
    ).state_dict()
    run.save_checkpoint(3, {"step": 3, "total_steps": 3, "detector": state})
    return state


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with the classes animal, person and rocket."""
    return open_detection_set(coco_file(tmp_path_factory.mktemp("set") / "set.json"))


def dataset_with_classes(*names):
    categories = tuple(Category(number, name) for number, name in enumerate(names, 1))
    return replace(made_set([made_image("a", [(1, 1, 9, 9, 1)])], "coco"), categories=categories)


@pytest.mark.parametrize(
    ("detector", "layer", "places"),
    [
        ("mask_rcnn_fpn", "roi_heads.box_predictor.cls_score", [(0, 0), (2, 3), (3, 1)]),
        ("mask_rcnn_fpn", "roi_heads.mask_predictor.mask_fcn_logits", [(0, 0), (2, 3), (3, 1)]),
        (
            "mask_rcnn_fpn",
            "roi_heads.box_predictor.bbox_pred",
            [(4 * new + k, 4 * old + k) for new, old in ((0, 0), (2, 3), (3, 1)) for k in range(4)],
        ),
        ("rt_detr", "detr.model.decoder.class_embed.0", [(1, 2), (2, 0)]),
        ("rt_detr", "detr.model.denoising_class_embed", [(1, 2), (2, 0), (4, 3)]),
        (
            "retinanet_fpn",
            "head.classification_head.cls_logits",
            [(5 * anchor + new, 4 * anchor + old) for anchor in range(9) for new, old in ((0, 0), (2, 3), (3, 1))],
        ),
    ],
)
def test_rows_of_classes_with_the_same_names_are_kept_and_the_others_are_fresh(detector, layer, places, data, tmp_path):
    """Old labels: 1 animal, 2 person, 3 rocket; new ones: 1 car, 2 rocket, 3 animal, 4 tree."""
    old = save_untrained(tmp_path / "old", detector, data)
    inference = FinetuneRecipe.of_run(RunFolder(tmp_path / "old")).inference
    network = new_detector(detector, model_of(detector), 5, inference=inference, seed=1)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    taken = continue_from(network, detector, dataset_with_classes("car", "rocket", "animal", "tree"), tmp_path / "old")
    assert (taken.kept, taken.new, taken.dropped) == (("rocket", "animal"), ("car", "tree"), ("person",))
    state = network.state_dict()
    for leaf in ("weight", "bias") if f"{layer}.bias" in state else ("weight",):
        now = state[f"{layer}.{leaf}"]
        for new_row, old_row in places:
            assert torch.equal(now[new_row], old[f"{layer}.{leaf}"][old_row])
        others = sorted(set(range(len(now))) - {new for new, _ in places})
        assert torch.equal(now[others], fresh[f"{layer}.{leaf}"][others])
    classes = [name for name in state if state[name].shape != old[name].shape]
    assert all(torch.equal(state[name], old[name]) for name in state if name not in classes)
    assert all(any(part in name for part in CLASS_LAYERS) for name in classes)


def test_classes_with_the_same_name_keep_their_own_rows(tmp_path):
    old = save_untrained(tmp_path / "old", "faster_rcnn_fpn", dataset_with_classes("part", "whole", "part"))
    network = new_detector("faster_rcnn_fpn", NARROW, 4, seed=1)
    continue_from(network, "faster_rcnn_fpn", dataset_with_classes("part", "whole", "part"), tmp_path / "old")
    assert all(torch.equal(value, old[name]) for name, value in network.state_dict().items())
    for names in (("part", "part", "whole"), ("whole", "part", "car")):
        with pytest.raises(InputError, match=r"two are named part; give each a name of its own"):
            continue_from(network, "faster_rcnn_fpn", dataset_with_classes(*names), tmp_path / "old")
    continue_from(network, "faster_rcnn_fpn", dataset_with_classes("car", "whole", "car"), tmp_path / "old")


def test_masks_can_be_added_but_another_detector_is_refused(data, tmp_path):
    old = save_untrained(tmp_path / "old", "faster_rcnn_fpn", data)
    network = new_detector("mask_rcnn_fpn", NARROW, 4, seed=1)
    taken = continue_from(network, "mask_rcnn_fpn", data, tmp_path / "old")
    assert {name.split(".")[1] for name in taken.report.fresh} == {"mask_head", "mask_predictor"}
    assert torch.equal(network.state_dict()["rpn.head.bbox_pred.weight"], old["rpn.head.bbox_pred.weight"])
    with pytest.raises(InputError, match="is a faster_rcnn_fpn, not a fcos_fpn"):
        continue_from(new_detector("fcos_fpn", NARROW, 4), "fcos_fpn", data, tmp_path / "old")


def test_command_refuses_another_detector_rather_than_its_inherited_rois_per_image(data, tmp_path, capsys):
    save_untrained(tmp_path / "old", "faster_rcnn_fpn", data, rois_per_image=8)
    asked = ["--init", str(tmp_path / "old"), "--detector"]
    assert defaults([*asked, "mask_rcnn_fpn"])["settings"].rois_per_image == 8
    other = coco_file(tmp_path / "set.json", ("hopper", "chelsea"), masks=False)
    flags = ["--output", str(tmp_path / "new"), "--device", "cpu", "--workers", "0", "--iterations", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["finetune", str(other), *asked, "retinanet_fpn", *flags])
    assert ended.value.code == 2
    assert "is a faster_rcnn_fpn, not a retinanet_fpn" in capsys.readouterr().err


class OneLayer(Detector):
    """A user's detector whose class layer has a name that the code does not know."""

    def build(self, model, num_classes, inference):
        return nn.Linear(2, num_classes)


def test_other_classes_are_refused_if_the_class_layers_are_unknown(data, tmp_path, monkeypatch):
    """The same number of classes in another order would fit, but be mixed up."""
    monkeypatch.setattr(extensions, "_REGISTERED", {})
    name = extensions.register(OneLayer)
    old = save_untrained(tmp_path / "old", name, data)
    network = new_detector(name, NARROW, 4, seed=1)
    before = network.weight.detach().clone()
    with pytest.raises(InputError, match="same classes in the same order"):
        continue_from(network, name, dataset_with_classes("person", "animal", "rocket"), tmp_path / "old")
    assert torch.equal(network.weight, before)
    taken = continue_from(network, name, data, tmp_path / "old")
    assert torch.equal(network.weight, old["weight"])
    assert taken.kept == ("animal", "person", "rocket")


def test_command_uses_the_same_detector_and_reports_the_classes_kept(data, tmp_path, capsys):
    old = save_untrained(tmp_path / "old", "fcos_fpn", data)
    other = coco_file(tmp_path / "set.json", ("hopper", "chelsea"), masks=False)
    flags = ["--epochs", "1", "--batch-size", "2", "--device", "cpu", "--workers", "0", "--precise-bn", "0"]
    flags += ["--base-lr", "1e-9", "--output", str(tmp_path / "new")]
    main(["finetune", str(other), "--init", str(tmp_path / "old"), *flags])
    assert "classes kept: animal, person, rocket" in capsys.readouterr().err
    run = RunFolder(tmp_path / "new")
    settings = run.describe()["recipe"]["settings"]
    assert (settings["detector"], settings["size"]) == ("fcos_fpn", 32)
    now = run.load_checkpoint()["detector"]
    for name in ("head.classification_head.cls_logits.weight", "backbone.fpn.inner_blocks.0.0.weight"):
        torch.testing.assert_close(now[name], old[name], rtol=0, atol=1e-6)


def test_run_resumes_after_its_init_detector_is_gone(data, tmp_path):
    save_untrained(tmp_path / "old", "fcos_fpn", data)
    other = coco_file(tmp_path / "set.json", ("hopper", "chelsea"), masks=False)
    flags = ["--iterations", "2", "--batch-size", "2", "--device", "cpu", "--workers", "0", "--precise-bn", "0"]
    command = ["finetune", str(other), "--init", str(tmp_path / "old"), "--output", str(tmp_path / "new"), *flags]
    main([*command, "--max-steps", "1"])
    (tmp_path / "old").rename(tmp_path / "gone")
    main(command)
    assert RunFolder(tmp_path / "new").checkpoints()[-1].stem == "step-00000002"


def test_more_steps_are_refused_with_a_hint(data, tmp_path):
    save_untrained(tmp_path / "old", "fcos_fpn", data)
    settings = FinetuneSettings("fcos_fpn", "coco_1x", iterations=5, size=32)
    with pytest.raises(InputError, match=r"a run of 3 steps, not 5.*--init .*old --output another"):
        finetune(data, tmp_path / "old", settings, model=NARROW, execution=HERE, show_progress=False)
