import pytest
import torch
from torch import nn
from torchvision.transforms.functional import normalize as torchvision_normalize

from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD, normalize, reestimate_batch_norm
from socodet.views.batch import ViewBatch, group_by_level


def test_equals_torchvisions_normalisation():
    pixels = torch.randint(0, 256, (2, 3, 9, 11), dtype=torch.uint8)
    expected = torchvision_normalize(pixels.double() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalize(pixels, torch.float64), expected)
    torch.testing.assert_close(normalize(pixels), expected.float(), rtol=1e-5, atol=1e-5)
    assert normalize(pixels).is_contiguous(memory_format=torch.channels_last)


class OneNorm(nn.Module):
    """An encoder with a single batch norm on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=0.1)

    def forward(self, pixels, rois):
        return self.norm(pixels).mean(dim=(2, 3))


def test_statistics_become_the_average_over_the_batches():
    network = OneNorm().eval()
    boxes, levels = torch.tensor([[[0.0, 0, 8, 8]]] * 3), torch.zeros(3, 1, dtype=torch.int64)
    batches = []
    for _ in range(4):
        pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
        batches.append(ViewBatch(pixels, group_by_level(boxes, levels), boxes, levels))
    reestimate_batch_norm(network, batches)
    inputs = [normalize(batch.pixels, torch.float64) for batch in batches]
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    torch.testing.assert_close(network.norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.norm.running_var.double(), variance, rtol=1e-4, atol=1e-5)
    assert not network.training
    assert network.norm.momentum == pytest.approx(0.1)
