"""Hugging Face transformers: a folder for `from_pretrained`, with a detector that has the pretrained backbone."""

import errno
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor, nn

from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, python_string
from socodet.exporting.modules import PretrainedModules
from socodet.exporting.statistics import backbone_statistics
from socodet.models.backbone_names import TIMM
from socodet.models.backbones import timm_levels
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from socodet.models.rt_detr import import_transformers, reset_norms, resnet_d_depth, rt_detr_config
from socodet.runtime.extensions import is_extension
from socodet.weights.load import load_pretrained
from socodet.weights.transformers_names import transformers_of

TransformersModel = Literal["detr", "conditional_detr", "deformable_detr", "rt_detr_v2"]
_CLASSES: dict[TransformersModel, str] = {
    "detr": "Detr",
    "conditional_detr": "ConditionalDetr",
    "deformable_detr": "DeformableDetr",
    "rt_detr_v2": "RTDetrV2",
}


def transformers_files(
    modules: PretrainedModules,
    output: Path,
    model: TransformersModel,
    images: str | Path | None,
    bn_images: int,
    *,
    show_progress: bool = False,
) -> FrameworkFiles:
    """A model of the original size with a pretrained backbone and everything else fresh, and its image processor.

    RT-DETR's encoder has 256 channels at every depth, or those of a pretrained encoder. The backbone's batch norm gets
    the statistics that `backbone_statistics` estimates on `bn_images` images. InputError for a backbone that the model
    does not have, and for images that would not be used.
    """
    transformers = import_transformers("--format transformers")
    has_norms = any(name.startswith("body.") and name.endswith("running_var") for name in modules.tensors)
    if images is not None and not has_norms:
        raise InputError(
            f"--images: only for batch norm statistics, and {modules.settings.backbone} has no batch norm; leave it out"
        )
    name = _CLASSES[model]
    network = getattr(transformers, f"{name}ForObjectDetection")(_config(transformers, modules, model))
    if model == "rt_detr_v2":
        reset_norms(network)
    report = load_pretrained(network, modules.source, show_report=False)
    statistics = None
    if has_norms:
        statistics = backbone_statistics(modules, images, bn_images, show_progress=show_progress)
    if statistics is not None:
        _replace_statistics(network, statistics[0])
    on_norms = "They are those of pretraining." if statistics is None else f"They were {statistics[1]}."
    processor = getattr(transformers, "RTDetrImageProcessor" if model == "rt_detr_v2" else f"{name}ImageProcessor")
    # RT-DETR's own processor leaves RGB in 0 to 1 unnormalised; pretraining normalised it
    normalized = {"do_normalize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    weights, configs = saved_files(output, network, processor(**normalized))
    freshly = ", ".join(report.fresh_modules)
    return FrameworkFiles(
        weights=weights,
        left_out={path: tuple(report.left_over_modules) for path in weights},
        configs=configs,
        how_to_load=(
            f"from transformers import AutoImageProcessor, {name}ForObjectDetection\n\n"
            f"model = {name}ForObjectDetection.from_pretrained(\n    {python_string(output.name)}, num_labels=20, "
            "ignore_mismatched_sizes=True  # your number of classes\n)\n"
            f"processor = AutoImageProcessor.from_pretrained({python_string(output.name)})"
        ),
        notes=(
            "Images: RGB in 0 to 1, normalised with ImageNet's mean and standard deviation; the processor does this.",
            f"Not pretrained: {freshly}.",
            *([f"The model freezes batch norm in its backbone, so its statistics matter. {on_norms}"] * has_norms),
        ),
    )


@contextmanager
def _without_progress() -> Iterator[None]:
    """Hides transformers' own progress bars."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def saved_files(output: Path, *parts: Any) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """The weights and texts that `save_pretrained` of a model and a processor writes into the folder `output`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _without_progress():
                for part in parts:
                    part.save_pretrained(folder)
        except SafetensorError as error:  # raised on a full disk
            raise OSError(errno.EIO, str(error), folder) from None
        files = {output / path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    weights = {path: content for path, content in files.items() if path.suffix == ".safetensors"}
    return weights, {path: content.decode() for path, content in files.items() if path not in weights}


def _config(transformers: Any, modules: PretrainedModules, model: TransformersModel) -> Any:
    settings = modules.settings
    if model == "rt_detr_v2":
        depth = resnet_d_depth(settings.backbone)
        if depth is None:
            raise InputError(
                f"{modules.source}: its backbone is {settings.backbone}, but RT-DETR has a ResNet-d; pretrain with "
                "--backbone timm/resnet50d or similar, or choose another --model"
            )
        aligned = settings.architecture == "rt_detr"
        return rt_detr_config(depth, settings.fpn_channels) if aligned else rt_detr_config(depth)
    if is_extension(settings.backbone):
        raise InputError(
            f"{modules.source}: its backbone is {settings.backbone}, which transformers does not have; use --format "
            "torchvision"
        )
    name = settings.backbone.removeprefix(TIMM)
    levels = timm_levels(name)
    backbone = transformers.TimmBackboneConfig(
        backbone=name, out_indices=levels[1:] if model == "deformable_detr" else levels
    )
    return getattr(transformers, f"{_CLASSES[model]}Config")(backbone_config=backbone)


def _replace_statistics(network: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    names = transformers_of(own)
    for plain, value in statistics.items():
        own[str(names.from_plain(plain))].copy_(value)
