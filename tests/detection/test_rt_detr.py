"""RT-DETR as a detector: its outputs match transformers' processor, and boxes follow their objects."""

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from torch import nn
from transformers import RTDetrImageProcessor
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

from socodet.detection.detectors.by_name import detector_named, new_detector
from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError
from socodet.finetuning.samples import DetectionBatch
from socodet.finetuning.trainer import FineTuner, moving_average
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

SIDE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SEEN = InferenceSettings(short_side=SIDE, max_side=SIDE, score_threshold=0.0, detections=20)


@pytest.fixture(scope="module")
def network():
    return new_detector("rt_detr", NARROW, 4, inference=SEEN).eval()


def test_detections_match_transformers_postprocessing(network):
    """The image has the network's side, so that nothing is scaled."""
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    processor = RTDetrImageProcessor(
        do_resize=False,
        do_rescale=False,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    with torch.no_grad():
        output = network.detr(**processor(image, return_tensors="pt"))
        (answer,) = network([image])
    (theirs,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(SIDE, SIDE)])
    torch.testing.assert_close(answer["scores"], theirs["scores"][:20])
    assert torch.equal(answer["labels"], theirs["labels"][:20] + 1)
    torch.testing.assert_close(answer["boxes"], theirs["boxes"][:20].clamp(0, SIDE), atol=1e-3, rtol=1e-4)


def test_losses_sum_to_transformers_loss(network, monkeypatch):
    images = torch.rand(1, 3, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))
    network.train()
    torch.manual_seed(0)
    target = {"boxes": torch.tensor([[32.0, 16, 96, 48]]), "labels": torch.tensor([3])}
    losses = network(list(images), [target])
    torch.manual_seed(0)
    torch.randint(3, ())  # the random choice of the batch's side, here always 64
    pixels = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear")
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    labels = [{"class_labels": torch.tensor([2]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]])}]
    monkeypatch.setattr(network.detr, "_loss_function", RTDetrForObjectDetectionLoss)
    theirs = network.detr(pixel_values=(pixels - mean[:, None, None]) / std[:, None, None], labels=labels).loss
    network.eval()
    assert sum(losses.values()).item() == pytest.approx(theirs.item(), rel=1e-3)


def test_nan_outputs_skip_the_step_instead_of_failing_in_the_matcher():
    detector = detector_named("rt_detr")
    network = new_detector("rt_detr", NARROW, 4, inference=SEEN)
    settings = replace(detector.schedule("coco_1x"), iterations=2, batch_size=1, short_sides=(SIDE,))
    tuner = FineTuner(network, detector, settings, ExecutionSettings("cpu", on_nan="skip"))
    before = {name: value.clone() for name, value in network.named_parameters()}
    target = {"boxes": torch.tensor([[32.0, 16, 60, 48]]), "labels": torch.tensor([3])}
    with torch.no_grad():
        network.get_buffer("pixel_mean")[0] = torch.nan
    loss = tuner.step(DetectionBatch([torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)], [target]))
    assert loss.isnan()
    assert tuner.metrics(1.0, 0.0)["skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_boxes_follow_their_objects():
    """A bright square on a dark background is found again in the augmented image."""
    detector = detector_named("rt_detr")
    settings = replace(detector.schedule("coco_1x"), short_sides=(SIDE,))
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[20:40, 30:50] = 255
    target = {"boxes": torch.tensor([[30.0, 20, 50, 40]]), "labels": torch.tensor([7])}
    for seed in range(20):
        image, found = detector.training_sample(pixels, lambda _: target, settings, np.random.default_rng(seed))
        assert image.shape == (3, SIDE, SIDE)
        assert image.dtype == torch.uint8
        rows, columns = np.nonzero(image.numpy().max(0) > 60)
        assert len(found["boxes"]) == 1
        bright = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (found["boxes"][0] - bright).abs().max() <= 2
        assert found["labels"].tolist() == [7]


def test_objects_scaled_to_less_than_a_pixel_are_left_out():
    """One has 1.2 pixels in an image that is scaled from 100 to 64 pixels unless cropped."""
    detector = detector_named("rt_detr")
    settings = replace(detector.schedule("coco_1x"), short_sides=(SIDE,))
    pixels = np.zeros((100, 100, 3), np.uint8)
    target = {"boxes": torch.tensor([[50.0, 50, 51.2, 51.2], [20, 20, 80, 80]]), "labels": torch.tensor([1, 2])}
    sides, labels = [], set()
    for seed in range(30):
        _, found = detector.training_sample(pixels, lambda _: target, settings, np.random.default_rng(seed))
        sides += (found["boxes"][:, 2:] - found["boxes"][:, :2]).flatten().tolist()
        labels |= set(found["labels"].tolist())
        assert len(found["labels"]) == len(found["boxes"])
    assert min(sides) >= 1
    assert 2 in labels


def test_image_without_objects_is_a_sample():
    detector = detector_named("rt_detr")
    settings = replace(detector.schedule("coco_1x"), short_sides=(SIDE,))
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    image, found = detector.training_sample(
        np.zeros((60, 90, 3), np.uint8), lambda _: none, settings, np.random.default_rng(0)
    )
    assert image.shape == (3, SIDE, SIDE)
    assert found["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("backbone", "rate"), [("resnet18", 1.0), ("timm/resnet50d", 0.1)])
def test_backbone_rate_and_weight_decay(backbone, rate):
    detector = detector_named("rt_detr")
    network = new_detector("rt_detr", replace(NARROW, backbone=backbone), 4, inference=SEEN)
    optimizer = detector.optimizer(network, detector.schedule("coco_1x"))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(network.parameters()))
    assert detector.schedule("coco_1x").detections == 300  # its authors' num_top_queries
    model = network.detr.model
    convolution = model.backbone.model.encoder.stages[0].layers[0].layer[0].convolution
    assert group_of[id(convolution.weight)]["lr_factor"] == rate
    for module in (model.encoder.lateral_convs[0].norm, model.decoder.layers[0].self_attn_layer_norm):
        assert group_of[id(module.weight)]["lr_factor"] == 1
    kinds = {kind: [m for m in network.modules() if isinstance(m, kind)] for kind in (nn.BatchNorm2d, nn.LayerNorm)}
    assert all(bool((norm.weight == 1).all()) for norm in kinds[nn.BatchNorm2d])
    of_norms = {id(p) for norms in kinds.values() for norm in norms for p in norm.parameters()}
    for name, parameter in network.named_parameters():  # as in the authors' configurations that train all norms
        decays = id(parameter) not in of_norms and not name.endswith("bias")
        assert group_of[id(parameter)]["weight_decay"] == (1e-4 if decays else 0), name


def test_run_of_an_earlier_version_resumes_with_its_own_weight_decay(monkeypatch):
    """Norms of the backbone had decay; their parameters were in another group and order."""
    detector = detector_named("rt_detr")
    settings = replace(detector.schedule("coco_1x"), iterations=2, batch_size=1, short_sides=(SIDE,))
    target = {"boxes": torch.tensor([[32.0, 16, 60, 48]]), "labels": torch.tensor([3])}
    batch = DetectionBatch([torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)], [target])

    def tuner() -> FineTuner:
        network = new_detector("rt_detr", replace(NARROW, backbone="timm/resnet50d"), 4, inference=SEEN, seed=0)
        return FineTuner(network, detector, settings, ExecutionSettings("cpu"))

    def earlier(network, settings):
        backbone = [p for name, p in network.named_parameters() if name.startswith("detr.model.backbone.")]
        others = [p for name, p in network.named_parameters() if not name.startswith("detr.model.backbone.")]
        groups = {0.1: (backbone, 1e-4), 1.0: ([p for p in others if p.ndim > 1], 1e-4)}
        return torch.optim.AdamW(
            [
                *({"params": part, "lr_factor": rate, "weight_decay": decay} for rate, (part, decay) in groups.items()),
                {"params": [p for p in others if p.ndim == 1], "lr_factor": 1.0, "weight_decay": 0.0},
            ]
        )

    with monkeypatch.context() as patch:
        patch.setattr(type(detector), "optimizer", lambda _, *given: earlier(*given))
        whole = tuner()
    whole.step(batch)
    resumed = tuner()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for one in (whole, resumed):
        one.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True))


def test_detector_with_an_optimizer_of_its_own_resumes_with_it():
    """Its groups are those of an earlier version, but it is another algorithm."""

    class OwnOptimizer(type(detector_named("rt_detr"))):
        def optimizer(self, network, settings):
            groups = self.earlier_optimizer(network, settings).param_groups
            return torch.optim.SGD([{"params": one["params"], "lr_factor": 1.0} for one in groups], momentum=0.9)

    detector = OwnOptimizer()
    settings = replace(detector.schedule("coco_1x"), iterations=2, batch_size=1, short_sides=(SIDE,))
    network = new_detector("rt_detr", NARROW, 4, inference=SEEN, seed=0)
    begun, resumed = (FineTuner(network, detector, settings, ExecutionSettings("cpu")) for _ in range(2))
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    assert type(resumed.optimizer) is torch.optim.SGD


class ShrinkingDetector(Detector):
    """One weight, which each step makes smaller."""

    name = "shrinking"

    def build(self, model, num_classes, inference):
        raise NotImplementedError

    def optimizer(self, network, settings):
        return torch.optim.SGD([{"params": network.parameters(), "lr_factor": 1.0}], settings.lr)


class Weight(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images, targets):
        return {"loss": self.weight.sum()}


def test_moving_average_matches_the_authors():
    """Their ModelEMA: from the initial weights, with decay · (1 - exp(-n / warmups)) at the n-th step, from 1."""
    settings = ScheduleSettings(4, batch_size=1, lr=0.25, warmup_iterations=0, ema_decay=0.9, ema_warmup=2)
    tuner = FineTuner(Weight(), ShrinkingDetector(), settings, ExecutionSettings("cpu"))
    average = 1.0
    for n in range(1, 5):
        tuner.step(DetectionBatch([torch.zeros(3, 8, 8, dtype=torch.uint8)], [{}]))
        decay = 0.9 * (1 - np.exp(-n / 2))
        average = decay * average + (1 - decay) * tuner.network.weight.item()
        assert tuner.scored.weight.item() == pytest.approx(average, rel=1e-6)


def test_decay_of_the_moving_average_rises():
    average, weight = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    counter, counted = torch.tensor([3]), torch.tensor([8])
    update = moving_average(0.9, warmup=2)
    for step in (1, 2):
        update([average], [weight], torch.tensor(step))
    update([counter], [counted], torch.tensor(2))
    first, second = 0.9 * (1 - np.exp(-0.5)), 0.9 * (1 - np.exp(-1))
    assert average.item() == pytest.approx(1 - first * second)
    assert counter.item() == 8


def test_missing_transformers_and_unsupported_models_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'socodet\[transformers\]'"):
        new_detector("rt_detr", NARROW, 4)
    monkeypatch.undo()
    with pytest.raises(InputError, match="multiple of 8"):
        new_detector("rt_detr", replace(NARROW, fpn_channels=12), 4)
    with pytest.raises(InputError, match=r"not timm/convnext_atto"):
        new_detector("rt_detr", replace(NARROW, backbone="timm/convnext_atto"), 4)


def test_boxes_are_not_rounded_in_half_precision(network):
    """Just below 1, bfloat16 has steps of 1/256: 2.5 of 640 pixels."""
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = network.detr(pixel_values=network.normalized(image[None])).pred_boxes
    assert boxes.dtype == torch.float32
    assert (boxes != boxes.bfloat16().float()).float().mean() > 0.9


def test_anchors_are_not_rounded_in_half_precision(network):
    """With a box head of zeros, boxes start at the anchors: at cell centres, 0.05 wide and wider."""
    ours = copy.deepcopy(network)
    last = ours.detr.model.enc_bbox_head.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    levels = [(SIDE // stride, 0.05 * 2**level) for level, stride in enumerate((8, 16, 32))]
    anchors = torch.tensor(
        [((x + 0.5) / n, (y + 0.5) / n, width, width) for n, width in levels for y in range(n) for x in range(n)]
    )
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first = ours.detr(pixel_values=ours.normalized(image[None])).init_reference_points[0].sigmoid()
    distances = (first[:, None] - anchors).abs().amax(2)
    assert distances.min(1).values.max() < 1e-6
