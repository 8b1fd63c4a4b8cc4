import torch
from torchvision.models import ResNet50_Weights
from torchvision.transforms.functional import normalize as torchvision_normalize

from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD, normalize


def test_normalisation_matches_torchvision():
    pixels = torch.randint(0, 256, (2, 3, 9, 11), dtype=torch.uint8)
    expected = torchvision_normalize(pixels.double() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalize(pixels, torch.float64), expected)
    torch.testing.assert_close(normalize(pixels), expected.float(), rtol=1e-5, atol=1e-5)
    theirs = ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (list(IMAGENET_MEAN), list(IMAGENET_STD)) == (theirs.mean, theirs.std)
    assert normalize(pixels).is_contiguous(memory_format=torch.channels_last)
