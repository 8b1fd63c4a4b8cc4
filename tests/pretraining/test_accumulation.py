"""A batch split into micro-batches: gradients are averaged, and images do not depend on the number of processes."""

import numpy as np
import pytest
import torch

import socodet.models.soco as soco_module
from socodet.errors import InputError
from socodet.models.architectures import build_encoder
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.trainer import Trainer
from socodet.pretraining.watch import embedding_std
from socodet.runtime.world import World
from socodet.training.streams import Stream
from socodet.views.batch import Batch, ViewBatch, group_by_level

pytestmark = pytest.mark.usefixtures("narrow_networks")

SMALL = ModelSettings("fpn", "resnet18", 8, 1, 8, 8, 7, 16, 8)
LEVELS = torch.tensor([[0, 1], [1, 2], [2, 1], [1, 3]])


def a_batch(images: list[int]) -> Batch:
    """Some of four images; only image 0 uses P2, and only image 3 P5."""
    generator = torch.Generator().manual_seed(0)
    views = []
    for size in (48, 48, 32):
        pixels = torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)[images]
        corner = torch.rand(4, 2, 2, generator=generator, dtype=torch.float64) * size / 3
        boxes = torch.cat([corner, corner + size / 2], dim=-1)[images]
        views.append(ViewBatch(pixels, group_by_level(boxes, LEVELS[images]), boxes, LEVELS[images]))
    return Batch(tuple(views), torch.zeros(len(images), 3, 4), torch.tensor(images), cpu_seconds=1.0)


def soco() -> SoCo:
    torch.manual_seed(0)
    return SoCo(build_encoder(SMALL), SMALL).double().train()


def test_gradient_is_the_mean_over_micro_batches(monkeypatch):
    monkeypatch.setattr(soco_module, "normalize", lambda pixels: normalize(pixels, torch.float64))
    settings = TrainingSettings(epochs=4, warmup_epochs=1, batch_size=4, accumulate=2)
    ours = Trainer(soco(), settings, 10)
    monkeypatch.setattr(ours.optimizer, "step", lambda: None)  # a step would consume the gradients
    loss, embeddings = ours.step(a_batch([0, 1, 2, 3]))

    plain, halves = soco(), []
    parameters = dict(plain.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in parameters.items() if p.requires_grad}
    for images in ([0, 1], [2, 3]):
        output = plain(a_batch(images).views)
        halves.append(output)
        output.loss.backward()
        for name, total in expected.items():
            gradient = parameters[name].grad
            if gradient is not None:
                total += gradient / 2
        plain.zero_grad(set_to_none=True)
    torch.testing.assert_close(loss, (halves[0].loss + halves[1].loss).detach() / 2)
    torch.testing.assert_close(embeddings, torch.cat([half.embeddings for half in halves]))
    for name, parameter in ours.soco.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.pop(name), rtol=1e-9, atol=1e-12, msg=name)
    assert not expected
    assert ours.finished == 1
    line = ours.metrics(1.0, 0.0)
    assert line["loss"] == pytest.approx(float(loss))
    assert line["embedding_std"] == pytest.approx(embedding_std(embeddings))


def test_micro_batch_has_its_own_boxes_by_level():
    first, second = a_batch([0, 1, 2, 3]).split(2)
    by_hand = a_batch([2, 3])
    assert second.indices.tolist() == [2, 3]
    assert (first.cpu_seconds, second.cpu_seconds) == (0.5, 0.5)
    for view, expected in zip(second.views, by_hand.views, strict=True):
        assert torch.equal(view.pixels, expected.pixels)
        assert torch.equal(view.rois.rois, expected.rois.rois)
        assert torch.equal(view.rois.order, expected.rois.order)
        assert view.rois.counts == expected.rois.counts == (0, 2, 1, 1)
        assert view.rois.needed == (True, True, True, True)  # as in the whole batch


@pytest.mark.parametrize("processes", [2, 4])
def test_micro_batch_holds_the_same_images_for_any_number_of_processes(processes):
    indices = np.arange(37)
    whole = Stream(indices, 16, 0, parts=2).batch(3)
    assert whole == Stream(indices, 16, 0).batch(3)
    shares = [Stream(indices, 16, 0, World(r, processes), 2).batch(3) for r in range(processes)]
    half = 8 // processes
    assert [place for share in shares for place in share[:half]] == whole[:8]
    assert [place for share in shares for place in share[half:]] == whole[8:]


def test_micro_batches_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(InputError, match=r"accumulate must be at least 1 and divide batch_size \(2048\), not 3"):
        TrainingSettings(accumulate=3)
