"""Loads pretrained weights into a network: read, match, copy, report.

A module is loaded completely or not at all, and stays unchanged if the source has none of it. Weights are never dropped
silently: anything that does not fit is an InputError, which leaves the network untouched.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from socodet.errors import InputError
from socodet.models.backbones import has_activations_in_norms, has_other_epsilons, timm_network
from socodet.models.soco import SoCo
from socodet.runtime.notices import log_new
from socodet.weights.formats import BACKBONE, MODULES, run_of, torchvision_of
from socodet.weights.hub import reads_hub
from socodet.weights.match import COUNTER, Advice, Network, match
from socodet.weights.read import read_pretrained
from socodet.weights.recognition import COMPILED, prefixes
from socodet.weights.report import LoadReport
from socodet.weights.transformers_names import adapt_names, backbone_of, is_rt_detr, transformers_of


@reads_hub("source")
def load_pretrained(
    detector: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    backbone_only: bool = False,
    show_report: bool = True,
) -> LoadReport:
    """Loads every pretrained module that the detector has; it is made of torchvision's parts, or is transformers'.

    source: a run's folder; a file exported for torchvision, timm or MMDetection; a checkpoint of the method's public
    code; a file with a backbone's state dict, such as a supervised ResNet's, wrapped or not; or a state dict in memory,
    for example that of a `SoCo` trained in your own loop.

    An R-CNN gets backbone, FPN and box head, and a pretrained RPN head if it fits. A single-stage detector gets
    backbone and FPN, level by level. An R-CNN on C4 gets the backbone, whose fifth block is its box head. Among
    transformers' detectors, DETR, Conditional DETR, DAB-DETR and Deformable DETR get the backbone; RT-DETR, version 1
    or 2, also gets its input projections from a pyramid with as many channels (the 1×1 convolutions of P3 to P5), and
    its hybrid encoder from a run that pretrained one.

    With `backbone_only`, only the backbone is loaded, and the report lists the other modules as left out.

    The detector may be wrapped in DistributedDataParallel, torch.compile or a LightningModule; the report has its own
    tensor names, without the wrapper's prefix.

    Reports what was loaded, what was left unchanged, and what is left over because the detector has no such module.
    Raises InputError, leaving the detector untouched, if the detector has a module but lacks one of its pretrained
    tensors or has it with another shape, if such a module or the backbone would be loaded only in part, and for a
    detector on the meta device.
    """
    detector = _unwrap(detector)
    own = {name.replace(COMPILED, ""): tensor for name, tensor in detector.state_dict().items()}
    title = type(detector).__name__
    if backbone_of(own) is not None:
        _check_strides(detector)
        _check_norms(detector)
        network = Network(title, own, transformers_of(own), _advice_on_transformers(own), optional=_OPTIONAL)
    else:
        network = Network(title, own, torchvision_of(own, rpn=True), _advice_on(detector), optional=(RPN_HEAD,))
    report = _load(source, network, needed=(BACKBONE,), backbone_only=backbone_only)
    if show_report:
        log_new(str(report))
    return report


def load_starting_point(soco: SoCo, source: str | Path) -> LoadReport:
    """Loads the online network and the predictor; the target network starts as a copy of the online network.

    Takes the same sources as `load_pretrained`; from a run or the public code, the MLPs are loaded as well. A network
    with another architecture gets the modules that both have, such as the backbone. InputError as in `load_pretrained`.
    """
    own = {name: tensor for name, tensor in soco.state_dict().items() if not name.startswith("target.")}
    report = _load(source, Network("this network", own, run_of(own), PRETRAINING, optional=(RPN_HEAD,)))
    soco.target.load_state_dict(soco.online.state_dict())
    return report


def _load(
    source: str | Path | Mapping[str, Tensor],
    network: Network,
    needed: Collection[str] = (),
    *,
    backbone_only: bool = False,
) -> LoadReport:
    pretrained = read_pretrained(source, network.is_body)
    if needed and not isinstance(source, Mapping) and Path(source).is_dir():
        pretrained = pretrained.encoder_only()
    if backbone_only:
        pretrained = pretrained.backbone_only()
    tensors = adapt_names(pretrained.tensors, network.names)
    pretrained = replace(
        pretrained,
        tensors={plain: value for plain, (_, value) in tensors.items()},
        names={plain: pretrained.names.get(there, there) for plain, (there, _) in tensors.items()},
    )
    pairs = match(pretrained, network, needed)
    for own in pairs:
        if network.tensors[network.names[own]].is_meta:
            raise InputError(
                f"{network.title}: {network.names[own]} is on the meta device, where no values can be loaded; build it "
                "on a device that has memory"
            )
    with torch.no_grad():
        for own, plain in pairs.items():
            network.tensors[network.names[own]].copy_(pretrained.tensors[plain])
    loaded = tuple(network.names[own] for own in pairs)
    filled = {network.tensors[name].data_ptr() for name in loaded}  # some networks have one tensor under two names
    fresh = [name for name, tensor in network.tensors.items() if tensor.data_ptr() not in filled]
    norms = {name.rpartition(".")[0] for name in loaded}
    counters = {
        plain for plain in tensors if plain.endswith(COUNTER) and plain.replace(COUNTER, "weight") in {*pairs.values()}
    }
    return LoadReport(
        pretrained.source,
        pretrained.format.title,
        loaded,
        tuple(name for name in fresh if not (name.endswith(COUNTER) and name.rpartition(".")[0] in norms)),
        pretrained.left_over({*pairs.values()} | counters),
        frozenset(pretrained.set_aside),
    )


BACKBONE_FLAGS = "--backbone and --fpn-channels"
HEAD_FLAGS = "--fpn-channels, --head-channels, --representation-size and --pooled-size"
_OTHER_BACKBONE = "the file has another backbone; set --backbone to it"
_FRESH = "remove its tensors from the file to start it at random"
_NO_MLPS = "or start from an export of that run (socodet export), which leaves this part out"
PRETRAINING = Advice(
    other_layers={
        "backbone": _OTHER_BACKBONE,
        "pyramid": f"a pyramid fits if each of its convolutions has batch norm and no bias; {_FRESH}",
        "box head": "a box head fits if it has --head-convs convolutions with batch norm and one fully connected "
        f"layer; {_FRESH}",
        "input projections": f"they fit if they are 1x1 convolutions with batch norm; {_FRESH}",
        "hybrid encoder": f"it fits a backbone of the same depth; {_FRESH}",
        "projector": f"a projector fits if it has two linear layers with batch norm between; {_FRESH}",
        "predictor": f"a predictor fits if it has two linear layers with batch norm between; {_FRESH}",
    },
    other_sizes={
        "backbone": _OTHER_BACKBONE,
        "pyramid": f"set {BACKBONE_FLAGS} to those of the file",
        "box head": f"set {HEAD_FLAGS} to those of the file",
        "input projections": f"set {BACKBONE_FLAGS} to those of the file",
        "hybrid encoder": f"set {BACKBONE_FLAGS} to those of the file",
        "projector": f"set --representation-size, --hidden-size and --embedding-size to that run's, {_NO_MLPS}",
        "predictor": f"set --hidden-size and --embedding-size to that run's, {_NO_MLPS}",
    },
    nothing="give the state dict of its backbone or of a detector, a run's folder, or a checkpoint of the method's "
    "public code",
)


RPN_HEAD = MODULES["rpn"]
"""Loaded only where it fits, because other detectors have RPNs with other anchors or with two convolutions."""
_OPTIONAL = ("input projections", "class heads")
"""Modules of RT-DETR that are loaded only if the number of pyramid channels, or of classes, is the same."""


def _unwrap(detector: nn.Module) -> nn.Module:
    """The detector inside DistributedDataParallel, torch.compile or a LightningModule. InputError for several."""
    found = prefixes("backbone.body.", [name.replace(COMPILED, "") for name in detector.state_dict()])
    if len(found) > 1:
        raise InputError(
            f"{type(detector).__name__}: holds {len(found)} detectors, named by the prefixes {' and '.join(found)}; "
            "give the one to load into"
        )
    for name in found[0].split(".")[:-1] if found else ():
        detector = getattr(detector, name)
    return getattr(detector, COMPILED.rstrip("."), detector)


def _check_strides(detector: nn.Module) -> None:
    """InputError if weights would fit but compute something else, because a block strides in its first convolution."""
    configs = (getattr(module, "config", None) for module in detector.modules())
    backbones = (getattr(config, "backbone_config", None) for config in configs)
    if any(getattr(backbone, "downsample_in_bottleneck", False) for backbone in backbones):
        raise InputError(
            f"{type(detector).__name__}: its ResNet strides in 1x1 convolutions, pretrained ones in 3x3 convolutions; "
            "build it with downsample_in_bottleneck=False"
        )


def _check_norms(detector: nn.Module) -> None:
    """InputError if transformers, which replaces batch norms, has dropped an activation inside one, or its epsilon."""
    configs = (getattr(module, "config", None) for module in detector.modules())
    backbones = (getattr(config, "backbone_config", None) for config in configs)
    names = (getattr(one, "backbone", None) for one in backbones if getattr(one, "model_type", "") == "timm_backbone")
    name = next(names, None)
    if name is None or has_activations_in_norms(detector) or has_other_epsilons(detector):
        return
    network = timm_network(name)
    if has_other_epsilons(network):
        raise InputError(
            f"{type(detector).__name__}: transformers replaces batch norms by its own, which have another epsilon than "
            f"those of {name}; take another backbone, such as a ResNet or ConvNeXt"
        )
    if has_activations_in_norms(network):
        raise InputError(
            f"{type(detector).__name__}: transformers replaces batch norms, but in {name} these contain the "
            "activations, which are lost; take a backbone in which they are separate, such as a ResNet or ConvNeXt"
        )


def _advice_on_transformers(names: Collection[str]) -> Advice:
    if is_rt_detr(names) and any("embedder.embedder.0." in name for name in names):
        backbone = (
            "RT-DETR's ResNets are timm's resnet18d to resnet101d: pretrain with --backbone timm/resnet50d or similar"
        )
    else:
        backbone = "it was pretrained with another backbone: build the model with it, a backbone_config of that name"
    sizes = "give the model as many channels (encoder_hidden_dim, d_model)"
    return Advice(
        other_layers={**dict.fromkeys(MODULES.values(), "it has other layers than this one"), "backbone": backbone},
        other_sizes={**dict.fromkeys(MODULES.values(), sizes), "backbone": backbone},
        nothing="give a run's folder, an exported file, a checkpoint of the method's public code, or a backbone",
    )


def _advice_on(detector: nn.Module) -> Advice:
    builder = "build the detector with socodet.build_detector"
    if hasattr(detector, "roi_heads"):
        norm = f"{builder}, whose FPN and box head have batch norm, as pretrained ones do"
    else:
        name = f"{type(detector).__name__.lower()}_fpn"
        norm = (
            "a pretrained pyramid has batch norm, and torchvision builds this detector without: use "
            f'socodet.build_detector(RUN, detector="{name}"), or load the backbone alone (socodet export --format timm)'
        )
    backbone = f"it was pretrained with another backbone; {builder}, or fine-tune with the file's {BACKBONE_FLAGS}"
    resnet50 = f"{builder}, or use torchvision's ..._resnet50_fpn_v2 (batch norm in FPN and box head)"
    nothing = "give a run's folder, an exported file, a checkpoint of the method's public code, or a backbone"
    if not hasattr(detector, "backbone"):
        nothing = (
            "it has no backbone, so it is not a detector; for a backbone alone, make an export for timm (socodet "
            "export --format timm) and pass its state dict to load_state_dict with strict=False, as the export has no "
            "classifier"
        )
    return Advice(
        other_layers={"backbone": backbone, "pyramid": norm, "box head": norm},
        other_sizes={
            "backbone": backbone,
            "pyramid": f"{builder}, or fine-tune with the file's {BACKBONE_FLAGS}",
            "box head": f"{builder}, or fine-tune with the file's {HEAD_FLAGS}",
        },
        nothing=nothing,
        resnet50=dict.fromkeys(("pyramid", "box head"), resnet50) if hasattr(detector, "roi_heads") else {},
    )
