"""torchvision's names: the run's weights as a state dict of `maskrcnn_resnet50_fpn_v2` and its relatives."""

from dataclasses import fields
from pathlib import Path

from torch import Tensor

from socodet.errors import InputError
from socodet.export.state_dict import state_dict_bytes
from socodet.models.settings import ModelSettings
from socodet.weights.modules import FrameworkFiles
from socodet.weights.pretrained_run import encoder_weights, model_settings


def detector_weights(run: str | Path) -> dict[str, Tensor]:
    """Backbone, FPN and box head under the names torchvision's R-CNN detectors give them.

    Only the box head's place differs: the encoder's `box_head` is the detector's `roi_heads.box_head`.
    InputError for a run of another architecture, which no torchvision detector has.
    """
    architecture = model_settings(run).architecture
    if architecture != "fpn":
        raise InputError(
            f"{run}: its architecture is {architecture}, which torchvision has no detector of; only fpn has"
        )
    return {
        f"roi_heads.{name}" if name.startswith("box_head.") else name: value.contiguous()
        for name, value in encoder_weights(run).items()
    }


def torchvision_files(run: str | Path, output: Path) -> FrameworkFiles:
    """The run as a state dict of torchvision's R-CNN detectors with batch norm (`..._resnet50_fpn_v2`)."""
    settings = model_settings(run)
    sizes = (field for field in fields(ModelSettings) if field.name not in ("hidden_size", "embedding_size"))
    if all(getattr(settings, field.name) == field.default for field in sizes):
        how_to_load = (
            "import socodet\n"
            "from torchvision.models.detection import maskrcnn_resnet50_fpn_v2\n\n"
            "detector = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=21)\n"
            f'socodet.load_pretrained(detector, "{output.name}")'
        )
    else:  # no function of torchvision makes a detector of these sizes
        how_to_load = (
            "import socodet\n\n"
            "detector = socodet.build_detector(RUN, num_classes=21)  # RUN: the folder of the run\n"
            f'socodet.load_pretrained(detector, "{output.name}")'
        )
    return FrameworkFiles(
        weights={output: state_dict_bytes(detector_weights(run), output)},
        left_out={output: ()},
        configs={},
        how_to_load=how_to_load,
        notes=("Images: RGB in 0 to 1; torchvision's detectors normalise them as in pretraining.",),
    )
