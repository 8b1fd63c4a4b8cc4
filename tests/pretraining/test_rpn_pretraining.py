"""An RPN head pretrained with SoCo: its input, learning, resuming, and where it is loaded."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import socodet
from socodet.detection.detectors.by_name import new_detector
from socodet.errors import SettingError
from socodet.images.photographs import photographs
from socodet.models.normalization import normalize
from socodet.models.region_proposals import rpn_loss
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo, build_soco
from socodet.pretraining.recipes import recipe
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import collate
from socodet.views.sample import make_sample, sample_rng

pytestmark = pytest.mark.usefixtures("narrow_networks")
HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)
MODEL = ModelSettings("fpn", "resnet18", 16, 1, 16, 16, 7, 32, 16, rpn_weight=1.0)


def chosen(model=MODEL, epochs=1.0):
    tiny = recipe("tiny")
    views = tuple(replace(view, size=side) for view, side in zip(tiny.sample.views, (64, 64, 32), strict=True))
    training = replace(tiny.training, batch_size=4, epochs=epochs, warmup_epochs=0, base_lr=20)
    return replace(tiny, model=model, sample=replace(tiny.sample, views=views), training=training)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rpn") / "run"
    socodet.pretrain(photographs(), chosen(epochs=4.0), folder, execution=HERE, show_progress=False)
    return RunFolder(folder)


def draw(shown, seed, image, boxes):
    return make_sample(image, boxes, chosen().sample, sample_rng(0, 0, seed), shown)


def test_proposals_are_given_in_pixels_of_the_first_view():
    """The first view is the whole image in 64 x 64 pixels, flipped or not."""
    image = np.zeros((80, 160, 3), np.uint8)
    boxes = np.array([[16, 8, 80, 72], [0, 0, 160, 80], [100, 20, 150, 60], [3, 3, 5, 5]], np.float32)  # last: tiny
    seen, chosen = set(), {True: set(), False: set()}
    for seed in range(12):
        sample, plain = draw(6, seed, image, boxes), draw(0, seed, image, boxes)
        left, right = boxes[:3, 0] * 64 / 160, boxes[:3, 2] * 64 / 160
        mirrored = bool(sample.flipped[0])
        x1, x2 = (64 - right, 64 - left) if mirrored else (left, right)
        expected = np.stack([x1, boxes[:3, 1] * 64 / 80, x2, boxes[:3, 3] * 64 / 80], axis=1)
        np.testing.assert_allclose(sample.shown[:3], expected, atol=1e-4)
        assert not sample.shown[3:].any()
        assert plain.shown.shape == (0, 4)
        for one, other in zip((*sample.pixels, *sample.boxes), (*plain.pixels, *plain.boxes), strict=True):
            np.testing.assert_array_equal(one, other)  # the views do not depend on the number shown
        seen.add(mirrored)
        few = {tuple(row) for row in draw(2, seed, image, boxes).shown}
        assert len(few) == 2
        assert few <= {tuple(row) for row in sample.shown[:3]}
        chosen[mirrored] |= few
    assert seen == {True, False}
    assert [len(boxes) for boxes in chosen.values()] == [3, 3]  # which two are shown is random


def test_rpn_uses_all_levels_and_micro_batches_keep_their_proposals():
    image = np.zeros((64, 64, 3), np.uint8)
    samples = [(n, draw(3, n, image, np.array([[4, 4, 60 - n, 60]], np.float32))) for n in range(4)]
    batch = collate(samples)
    assert batch.views[0].rois.needed == (True,) * 4
    assert not all(batch.views[2].rois.needed)
    parts = pickle.loads(pickle.dumps(batch)).split(2)
    shown = torch.cat([part.views[0].proposals for part in parts])
    np.testing.assert_array_equal(shown, np.stack([sample.shown for _, sample in samples]))


def test_weighted_rpn_loss_is_added_and_reaches_only_shared_modules():
    with_rpn = chosen().model
    socos = [build_soco(replace(with_rpn, rpn_weight=weight), 0) for weight in (2.0, 0.5)]
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    boxes = np.array([[4, 4, 40, 60], [10, 20, 60, 62]], np.float32)
    views = collate([(n, draw(8, n, image, boxes)) for n in range(4)]).views

    def output_and_gradients(soco: SoCo):
        output = soco(views)
        output.loss.backward()
        return output, {name: p.grad for name, p in soco.named_parameters() if p.grad is not None}

    (heavy, by_heavy), (light, by_light) = map(output_and_gradients, socos)
    assert heavy.rpn_loss.item() == pytest.approx(light.rpn_loss.item(), rel=1e-6) != 0
    assert (heavy.loss - light.loss).item() == pytest.approx(1.5 * heavy.rpn_loss.item(), rel=1e-5)
    plain = build_soco(replace(with_rpn, rpn_weight=0.0), 0)
    plain.load_state_dict({name: v for name, v in socos[0].state_dict().items() if ".rpn_head." not in name})
    encoder = socos[0].online.encoder
    of_proposals = rpn_loss(encoder.rpn_head, encoder.pyramid(normalize(views[0].pixels)), views[0].proposals)
    assert of_proposals.item() == pytest.approx(heavy.rpn_loss.item(), rel=1e-5)
    alone, by_plain = output_and_gradients(plain)
    assert alone.loss.item() == pytest.approx((heavy.loss - 2 * heavy.rpn_loss).item(), rel=1e-5)
    torch.testing.assert_close(by_plain["online.projector.0.weight"], by_heavy["online.projector.0.weight"])
    changed = {name for name in by_heavy if not torch.allclose(by_heavy[name], by_light[name], rtol=1e-4, atol=1e-9)}
    assert any(name.startswith("online.encoder.backbone.body.") for name in changed)
    assert {name for name in by_heavy if ".rpn_head." in name} <= changed
    assert not {
        name for name in changed if name.startswith(("predictor", "online.projector", "online.encoder.box_head"))
    }


def test_rpn_learns_and_resumes_as_if_uninterrupted(run, tmp_path):
    losses = [line["rpn_loss"] for line in run.log_lines()]
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    again = RunFolder(tmp_path / "run")
    for steps in (3, None):
        execution = replace(HERE, max_steps=steps)
        socodet.pretrain(photographs(), chosen(epochs=4.0), again.path, execution=execution, show_progress=False)
    one, other = (folder.load_checkpoint()["model"] for folder in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("form", ["run", "torchvision", "state dict"])
def test_detectors_with_an_rpn_load_it(run, tmp_path, form):
    source = run.path
    if form == "torchvision":
        source = tmp_path / "first.pth"
        socodet.export(run.path, source)
    trained = run.load_checkpoint()["model"]
    source = trained if form == "state dict" else source
    detector = new_detector("faster_rcnn_fpn", MODEL, num_classes=3)
    report = socodet.load_pretrained(detector, source, show_report=False)
    assert "rpn.head" in report.loaded_modules
    for name, tensor in detector.rpn.head.state_dict().items():
        assert torch.equal(tensor, trained[f"online.encoder.rpn_head.{name}"])
    without = new_detector("retinanet_fpn", MODEL, num_classes=3)
    assert "RPN head" in socodet.load_pretrained(without, source, show_report=False).left_over_modules
    other = new_detector("faster_rcnn_c4", replace(MODEL, architecture="c4", rpn_weight=0.0), num_classes=3)
    before = other.rpn.head.conv[0][0].weight.clone()
    socodet.load_pretrained(other, source, show_report=False)  # C4 has other anchors
    assert torch.equal(other.rpn.head.conv[0][0].weight, before)


@pytest.mark.parametrize(
    ("form", "suffix", "name"),
    [
        ("detectron2", ".pkl", "proposal_generator.rpn_head.objectness_logits.weight"),
        ("mmdetection", ".pth", "rpn_head.rpn_cls.weight"),
    ],
)
def test_exports_contain_the_rpn_head(run, tmp_path, form, suffix, name):
    output = tmp_path / f"first{suffix}"
    socodet.export(run.path, output, format=form)
    read = pickle.loads(output.read_bytes()) if suffix == ".pkl" else torch.load(output, weights_only=True)
    tensors = read.get("model", read.get("state_dict", read))
    trained = run.load_checkpoint()["model"]["online.encoder.rpn_head.cls_logits.weight"]
    np.testing.assert_array_equal(np.asarray(tensors[name]), trained.numpy())


def test_rpn_needs_a_pyramid():
    with pytest.raises(SettingError, match="rpn_weight"):
        ModelSettings("c5", "resnet18", rpn_weight=1.0)
