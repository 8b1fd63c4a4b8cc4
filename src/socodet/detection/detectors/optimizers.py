"""SGD with the parameter groups of Detectron2's and MMDetection's schedules."""

from typing import Any

import torch
from torch import nn

from socodet.detection.detectors.schedules import ScheduleSettings

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def sgd(network: nn.Module, settings: ScheduleSettings) -> torch.optim.SGD:
    """SGD with momentum over `parameter_groups`; on a CPU in one pass, which takes a third of the time."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    return torch.optim.SGD(parameter_groups(network, settings), settings.lr, settings.momentum, fused=on_cpu or None)


def parameter_groups(network: nn.Module, settings: ScheduleSettings) -> list[dict[str, Any]]:
    """Weights, norms and biases, each with its weight decay and its factor of the learning rate."""
    norms = [p for module in network.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)]
    of_norms = {id(p) for p in norms}
    rest = [(n, p) for n, p in network.named_parameters() if id(p) not in of_norms and p.requires_grad]
    biases = [p for name, p in rest if name.endswith("bias")]
    weights = [p for name, p in rest if not name.endswith("bias")]
    decay = settings.weight_decay
    groups = [
        {"params": weights, "weight_decay": decay, "lr_factor": 1.0},
        {"params": norms, "weight_decay": decay * settings.decay_norms, "lr_factor": 1.0},
        {"params": biases, "weight_decay": decay * settings.decay_biases, "lr_factor": settings.bias_lr},
    ]
    return [group for group in groups if group["params"]]
