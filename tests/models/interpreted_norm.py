"""The kernels of fused batch norm for CUDA in Triton's interpreter, on a CPU; run as a script.

The interpreter must be chosen before Triton is imported, hence a process of its own.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from norm_checks import check, check_block, check_nan, check_outlier
from torchvision.models.resnet import BasicBlock, Bottleneck

from socodet.models import fused_norm, norm_kernels_cuda

norm_kernels_cuda.TILE = 512  # several tiles, and several programs a reduction, on small maps
torch.manual_seed(0)
check_nan(norm_kernels_cuda)
check_outlier(norm_kernels_cuda)
fused_norm._fits = lambda x, norm: True  # type: ignore[assignment]
fused_norm._kernels = lambda device: norm_kernels_cuda
for kind in (BasicBlock, Bottleneck):
    check_block(kind)
for add in (False, True):
    for relu in (False, True):
        check(norm_kernels_cuda, (3, 5, 7, 6), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check(norm_kernels_cuda, (2, 130, 5, 4), add=add, relu=relu, dtype=torch.float32, tolerance=2e-6)
        check(norm_kernels_cuda, (2, 16, 8, 8), add=add, relu=relu, dtype=torch.bfloat16, tolerance=6e-3)
print("all agree")
