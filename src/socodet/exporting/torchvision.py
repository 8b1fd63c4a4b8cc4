"""torchvision: a state dict of `maskrcnn_resnet50_fpn_v2` and its relatives."""

from dataclasses import fields
from pathlib import Path

from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, python_string, state_dict_bytes
from socodet.exporting.modules import PretrainedModules
from socodet.models.settings import ModelSettings
from socodet.weights.formats import Layout, torchvision


def torchvision_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """Backbone, FPN and box head as a state dict of torchvision's R-CNN detectors with batch norm.

    InputError for an architecture for which torchvision has no detector.
    """
    settings = modules.settings
    if not (modules.encoder.has_box_head and modules.encoder.has_pyramid):
        raise InputError(
            f"{modules.source}: torchvision has no detector for architecture {settings.architecture}, only for fpn; "
            "use another --format"
        )
    weights, left_out = modules.renamed(torchvision(Layout(fc=(settings.head_convs + 1,)), rpn=True))
    other = {
        field.name: getattr(settings, field.name)
        for field in fields(ModelSettings)
        if field.name not in ("hidden_size", "embedding_size", "rpn_weight")
        and getattr(settings, field.name) != field.default
    }
    has_rpn = any(plain.startswith("rpn.") for plain in modules.tensors)
    if other or has_rpn:  # torchvision has no function for these sizes, and its RPN head has more convolutions
        sizes = ", ".join(f"{name}={value!r}" for name, value in other.items())
        imported = ""
        detector = f'socodet.new_detector("mask_rcnn_fpn", socodet.ModelSettings({sizes}), num_classes=21)'
    else:
        imported = "from torchvision.models.detection import maskrcnn_resnet50_fpn_v2\n"
        detector = "maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=21)"
    return FrameworkFiles(
        weights={output: state_dict_bytes(weights, output)},
        left_out={output: left_out},
        how_to_load=(
            f"import socodet\n{imported}\ndetector = {detector}\n"
            f"socodet.load_pretrained(detector, {python_string(output.name)})"
        ),
        notes=("Images: RGB in 0 to 1; torchvision's detectors normalise them as in pretraining.",),
    )
