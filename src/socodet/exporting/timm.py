"""timm: the backbone alone, for `timm.create_model(NAME, checkpoint_path=FILE, num_classes=0)`."""

from pathlib import Path

from torch import Tensor

from socodet.errors import InputError
from socodet.exporting.files import FrameworkFiles, python_string, state_dict_bytes
from socodet.exporting.modules import PretrainedModules
from socodet.models.backbone_names import TIMM
from socodet.runtime.extensions import is_extension
from socodet.weights.formats import backbone
from socodet.weights.match import GETTER


def timm_files(modules: PretrainedModules, output: Path) -> FrameworkFiles:
    """The backbone as a state dict of timm's model of that name, without a classifier.

    timm's ResNets have torchvision's tensor names. A run with a timm network has only the layers that compute feature
    maps. The whole model's further tensors, such as a last norm before pooling, are added as timm initialises them, and
    the notes name them.
    """
    weights, left_out = modules.renamed(backbone())
    name = modules.settings.backbone.removeprefix(TIMM)
    if is_extension(name):
        raise InputError(
            f"{modules.source}: its backbone is {name}, which timm does not have; use --format torchvision"
        )
    notes: list[str] = []
    if name != modules.settings.backbone:
        weights, fresh = _as_full_model(weights, name)
        if fresh:
            notes.append(f"Not pretrained, as timm initialises it: {', '.join(fresh)}.")
    file = python_string(output.name)
    return FrameworkFiles(
        weights={output: state_dict_bytes(weights, output)},
        left_out={output: left_out},
        how_to_load=f'import timm\n\nmodel = timm.create_model("{name}", checkpoint_path={file}, num_classes=0)',
        notes=("Images: RGB in 0 to 1, normalised with ImageNet's mean and standard deviation.", *notes),
    )


def _as_full_model(weights: dict[str, Tensor], name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Converts a feature extractor's state dict to the whole model's; also returns the tensors that it lacked.

    timm's extractors either hold the model, or join the first two parts of a name by an underscore instead of a dot.
    """
    import timm

    whole = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    names = {there.replace(".", "_"): there for there in whole}
    found: dict[str, Tensor] = {}
    holder = GETTER.removeprefix("body.")
    held = holder if all(ours.startswith(holder) for ours in weights) else ""
    for ours, value in weights.items():
        there = names.get(ours.removeprefix(held).replace(".", "_"))
        if there is None or whole[there].shape != value.shape:
            raise InputError(
                f"{ours}: timm's {name} has no such tensor; export with the timm that the run was made with"
            )
        found[there] = value
    fresh = [there for there in whole if there not in found]
    return {there: found.get(there, value) for there, value in whole.items()}, fresh
